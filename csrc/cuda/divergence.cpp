// The divergences on CUDA: tensors to terms, one launch for all.
#include <limits>

#include "backend.h"
#include "device.h"

namespace gankernels {

namespace {

using cuda::DivergenceLaunch;
using cuda::DivergenceTerm;
using cuda::Target;

// A DivergenceTerm with the tensors that it points into.
class Bound {
 public:
  DivergenceTerm term;

  Bound(const Divergence& d, int64_t dim, const Request& request)
      : logits_(d.logits),
        dim_(dim),
        mixture_(d.share.has_value()),
        accumulate_(accumulate_type(d.logits.scalar_type())) {
    term.rows = d.logits.numel() / d.logits.size(dim);
    weigh(term, d, request);
    if (request.reduction == kMean) term.loss_scale /= static_cast<double>(term.rows);
    operands_.input(d.logits, term.q_logits);
    if (d.p_logits != nullptr) operands_.input(*d.p_logits, term.p_logits);
    target(d.positive, term.positive);
    target(d.negative, term.negative);
    operands_.output(d.p_grad, term.p_grad);
    operands_.output(d.grad, term.q_grad);
    operands_.output(d.positive_grad, term.target_grad);
    if (term.rows == 0) return;
    const auto all = [](const RowDimensions&, const Operands&) { return true; };
    term.inner_rows = operands_.settle(dim, all).inner_rows();
  }

  void hand_back() const { operands_.hand_back(); }

  Positive positive() const {
    if (mixture_) return Positive::kMixture;
    if (term.p_logits.data != nullptr) return Positive::kSoftmax;
    return term.target_grad.data != nullptr ? Positive::kTarget : Positive::kAnchor;
  }

  // Whether all operands can be read and written 16 bytes at a time.
  bool is_wide() const {
    const int64_t width = 16 / static_cast<int64_t>(logits_.element_size());
    const auto fits = [&](const Rows& rows) {
      return rows.data == nullptr ||
             (rows.cls == 1 && cuda::is_aligned(rows.data) && rows.outer % width == 0 && rows.inner % width == 0);
    };
    return logits_.size(dim_) % width == 0 && fits(term.q_logits) && fits(term.p_logits) && fits(term.q_grad) &&
           fits(term.p_grad) && fits(term.target_grad) && fits(term.positive.rows) && fits(term.negative.rows);
  }

  // Whether rows lie side by side in memory and classes do not.
  bool is_columns() const {
    const Rows& q = term.q_logits;
    return logits_.size(dim_) > 1 && q.cls != 1 && (term.inner_rows > 1 ? q.inner : q.outer) == 1;
  }

 private:
  // An anchor of the logits' dtype or of the accumulation dtype is read as it is, any other converted first.
  void target(const Tensor* given, Target& out) {
    if (given == nullptr) return;
    const bool as_it_is = given->scalar_type() == logits_.scalar_type() || given->scalar_type() == accumulate_;
    const Tensor t = as_it_is ? *given : given->to(accumulate_);
    out.wide = t.scalar_type() == accumulate_;
    out.shared = is_broadcast(t, logits_, dim_);
    if (!out.shared) return operands_.input(t, out.rows);
    shared_.push_back(t);
    out.rows.data = const_cast<void*>(t.const_data_ptr());
    out.rows.cls = t.stride(t.dim() == 1 ? 0 : dim_);
  }

  const Tensor& logits_;
  int64_t dim_;
  bool mixture_;
  at::ScalarType accumulate_;
  Operands operands_;
  c10::SmallVector<Tensor, 2> shared_;
};

}  // namespace

void Cuda::divergences(const char* name, const Tensor& loss, int64_t dim, const Request& request,
                       std::initializer_list<Divergence> divergences) {
  const Tensor& logits = divergences.begin()->logits;
  // Half of what int holds: the step past the end of a row must not leave it.
  constexpr int64_t kMostClasses = std::numeric_limits<int>::max() / 2;
  TORCH_CHECK_VALUE(logits.size(dim) <= kMostClasses, "logits must have at most ", kMostClasses, " classes, got ",
                    logits.size(dim));
  const cuda::OnDeviceOf device(logits);
  DivergenceLaunch launch;
  launch.count = 0;
  launch.classes = static_cast<int>(logits.size(dim));
  launch.dtype = kernel_dtype(logits.scalar_type());
  launch.wide = launch.columns = true;
  std::optional<Bound> bound[2];
  for (const Divergence& d : divergences) {
    const Bound& next = bound[launch.count].emplace(d, dim, request);
    launch.wide = launch.wide && next.is_wide();
    launch.columns = launch.columns && next.is_columns();
    launch.positive = next.positive();
    launch.terms[launch.count++] = next.term;
  }
  std::optional<cuda::Workspace> workspace;
  if (request.reduction == kNone) {
    launch.row_loss = loss.mutable_data_ptr();
    launch.one_after_other = launch.count > 1;
  } else {
    launch.parts = cuda::parts_of(launch);
    const int64_t numbers = cuda::kPartBytes / sizeof(double);
    workspace.emplace(loss, true, launch.parts > 1 ? numbers * launch.parts * launch.rows() : 0);
    launch.total = workspace->total;
    launch.part_sums = workspace->sums;
  }
  cuda::check_launch(cuda::launch_divergence(launch, device.stream()), name);
  for (int i = 0; i < launch.count; ++i) bound[i]->hand_back();
}

}  // namespace gankernels
