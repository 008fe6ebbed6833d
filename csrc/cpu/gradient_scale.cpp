// Gradients times grad_output on the CPU.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

void scale(const ScaledGradient& g, const Tensor& grad_output, int64_t dim) {
  if (grad_output.dim() > 0) {
    const Tensor per_row = grad_output * g.average();
    const bool per_element = grad_output.dim() == g.in.dim();
    g.out.copy_(g.in * (per_element ? per_row : per_row.unsqueeze(dim)));
    return;
  }
  const double factor = read_scalar(grad_output) * g.average();
  const bool dense = g.in.is_non_overlapping_and_dense() && g.in.strides().equals(g.out.strides());
  const Tensor in = dense ? g.in : at::empty_like(g.in).copy_(g.in);
  const auto dtype = kernel_dtype(g.in.scalar_type());
  const auto* from = static_cast<const char*>(in.const_data_ptr());
  auto* to = static_cast<char*>(g.out.mutable_data_ptr());
  const int64_t size = static_cast<int64_t>(g.in.element_size());
  at::parallel_for(0, g.in.numel(), 4 * kChunkElements, [&](int64_t begin, int64_t end) {
    cpu_kernels().scale(dtype, from + begin * size, to + begin * size, end - begin, factor);
  });
}

}  // namespace

void Cpu::scale_gradients(const Tensor& grad_output, int64_t dim, std::initializer_list<ScaledGradient> gradients) {
  for (const ScaledGradient& g : gradients) scale(g, grad_output, dim);
}

}  // namespace gankernels
