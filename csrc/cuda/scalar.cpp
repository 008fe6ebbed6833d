// The scalar losses on CUDA: one launch, or three where a relativistic loss is of many logits.
#include "../operators/scalar.h"

#include <torch/library.h>

#include "device.h"

namespace gankernels {

namespace {

// One batch: its logits, and its outputs, as dense runs of memory in one order.
struct Batch {
  Tensor logits, grad, requested_grad;
  cuda::ScalarBatch problem;

  Batch(const Tensor& x, const Tensor& gradient, const Tensor& loss, const ScalarTerm& term, int64_t reduction,
        bool fold_mean, double grad_scale)
      : logits(x), grad(gradient), requested_grad(gradient) {
    const bool wants_grad = gradient.numel() != 0;
    // The order is that of the per-element losses, which two batches may share, or of the gradient.
    const Tensor& like = reduction == kNone ? loss : (wants_grad ? gradient : x);
    if (!like.is_non_overlapping_and_dense() || !x.strides().equals(like.strides()))
      logits = at::empty_like(like, x.options()).copy_(x);
    if (wants_grad && !gradient.strides().equals(logits.strides())) grad = at::empty_like(logits);
    problem.logits = logits.const_data_ptr();
    problem.grad = wants_grad ? grad.mutable_data_ptr() : nullptr;
    problem.elements = x.numel();
    problem.per_element = 1 / static_cast<double>(problem.elements);
    problem.term = term;
    const double mean = reduction == kMean ? problem.per_element : 1;
    problem.weight = fold_mean ? grad_scale * mean : grad_scale;
    problem.loss_scale = mean;
  }

  void hand_back() const {
    if (!grad.is_same(requested_grad)) requested_grad.copy_(grad);
  }

  bool is_wide() const { return cuda::is_aligned(problem.logits) && cuda::is_aligned(problem.grad); }
};

TwoGradients scalar_loss_cuda(const OptionalTensor& real, const Tensor& fake, c10::string_view name,
                              double label_smoothing, int64_t reduction, bool real_grad, bool fake_grad, bool fold_mean,
                              double grad_scale) {
  const ScalarLoss function = find_scalar_loss(name, label_smoothing);
  auto outputs = prepare_scalar_loss(real, fake, function, reduction, real_grad, fake_grad);
  auto& [loss, g_real, g_fake] = outputs;
  const cuda::OnDeviceOf device(fake);
  const Batch fakes(fake, g_fake, loss, function.fake, reduction, fold_mean, grad_scale);
  std::optional<Batch> reals;
  cuda::ScalarLaunch launch;
  launch.fake = fakes.problem;
  launch.dtype = cuda::kernel_dtype(fake.scalar_type());
  launch.wide = fakes.is_wide();
  launch.relativistic = function.relativistic;
  launch.mean = reduction == kMean;
  if (function.has_real) {
    reals.emplace(*real, g_real, loss, function.real, reduction, fold_mean, grad_scale);
    launch.real = reals->problem;
    launch.with_real = true;
    launch.wide = launch.wide && reals->is_wide();
  }
  const bool is_sum = reduction != kNone;
  std::optional<cuda::Workspace> workspace;
  if (is_sum || cuda::takes_several_launches(launch)) {
    workspace.emplace(loss, is_sum);
    launch.total = workspace->total;
    launch.sums = workspace->sums;
  }
  if (!is_sum) {
    launch.row_loss = loss.mutable_data_ptr();
    launch.wide = launch.wide && cuda::is_aligned(launch.row_loss);
  }
  cuda::check_launch(cuda::launch_scalar(launch, device.stream()), "scalar_loss");
  fakes.hand_back();
  if (reals.has_value()) reals->hand_back();
  return outputs;
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, GK_CUDA_KEY, m) { m.impl("scalar_loss_value_and_grad", TORCH_FN(scalar_loss_cuda)); }

}  // namespace gankernels
