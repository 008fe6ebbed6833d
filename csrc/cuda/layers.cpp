// The layer operators on CUDA, and the first-order backward of all losses.
#include "../operators/layers.h"

#include <torch/library.h>

#include "device.h"

namespace gankernels {

namespace {

// ---- gradients times grad_output --------------------------------------------------------------------------------

struct Scaled {
  Tensor in, out, requested;
  cuda::ScaleBatch problem;

  // Dense in any order where grad_output is one number, in that of its rows or elements where it is not.
  Scaled(const Tensor& gradient, bool any_order, int64_t rows) : requested(at::empty_like(gradient)) {
    const bool as_it_is = any_order ? gradient.is_non_overlapping_and_dense() : gradient.is_contiguous();
    in = as_it_is ? gradient : gradient.contiguous();
    out = as_it_is ? requested : at::empty_like(in);
    const double average = rows > 0 ? 1.0 / static_cast<double>(rows) : 1.0;
    problem = {in.const_data_ptr(), out.mutable_data_ptr(), in.numel(), average};
  }

  Tensor hand_back() const { return out.is_same(requested) ? out : requested.copy_(out); }
  bool is_wide() const { return cuda::is_aligned(problem.in) && cuda::is_aligned(problem.out); }
};

// Classes and what lies behind each: 16 bytes must not cross from a row into another that is not its neighbour.
void spread_over_rows(cuda::ScaleLaunch& launch, const Tensor& gradient, int64_t dim) {
  launch.classes = gradient.size(dim);
  launch.inner = 1;
  for (int64_t d = dim + 1; d < gradient.dim(); ++d) launch.inner *= gradient.size(d);
  const int64_t width = 16 / static_cast<int64_t>(gradient.element_size());
  launch.wide = (launch.inner == 1 ? launch.classes : launch.inner) % width == 0;
}

void scale_all(const Tensor& gradient, const Tensor& grad_output, int64_t dim,
               std::initializer_list<const Scaled*> batches) {
  const cuda::OnDeviceOf device(gradient);
  // Autograd gives the loss's dtype; others come from direct calls only.
  const Tensor factors = grad_output.to(accumulate_type(gradient.scalar_type())).contiguous();
  cuda::ScaleLaunch launch;
  launch.grad_output = factors.const_data_ptr();
  launch.dtype = cuda::kernel_dtype(gradient.scalar_type());
  launch.wide = true;
  if (factors.dim() > 0) {
    launch.spread = factors.dim() == gradient.dim() ? cuda::Spread::kElements : cuda::Spread::kRows;
    if (launch.spread == cuda::Spread::kRows) spread_over_rows(launch, gradient, dim);
  }
  for (const Scaled* batch : batches) {
    launch.wide = launch.wide && batch->is_wide();
    (batch == *batches.begin() ? launch.first : launch.second) = batch->problem;
  }
  cuda::check_launch(cuda::launch_scale(launch, device.stream()), "scale_gradients");
}

Tensor scale_gradient_cuda(const Tensor& gradient, const Tensor& grad_output, int64_t dim, int64_t rows) {
  const Scaled scaled(gradient, grad_output.dim() == 0, rows);
  scale_all(gradient, grad_output, dim, {&scaled});
  return scaled.hand_back();
}

std::tuple<Tensor, Tensor> scale_gradients_cuda(const Tensor& gradient, const Tensor& other, const Tensor& grad_output,
                                                int64_t dim, int64_t rows, int64_t other_rows) {
  // Gradients to a target may have a dtype of their own.
  if (gradient.scalar_type() != other.scalar_type())
    return {scale_gradient_cuda(gradient, grad_output, dim, rows),
            scale_gradient_cuda(other, grad_output, dim, other_rows)};
  const bool any_order = grad_output.dim() == 0;
  const Scaled first(gradient, any_order, rows), second(other, any_order, other_rows);
  scale_all(gradient, grad_output, dim, {&first, &second});
  return {first.hand_back(), second.hand_back()};
}

// ---- feature resampling -----------------------------------------------------------------------------------------

// Blocks of means and log-variances alternate in memory: K * inner elements each, once per outer row.
cuda::ResampleLaunch resample_problem(const Tensor& statistics, int64_t elements, int64_t dim) {
  cuda::ResampleLaunch launch;
  int64_t inner = 1;
  for (int64_t d = dim; d < statistics.dim(); ++d) inner *= statistics.size(d);
  launch.statistics = statistics.const_data_ptr();
  launch.elements = elements;
  launch.block = inner / 2;
  launch.dtype = cuda::kernel_dtype(statistics.scalar_type());
  launch.wide = launch.block % (16 / static_cast<int64_t>(statistics.element_size())) == 0;
  return launch;
}

Tensor resample_forward_cuda(const Tensor& statistics, const Tensor& noise, int64_t dim) {
  const cuda::OnDeviceOf device(statistics);
  const Tensor z = empty_resampled(statistics, noise);
  const Tensor in = statistics.contiguous(), e = noise.to(accumulate_type(statistics.scalar_type())).contiguous();
  cuda::ResampleLaunch launch = resample_problem(in, z.numel(), dim);
  launch.noise = e.const_data_ptr();
  launch.out = z.mutable_data_ptr();
  for (const void* data : {launch.statistics, launch.noise, static_cast<const void*>(launch.out)})
    launch.wide = launch.wide && cuda::is_aligned(data);
  cuda::check_launch(cuda::launch_resample(launch, device.stream()), "resample_logits");
  return z;
}

// `saved` is z, or the noise for 16-bit statistics.
Tensor resample_backward_cuda(const Tensor& grad, const Tensor& statistics, const Tensor& saved, int64_t dim) {
  const cuda::OnDeviceOf device(statistics);
  const Tensor out = empty_statistics_gradient(statistics);
  const Tensor g = grad.contiguous(), in = statistics.contiguous(), kept = saved.contiguous();
  cuda::ResampleLaunch launch = resample_problem(in, g.numel(), dim);
  launch.noise = kept.const_data_ptr();
  launch.out = const_cast<void*>(kept.const_data_ptr());
  launch.grad_out = g.const_data_ptr();
  launch.grad_statistics = out.mutable_data_ptr();
  for (const void* data : {launch.statistics, launch.noise, launch.grad_out, static_cast<const void*>(out.data_ptr())})
    launch.wide = launch.wide && cuda::is_aligned(data);
  cuda::check_launch(cuda::launch_resample(launch, device.stream()), "the backward pass of resample_logits");
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, GK_CUDA_KEY, m) {
  m.impl("scale_gradient", TORCH_FN(scale_gradient_cuda));
  m.impl("scale_gradients", TORCH_FN(scale_gradients_cuda));
  m.impl("resample_forward", TORCH_FN(resample_forward_cuda));
  m.impl("resample_backward", TORCH_FN(resample_backward_cuda));
}

}  // namespace gankernels
