// The divergences on CUDA: tensors to problems, one launch each.
#include "../operators/divergence.h"

#include <torch/library.h>

#include <limits>

#include "device.h"
#include "geometry.h"

namespace gankernels {

namespace {

using cuda::DivergenceLaunch;
using cuda::DivergenceTerm;
using cuda::Target;

// One DivergenceTerm with the tensors that it points into.
class Divergence {
 public:
  Divergence(const Tensor& logits, int64_t dim, int64_t reduction, bool fold_mean, double grad_scale)
      : logits_(logits), dim_(dim), accumulate_(accumulate_type(logits.scalar_type())) {
    term.rows = logits.numel() / logits.size(dim);
    const double mean = reduction == kMean ? 1 / static_cast<double>(term.rows) : 1;
    term.weight = fold_mean ? grad_scale * mean : grad_scale;
    term.loss_scale = mean;
    input(logits, term.q_logits);
  }

  void positive(const Tensor& anchor) { target(anchor, term.positive); }
  void negative(const Tensor& anchor) { target(anchor, term.negative); }
  void softmax(const Tensor& p_logits) { input(p_logits, term.p_logits); }

  void q_gradient(const Tensor& t) { output(t, term.q_grad); }
  void p_gradient(const Tensor& t) { output(t, term.p_grad); }
  void target_gradient(const Tensor& t, const Tensor& target) {
    TORCH_CHECK_TYPE(
        t.numel() == 0 || target.scalar_type() == logits_.scalar_type() || target.scalar_type() == accumulate_,
        "target must have the dtype of logits or of the loss where its gradient is asked for, got ",
        dtype_name(target.scalar_type()));
    output(t, term.target_grad);
  }

  // After the last operand: takes the tensors as they lie, or contiguous copies of them.
  void settle() {
    if (term.rows == 0 || cuda::describe(term, operands_, dim_)) return;
    for (cuda::Operand& operand : operands_) {
      operand.requested = operand.tensor;
      operand.tensor = operand.is_output ? at::empty_like(operand.tensor, at::MemoryFormat::Contiguous)
                                         : operand.tensor.contiguous();
    }
    TORCH_INTERNAL_ASSERT(cuda::describe(term, operands_, dim_));
  }

  // After the launch: outputs computed in copies go where they belong.
  void hand_back() const {
    for (const cuda::Operand& operand : operands_)
      if (operand.is_output && operand.requested.defined()) operand.requested.copy_(operand.tensor);
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

  DivergenceTerm term;

 private:
  void input(const Tensor& t, Rows& rows) { operands_.push_back({t, &rows, false}); }
  void output(const Tensor& t, Rows& rows) {
    if (t.numel() != 0) operands_.push_back({t, &rows, true});
  }

  // An anchor of the logits' dtype or of the accumulation dtype is read as it is, any other converted first.
  void target(const Tensor& given, Target& out) {
    if (!given.defined()) return;
    const bool as_it_is = given.scalar_type() == logits_.scalar_type() || given.scalar_type() == accumulate_;
    const Tensor t = as_it_is ? given : given.to(accumulate_);
    out.wide = t.scalar_type() == accumulate_;
    out.shared = is_broadcast(t, logits_, dim_);
    if (!out.shared) return input(t, out.rows);
    kept_.push_back(t);
    out.rows.data = const_cast<void*>(t.const_data_ptr());
    out.rows.cls = t.stride(t.dim() == 1 ? 0 : dim_);
  }

  Tensor logits_;
  int64_t dim_;
  at::ScalarType accumulate_;
  std::vector<cuda::Operand> operands_;
  c10::SmallVector<Tensor, 2> kept_;
};

// Runs one or two divergences, in one launch that leaves their reduced sum in `loss`.
void evaluate(const char* name, const Tensor& logits, int64_t dim, const Tensor& loss, int64_t reduction,
              std::initializer_list<Divergence*> divergences) {
  // Half of what int holds: the step past the end of a row must not leave it.
  constexpr int64_t kMostClasses = std::numeric_limits<int>::max() / 2;
  TORCH_CHECK_VALUE(logits.size(dim) <= kMostClasses, "logits must have at most ", kMostClasses, " classes, got ",
                    logits.size(dim));
  const cuda::OnDeviceOf device(logits);
  DivergenceLaunch launch;
  launch.count = 0;
  launch.classes = static_cast<int>(logits.size(dim));
  launch.dtype = cuda::kernel_dtype(logits.scalar_type());
  launch.wide = launch.columns = true;
  for (Divergence* d : divergences) {
    d->settle();
    launch.wide = launch.wide && d->is_wide();
    launch.columns = launch.columns && d->is_columns();
    launch.softmax = d->term.p_logits.data != nullptr;
    launch.terms[launch.count++] = d->term;
  }
  std::optional<cuda::Workspace> workspace;
  if (reduction == kNone) {
    launch.row_loss = loss.mutable_data_ptr();
    launch.one_after_other = launch.count > 1;
  } else {
    launch.total = workspace.emplace(loss, true).total;
  }
  cuda::check_launch(cuda::launch_divergence(launch, device.stream()), name);
  for (const Divergence* d : divergences) d->hand_back();
}

TwoGradients softmax_kl_cuda(const Tensor& logits, const Tensor& target, int64_t dim, int64_t reduction,
                             bool logits_grad, bool target_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] = prepare_softmax_kl(logits, target, dim, reduction, logits_grad, target_grad);
  auto& [loss, g_logits, g_target] = outputs;
  Divergence divergence(logits, d, reduction, fold_mean, grad_scale);
  divergence.positive(target);
  divergence.q_gradient(g_logits);
  divergence.target_gradient(g_target, target);
  evaluate("softmax_kl", logits, d, loss, reduction, {&divergence});
  return outputs;
}

TwoGradients softmax_kl_logits_cuda(const Tensor& p_logits, const Tensor& q_logits, int64_t dim, int64_t reduction,
                                    bool p_grad, bool q_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] = prepare_softmax_kl_logits(p_logits, q_logits, dim, reduction, p_grad, q_grad);
  auto& [loss, g_p, g_q] = outputs;
  Divergence divergence(q_logits, d, reduction, fold_mean, grad_scale);
  divergence.softmax(p_logits);
  divergence.p_gradient(g_p);
  divergence.q_gradient(g_q);
  evaluate("softmax_kl_logits", q_logits, d, loss, reduction, {&divergence});
  return outputs;
}

TwoGradients realness_d_loss_cuda(const Tensor& real, const Tensor& fake, const Tensor& real_anchor,
                                  const Tensor& fake_anchor, int64_t dim, int64_t reduction, bool real_grad,
                                  bool fake_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] =
      prepare_realness_d_loss(real, fake, real_anchor, fake_anchor, dim, reduction, real_grad, fake_grad);
  auto& [loss, g_real, g_fake] = outputs;
  Divergence real_term(real, d, reduction, fold_mean, grad_scale);
  real_term.positive(real_anchor);
  real_term.q_gradient(g_real);
  Divergence fake_term(fake, d, reduction, fold_mean, grad_scale);
  fake_term.positive(fake_anchor);
  fake_term.q_gradient(g_fake);
  evaluate("realness_d_loss", fake, d, loss, reduction, {&real_term, &fake_term});
  return outputs;
}

TwoGradients realness_g_loss_cuda(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                                  const OptionalTensor& fake_anchor, int64_t objective, int64_t dim, int64_t reduction,
                                  bool real_grad, bool fake_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] =
      prepare_realness_g_loss(real, fake, real_anchor, fake_anchor, objective, dim, reduction, real_grad, fake_grad);
  auto& [loss, g_real, g_fake] = outputs;
  Divergence divergence(fake, d, reduction, fold_mean, grad_scale);
  if (objective == 2) {
    divergence.softmax(*real);
    divergence.p_gradient(g_real);
  }
  if (objective == 3) divergence.positive(*real_anchor);
  divergence.negative(*fake_anchor);
  divergence.q_gradient(g_fake);
  evaluate("realness_g_loss", fake, d, loss, reduction, {&divergence});
  return outputs;
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, GK_CUDA_KEY, m) {
  m.impl("softmax_kl_value_and_grad", TORCH_FN(softmax_kl_cuda));
  m.impl("softmax_kl_logits_value_and_grad", TORCH_FN(softmax_kl_logits_cuda));
  m.impl("realness_d_loss_value_and_grad", TORCH_FN(realness_d_loss_cuda));
  m.impl("realness_g_loss_value_and_grad", TORCH_FN(realness_g_loss_cuda));
}

}  // namespace gankernels
