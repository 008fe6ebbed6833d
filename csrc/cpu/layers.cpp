// The layer operators on the CPU.
#include "../operators/layers.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

Tensor scale_gradient_cpu(const Tensor& gradient, const Tensor& grad_output, int64_t dim, int64_t rows) {
  const double average = rows > 0 ? 1.0 / static_cast<double>(rows) : 1.0;
  if (grad_output.dim() > 0) {
    const Tensor per_row = grad_output * average;
    const bool per_element = grad_output.dim() == gradient.dim();
    return at::empty_like(gradient).copy_(gradient * (per_element ? per_row : per_row.unsqueeze(dim)));
  }
  const double factor = read_scalar(grad_output) * average;
  const Tensor out = at::empty_like(gradient);
  const bool dense = gradient.is_non_overlapping_and_dense() && gradient.strides().equals(out.strides());
  const Tensor in = dense ? gradient : at::empty_like(gradient).copy_(gradient);
  const auto dtype = kernel_dtype(gradient.scalar_type());
  const auto* from = static_cast<const char*>(in.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  const int64_t size = static_cast<int64_t>(gradient.element_size());
  at::parallel_for(0, gradient.numel(), 4 * kChunkElements, [&](int64_t begin, int64_t end) {
    cpu_kernels().scale(dtype, from + begin * size, to + begin * size, end - begin, factor);
  });
  return out;
}

// Blocks of means and log-variances alternate in memory: K * inner elements each, once per outer row.
void run_resample(ResampleProblem problem, const Tensor& statistics, int64_t dim) {
  int64_t inner = 1, outer = 1;
  for (int64_t d = 0; d < statistics.dim(); ++d) (d < dim ? outer : inner) *= statistics.size(d);
  problem.block = inner / 2;
  problem.dtype = kernel_dtype(statistics.scalar_type());
  if (problem.block == 0) return;
  const int64_t grain = std::max<int64_t>(1, kChunkElements / problem.block);
  at::parallel_for(0, outer, grain, [&](int64_t begin, int64_t end) { cpu_kernels().resample(problem, begin, end); });
}

Tensor resample_forward_cpu(const Tensor& statistics, const Tensor& noise, int64_t dim) {
  const Tensor z = empty_resampled(statistics, noise);
  const Tensor in = statistics.contiguous(), e = noise.contiguous();
  ResampleProblem problem;
  problem.statistics = in.const_data_ptr();
  problem.noise = e.const_data_ptr();
  problem.out = z.mutable_data_ptr();
  run_resample(problem, in, dim);
  return z;
}

// `saved` is z, or the noise for 16-bit statistics.
Tensor resample_backward_cpu(const Tensor& grad, const Tensor& statistics, const Tensor& saved, int64_t dim) {
  const Tensor out = empty_statistics_gradient(statistics);
  const Tensor g = grad.contiguous(), in = statistics.contiguous(), kept = saved.contiguous();
  ResampleProblem problem;
  problem.statistics = in.const_data_ptr();
  problem.noise = kept.const_data_ptr();
  problem.out = const_cast<void*>(kept.const_data_ptr());
  problem.grad_out = g.const_data_ptr();
  problem.grad_statistics = out.mutable_data_ptr();
  run_resample(problem, in, dim);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CPU, m) {
  m.impl("scale_gradient", TORCH_FN(scale_gradient_cpu));
  m.impl("resample_forward", TORCH_FN(resample_forward_cpu));
  m.impl("resample_backward", TORCH_FN(resample_backward_cpu));
}

}  // namespace gankernels
