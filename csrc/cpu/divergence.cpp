// The loss operators on the CPU: arguments to DivergenceProblems, DivergenceProblems to threads.
#include "../operators/divergence.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "capability.h"
#include "geometry.h"
#include "parallel.h"

namespace gankernels {

namespace {

void* scratch(int64_t bytes) {
  thread_local std::vector<double> memory;
  const size_t needed = static_cast<size_t>(bytes) / sizeof(double) + 1;
  if (memory.size() < needed) memory.resize(needed);
  return memory.data();
}

// One DivergenceProblem with the tensors that it points into.
class Divergence {
 public:
  Divergence(const Tensor& logits, int64_t dim, int64_t reduction, bool fold_mean, double grad_scale)
      : dim_(dim), accumulate_(accumulate_type(logits.scalar_type())) {
    problem.dtype = kernel_dtype(logits.scalar_type());
    problem.classes = logits.size(dim);
    problem.rows = logits.numel() / problem.classes;
    const bool divide = fold_mean && reduction == kMean;
    problem.weight = divide ? grad_scale / static_cast<double>(problem.rows) : grad_scale;
    input(logits, problem.q_logits);
  }

  // KL(P || .) - KL(M || .) for anchors, either of which may be undefined.
  void anchors(const Tensor& positive, const Tensor& negative, const Tensor& logits) {
    const auto shared = [&](const Tensor& t) { return !t.defined() || is_broadcast(t, logits, dim_); };
    if (shared(positive) && shared(negative)) {
      combine(positive, negative);
      problem.mass = std::abs(problem.mass) <= epsilon() ? 0 : problem.mass;
      problem.linear = problem.mass == 0;
      return;
    }
    problem.positive = Positive::kTarget;
    rows_of(positive, logits, problem.p_target);
    rows_of(negative, logits, problem.m_target);
  }

  // KL(P || .) for one row of probabilities per row of logits, read in its own dtype where that is the logits'.
  void target(const Tensor& positive, const Tensor& logits, const Tensor& gradient) {
    problem.positive = Positive::kTarget;
    problem.target_like_logits = positive.scalar_type() == logits.scalar_type();
    input(problem.target_like_logits ? positive : positive.to(accumulate_), problem.p_target);
    TORCH_CHECK_TYPE(gradient.numel() == 0 || positive.scalar_type() == logits.scalar_type() ||
                         positive.scalar_type() == accumulate_,
                     "target must have the dtype of logits or of the loss where its gradient is asked for, got ",
                     dtype_name(positive.scalar_type()));
    output(gradient, problem.target_grad);
  }

  // KL(softmax(logits) || .) - KL(M || .), M an anchor or undefined.
  void softmax(const Tensor& p_logits, const Tensor& negative, const Tensor& logits) {
    problem.positive = Positive::kSoftmax;
    input(p_logits, problem.p_logits);
    problem.mass = 1;
    if (!negative.defined()) return;
    if (!is_broadcast(negative, logits, dim_)) return rows_of(negative, logits, problem.m_target);
    combine(negative, Tensor());
    problem.entropy = -problem.entropy;
    problem.mass = 1 - problem.mass;
    problem.linear = std::abs(problem.mass) <= epsilon();
  }

  void q_gradient(const Tensor& t) { output(t, problem.q_grad); }
  void p_gradient(const Tensor& t) { output(t, problem.p_grad); }

  void row_loss(const Tensor& loss, bool add) {
    problem.row_loss = loss.data_ptr();
    problem.add_to_row_loss = add;
  }

  // After the last operand: walks the tensors as they lie, or contiguous copies of them.
  void settle() {
    if (problem.rows == 0 || describe(problem, dim_, operands())) return;
    for (Bound& bound : bounds_) {
      bound.lent = bound.tensor;
      bound.tensor =
          bound.is_output ? at::empty_like(bound.tensor, at::MemoryFormat::Contiguous) : bound.tensor.contiguous();
    }
    TORCH_INTERNAL_ASSERT(describe(problem, dim_, operands()));
  }

  // After the kernel: outputs computed in copies go where they belong.
  void hand_back() {
    for (const Bound& bound : bounds_)
      if (bound.is_output && bound.lent.defined()) bound.lent.copy_(bound.tensor);
  }

  DivergenceProblem problem;

 private:
  struct Bound {
    Tensor tensor, lent;
    Rows* rows;
    bool is_output;
  };

  void input(const Tensor& t, Rows& rows) { bounds_.push_back({t, {}, &rows, false}); }
  void output(const Tensor& t, Rows& rows) {
    if (t.numel() != 0) bounds_.push_back({t, {}, &rows, true});
  }

  void rows_of(const Tensor& anchor, const Tensor& logits, Rows& rows) {
    if (!anchor.defined()) return;
    Tensor full = anchor.to(accumulate_);
    if (is_broadcast(anchor, logits, dim_)) {
      std::vector<int64_t> ones(logits.dim(), 1);
      ones[dim_] = problem.classes;
      full = full.reshape(ones).expand(logits.sizes()).contiguous();
    }
    input(full, rows);
  }

  double epsilon() const {
    return accumulate_ == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  }

  // anchor = P - M, entropy = sum P log P - sum M log M, mass = sum P - sum M.
  void combine(const Tensor& positive, const Tensor& negative) {
    if (accumulate_ == at::kDouble) return combine_as<double>(positive, negative);
    combine_as<float>(positive, negative);
  }

  template <class A>
  void combine_as(const Tensor& positive, const Tensor& negative) {
    combined_.resize(static_cast<size_t>(problem.classes));  // doubles: room and alignment for either type
    A* out = reinterpret_cast<A*>(combined_.data());
    std::fill(out, out + problem.classes, A(0));
    const auto add = [&](const Tensor& anchor, double sign) {
      if (!anchor.defined()) return;
      const Tensor values = anchor.to(accumulate_).contiguous();
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

  std::vector<Operand> operands() const {
    std::vector<Operand> list;
    for (const Bound& bound : bounds_) list.push_back({&bound.tensor, bound.rows, bound.is_output});
    return list;
  }

  int64_t dim_;
  at::ScalarType accumulate_;
  c10::SmallVector<Bound, 6> bounds_;
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
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
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

// Runs one or two divergences and writes their reduced sum.
void evaluate(const Tensor& loss, int64_t reduction, std::initializer_list<Divergence*> divergences) {
  c10::SmallVector<const DivergenceProblem*, 2> problems;
  for (Divergence* d : divergences) {
    if (reduction == kNone) d->row_loss(loss, !problems.empty());
    d->settle();
    problems.push_back(&d->problem);
  }
  double totals[2] = {0, 0};
  if (reduction == kNone) {
    // One after the other: the second adds to the rows that the first wrote.
    for (const DivergenceProblem* p : problems) run({p}, totals);
  } else {
    run(problems, totals);
    double value = 0;
    for (size_t i = 0; i < problems.size(); ++i)
      value += reduction == kMean ? totals[i] / static_cast<double>(problems[i]->rows) : totals[i];
    write_scalar(loss, value);
  }
  for (Divergence* d : divergences) d->hand_back();
}

TwoGradients softmax_kl_cpu(const Tensor& logits, const Tensor& target, int64_t dim, int64_t reduction,
                            bool logits_grad, bool target_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] = prepare_softmax_kl(logits, target, dim, reduction, logits_grad, target_grad);
  auto& [loss, g_logits, g_target] = outputs;
  Divergence divergence(logits, d, reduction, fold_mean, grad_scale);
  if (is_broadcast(target, logits, d) && !target_grad) divergence.anchors(target, Tensor(), logits);
  else divergence.target(target, logits, g_target);
  divergence.q_gradient(g_logits);
  evaluate(loss, reduction, {&divergence});
  return outputs;
}

TwoGradients softmax_kl_logits_cpu(const Tensor& p_logits, const Tensor& q_logits, int64_t dim, int64_t reduction,
                                   bool p_grad, bool q_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] = prepare_softmax_kl_logits(p_logits, q_logits, dim, reduction, p_grad, q_grad);
  auto& [loss, g_p, g_q] = outputs;
  Divergence divergence(q_logits, d, reduction, fold_mean, grad_scale);
  divergence.softmax(p_logits, Tensor(), q_logits);
  divergence.p_gradient(g_p);
  divergence.q_gradient(g_q);
  evaluate(loss, reduction, {&divergence});
  return outputs;
}

TwoGradients realness_d_loss_cpu(const Tensor& real, const Tensor& fake, const Tensor& real_anchor,
                                 const Tensor& fake_anchor, int64_t dim, int64_t reduction, bool real_grad,
                                 bool fake_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] =
      prepare_realness_d_loss(real, fake, real_anchor, fake_anchor, dim, reduction, real_grad, fake_grad);
  auto& [loss, g_real, g_fake] = outputs;
  Divergence real_term(real, d, reduction, fold_mean, grad_scale);
  real_term.anchors(real_anchor, Tensor(), real);
  real_term.q_gradient(g_real);
  Divergence fake_term(fake, d, reduction, fold_mean, grad_scale);
  fake_term.anchors(fake_anchor, Tensor(), fake);
  fake_term.q_gradient(g_fake);
  evaluate(loss, reduction, {&real_term, &fake_term});
  return outputs;
}

TwoGradients realness_g_loss_cpu(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                                 const OptionalTensor& fake_anchor, int64_t objective, int64_t dim, int64_t reduction,
                                 bool real_grad, bool fake_grad, bool fold_mean, double grad_scale) {
  auto [d, outputs] =
      prepare_realness_g_loss(real, fake, real_anchor, fake_anchor, objective, dim, reduction, real_grad, fake_grad);
  auto& [loss, g_real, g_fake] = outputs;
  Divergence divergence(fake, d, reduction, fold_mean, grad_scale);
  if (objective == 2) {
    divergence.softmax(*real, *fake_anchor, fake);
    divergence.p_gradient(g_real);
  } else {
    divergence.anchors(objective == 3 ? *real_anchor : Tensor(), *fake_anchor, fake);
  }
  divergence.q_gradient(g_fake);
  evaluate(loss, reduction, {&divergence});
  return outputs;
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CPU, m) {
  m.impl("softmax_kl_value_and_grad", TORCH_FN(softmax_kl_cpu));
  m.impl("softmax_kl_logits_value_and_grad", TORCH_FN(softmax_kl_logits_cpu));
  m.impl("realness_d_loss_value_and_grad", TORCH_FN(realness_d_loss_cpu));
  m.impl("realness_g_loss_value_and_grad", TORCH_FN(realness_g_loss_cpu));
}

}  // namespace gankernels
