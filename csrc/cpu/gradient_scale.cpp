// Gradients times grad_output on the CPU.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

void scale_by(const ScaledGradient& g, double factor) {
  factor *= g.average();
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

namespace {

// A factor for each element, where all of them lie in one order.
bool scale_each(const ScaledGradient& g, const Tensor& factors) {
  const bool in_order = g.in.is_non_overlapping_and_dense() && g.in.strides().equals(g.out.strides()) &&
                        g.in.strides().equals(factors.strides()) &&
                        factors.scalar_type() == accumulate_type(g.in.scalar_type());
  if (!in_order) return false;
  const auto dtype = kernel_dtype(g.in.scalar_type());
  const auto* from = static_cast<const char*>(g.in.const_data_ptr());
  const auto* by = static_cast<const char*>(factors.const_data_ptr());
  auto* to = static_cast<char*>(g.out.mutable_data_ptr());
  const auto size = static_cast<int64_t>(g.in.element_size()), wide = static_cast<int64_t>(factors.element_size());
  at::parallel_for(0, g.in.numel(), 4 * kChunkElements, [&](int64_t begin, int64_t end) {
    cpu_kernels().scale_each(dtype, from + begin * size, by + begin * wide, to + begin * size, end - begin,
                             g.average());
  });
  return true;
}

void scale(const ScaledGradient& g, const Tensor& grad_output, int64_t dim) {
  if (grad_output.dim() > 0) {
    const bool per_element = grad_output.dim() == g.in.dim();
    if (per_element && scale_each(g, grad_output)) return;
    const Tensor per_row = grad_output * g.average();
    g.out.copy_(g.in * (per_element ? per_row : per_row.unsqueeze(dim)));
    return;
  }
  scale_by(g, read_scalar(grad_output));
}

}  // namespace

void Cpu::scale_gradients(const Tensor& grad_output, int64_t dim, std::initializer_list<ScaledGradient> gradients) {
  for (const ScaledGradient& g : gradients) scale(g, grad_output, dim);
}

}  // namespace gankernels
