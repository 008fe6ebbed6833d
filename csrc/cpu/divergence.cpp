// The divergences on the CPU: to DivergenceProblems, and these to threads.

#include <cmath>
#include <limits>

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

void* scratch(int64_t bytes) {
  thread_local std::vector<double> memory;
  const size_t needed = static_cast<size_t>(bytes) / sizeof(double) + 1;
  if (memory.size() < needed) memory.resize(needed);
  return memory.data();
}

// A DivergenceProblem with the tensors that it points into.
class Bound {
 public:
  DivergenceProblem problem;

  Bound(const Divergence& d, int64_t dim, const Request& request)
      : d_(d), dim_(dim), accumulate_(accumulate_type(d.logits.scalar_type())) {
    problem.dtype = kernel_dtype(d.logits.scalar_type());
    problem.classes = d.logits.size(dim);
    problem.rows = d.logits.numel() / problem.classes;
    weigh(problem, d, request);
    operands_.input(d.logits, problem.q_logits);
    if (d.share.has_value()) mixture();
    else if (d.p_logits != nullptr) softmax();
    else if (is_shared(d.positive) && is_shared(d.negative) && !wants_positive_grad()) anchors();
    else targets();
    operands_.output(d.p_grad, problem.p_grad);
    operands_.output(d.grad, problem.q_grad);
    if (problem.rows > 0) settle();
  }

  void row_loss(const Tensor& loss, bool add) {
    problem.row_loss = loss.data_ptr();
    problem.add_to_row_loss = add;
  }

  void hand_back() const { operands_.hand_back(); }

 private:
  bool is_shared(const Tensor* t) const { return t == nullptr || is_broadcast(*t, d_.logits, dim_); }
  bool wants_positive_grad() const { return d_.positive_grad != nullptr && d_.positive_grad->numel() != 0; }

  // KL(P || .) - KL(M || .) for anchors of all rows.
  void anchors() {
    combine(d_.positive, d_.negative);
    problem.mass = std::abs(problem.mass) <= epsilon() ? 0 : problem.mass;
    problem.linear = problem.mass == 0;
  }

  // The same for one distribution per row; a P alone is read in its own dtype where that is the logits'.
  void targets() {
    problem.positive = Positive::kTarget;
    if (d_.negative != nullptr) {
      rows_of(d_.positive, problem.p_target);
      rows_of(d_.negative, problem.m_target);
    } else {
      problem.target_like_logits = d_.positive->scalar_type() == d_.logits.scalar_type();
      operands_.input(problem.target_like_logits ? *d_.positive : d_.positive->to(accumulate_), problem.p_target);
    }
    operands_.output(d_.positive_grad, problem.target_grad);
  }

  // KL(softmax(p_logits) || .) - KL(M || .), M an anchor or absent.
  void softmax() {
    problem.positive = Positive::kSoftmax;
    operands_.input(*d_.p_logits, problem.p_logits);
    problem.mass = 1;
    if (d_.negative == nullptr) return;
    if (!is_shared(d_.negative)) return rows_of(d_.negative, problem.m_target);
    combine(d_.negative, nullptr);
    problem.entropy = -problem.entropy;
    problem.mass = 1 - problem.mass;
    problem.linear = std::abs(problem.mass) <= epsilon();
  }

  void mixture() {
    problem.positive = Positive::kMixture;
    operands_.input(*d_.p_logits, problem.p_logits);
  }

  void rows_of(const Tensor* target, Rows& rows) {
    if (target == nullptr) return;
    Tensor full = target->to(accumulate_);
    if (is_shared(target)) {
      std::vector<int64_t> ones(static_cast<size_t>(d_.logits.dim()), 1);
      ones[static_cast<size_t>(dim_)] = problem.classes;
      full = full.reshape(ones).expand(d_.logits.sizes()).contiguous();
    }
    operands_.input(full, rows);
  }

  // Walks the tensors as they lie where classes or rows lie side by side, or contiguous copies of them.
  void settle() {
    bool rows_adjacent = false;
    const RowDimensions merged = operands_.settle(dim_, [&](const RowDimensions& found, const Operands& operands) {
      rows_adjacent = operands.rows_adjacent(found);
      // A single class leaves the lanes to the rows.
      problem.class_contiguous = operands.classes_adjacent(dim_) && !(rows_adjacent && problem.classes == 1);
      return problem.class_contiguous || rows_adjacent;
    });
    problem.inner_rows = merged.inner_rows();
    if (merged.count == 1 && !problem.class_contiguous) {
      operands_.swap_rows();
      problem.inner_rows = problem.rows;
    }
  }

  double epsilon() const {
    return accumulate_ == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  }

  // anchor = P - M, entropy = sum P log P - sum M log M, mass = sum P - sum M.
  void combine(const Tensor* positive, const Tensor* negative) {
    if (accumulate_ == at::kDouble) return combine_as<double>(positive, negative);
    combine_as<float>(positive, negative);
  }

  template <class A>
  void combine_as(const Tensor* positive, const Tensor* negative) {
    combined_.resize(static_cast<size_t>(problem.classes));  // doubles: room and alignment for either type
    A* out = reinterpret_cast<A*>(combined_.data());
    std::fill(out, out + problem.classes, A(0));
    const auto add = [&](const Tensor* anchor, double sign) {
      if (anchor == nullptr) return;
      const Tensor values = anchor->to(accumulate_).contiguous();
      const A* x = values.const_data_ptr<A>();
      for (int64_t k = 0; k < problem.classes; ++k) out[k] += static_cast<A>(sign) * x[k];
      constexpr Dtype dtype = std::is_same_v<A, double> ? Dtype::kDouble : Dtype::kFloat;
      const AnchorSums sums = cpu_kernels().anchor_sums(dtype, x, problem.classes);
      problem.mass += sign * sums.mass;
      problem.entropy += sign * sums.entropy;
    };
    problem.mass = problem.entropy = 0;
    add(positive, 1);
    add(negative, -1);
    problem.anchor = out;
  }

  const Divergence& d_;
  int64_t dim_;
  at::ScalarType accumulate_;
  Operands operands_;
  c10::SmallVector<double, 64> combined_;
};

int64_t chunk_rows(const DivergenceProblem& p) { return std::max<int64_t>(1, kChunkElements / p.classes); }
int64_t chunks(const DivergenceProblem& p) { return (p.rows + chunk_rows(p) - 1) / chunk_rows(p); }

double run_chunk(const DivergenceProblem& p, int64_t chunk) {
  const int64_t begin = chunk * chunk_rows(p);
  return cpu_kernels().kl(p, begin, std::min(p.rows, begin + chunk_rows(p)), scratch(scratch_bytes(p)));
}

// Runs the problems in one parallel region and leaves the sum of each one's row losses in `totals`.
void run(c10::ArrayRef<const DivergenceProblem*> problems, double* totals) {
  int64_t count = 0, elements = 0;
  for (const DivergenceProblem* p : problems) count += chunks(*p), elements += p->rows * p->classes;
  c10::SmallVector<double, 64> partial(static_cast<size_t>(count));
  // A second thread costs more to wake than a few thousand elements take.
  const int64_t grain = std::max<int64_t>(1, count * kChunkElements / std::max<int64_t>(1, elements));
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t chunk = i;
      size_t which = 0;
      while (chunk >= chunks(*problems[which])) chunk -= chunks(*problems[which++]);
      partial[static_cast<size_t>(i)] = run_chunk(*problems[which], chunk);
    }
  });
  size_t next = 0;
  for (size_t which = 0; which < problems.size(); ++which) {
    totals[which] = 0;
    for (int64_t i = 0; i < chunks(*problems[which]); ++i) totals[which] += partial[next++];
  }
}

}  // namespace

void Cpu::divergences(const char*, const Tensor& loss, int64_t dim, const Request& request,
                      std::initializer_list<Divergence> divergences) {
  std::optional<Bound> bound[2];
  c10::SmallVector<const DivergenceProblem*, 2> problems;
  for (const Divergence& d : divergences) {
    Bound& next = bound[problems.size()].emplace(d, dim, request);
    if (request.reduction == kNone) next.row_loss(loss, !problems.empty());
    problems.push_back(&next.problem);
  }
  double totals[2] = {0, 0};
  if (request.reduction == kNone) {
    // One after the other: the second adds to the rows that the first wrote.
    for (const DivergenceProblem* p : problems) run({p}, totals);
  } else {
    run(problems, totals);
    double value = 0;
    for (size_t i = 0; i < problems.size(); ++i)
      value += request.reduction == kMean ? totals[i] / static_cast<double>(problems[i]->rows) : totals[i];
    write_scalar(loss, value);
  }
  for (size_t i = 0; i < problems.size(); ++i) bound[i]->hand_back();
}

}  // namespace gankernels
