// The scalar losses on the CPU.
#include "../operators/scalar.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

// One batch: its logits, and its outputs, as dense runs of memory in one order.
struct Batch {
  Tensor logits, grad, requested_grad;
  ScalarProblem problem;
  int64_t elements;

  Batch(const Tensor& x, const Tensor& gradient, const Tensor& loss, const ScalarTerm& term, int64_t reduction,
        bool fold_mean, double grad_scale)
      : logits(x), grad(gradient), requested_grad(gradient), elements(x.numel()) {
    const bool wants_grad = gradient.numel() != 0;
    // The order is that of the per-element losses, which two batches may share, or of the gradient.
    const Tensor& like = reduction == kNone ? loss : (wants_grad ? gradient : x);
    if (!like.is_non_overlapping_and_dense() || !x.strides().equals(like.strides()))
      logits = at::empty_like(like, x.options()).copy_(x);
    if (wants_grad && !gradient.strides().equals(logits.strides())) grad = at::empty_like(logits);
    problem.dtype = kernel_dtype(x.scalar_type());
    problem.term = term;
    problem.logits = logits.const_data_ptr();
    problem.grad = wants_grad ? grad.mutable_data_ptr() : nullptr;
    const bool divide = fold_mean && reduction == kMean;
    problem.weight = divide ? grad_scale / static_cast<double>(elements) : grad_scale;
  }

  void hand_back() const {
    if (!grad.is_same(requested_grad)) requested_grad.copy_(grad);
  }

  int64_t chunks() const { return (elements + kChunkElements - 1) / kChunkElements; }

  ScalarSums run() const {
    c10::SmallVector<ScalarSums, 16> partial(static_cast<size_t>(chunks()));
    at::parallel_for(0, chunks(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        partial[static_cast<size_t>(i)] =
            cpu_kernels().scalar(problem, i * kChunkElements, std::min(elements, (i + 1) * kChunkElements));
    });
    ScalarSums sums;
    for (const ScalarSums& s : partial) sums.loss += s.loss, sums.slope += s.slope;
    return sums;
  }

  double mean() const {
    Batch plain = *this;
    plain.problem.term = {};
    plain.problem.grad = plain.problem.row_loss = nullptr;
    return plain.run().loss / static_cast<double>(elements);
  }

  ScalarSums sums_without_gradient() const {
    Batch plain = *this;
    plain.problem.grad = plain.problem.row_loss = nullptr;
    return plain.run();
  }
};

// Offsets are the other batch's mean, so each logit also moves the other batch's terms through its own mean:
//   d/dr_i of the fake terms = -(1/N_r) sum_j f'_j, and the same with the roles exchanged.
void make_relative(Batch& real, Batch& fake, int64_t reduction) {
  real.problem.term.offset = fake.mean();
  fake.problem.term.offset = real.mean();
  const double of_real = real.sums_without_gradient().slope, of_fake = fake.sums_without_gradient().slope;
  const auto elements = [](const Batch& b) { return static_cast<double>(b.elements); };
  // Under "mean" each batch's terms have their own 1/N, of which Batch::weight applies only its own.
  const bool mean = reduction == kMean;
  real.problem.gradient_constant = -of_fake / (mean ? elements(fake) : elements(real));
  fake.problem.gradient_constant = -of_real / (mean ? elements(real) : elements(fake));
}

TwoGradients scalar_loss_cpu(const OptionalTensor& real, const Tensor& fake, c10::string_view name,
                             double label_smoothing, int64_t reduction, bool real_grad, bool fake_grad, bool fold_mean,
                             double grad_scale) {
  const ScalarLoss function = find_scalar_loss(name, label_smoothing);
  auto outputs = prepare_scalar_loss(real, fake, function, reduction, real_grad, fake_grad);
  auto& [loss, g_real, g_fake] = outputs;
  Batch fakes(fake, g_fake, loss, function.fake, reduction, fold_mean, grad_scale);
  double value = 0;
  const auto add = [&](Batch& batch, bool first) {
    if (reduction == kNone) {
      batch.problem.row_loss = loss.mutable_data_ptr();
      batch.problem.add_to_row_loss = !first;
    }
    const double sum = batch.run().loss;
    batch.hand_back();
    value += reduction == kMean ? sum / static_cast<double>(batch.elements) : sum;
  };
  if (function.has_real) {
    Batch reals(*real, g_real, loss, function.real, reduction, fold_mean, grad_scale);
    if (function.relativistic) make_relative(reals, fakes, reduction);
    add(reals, true);
    add(fakes, false);
  } else {
    add(fakes, true);
  }
  if (reduction != kNone) write_scalar(loss, value);
  return outputs;
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CPU, m) { m.impl("scalar_loss_value_and_grad", TORCH_FN(scalar_loss_cpu)); }

}  // namespace gankernels
