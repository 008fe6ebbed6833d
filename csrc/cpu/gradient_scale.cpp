// Gradients times grad_output on the CPU.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

void scale_rows(const ScaledGradient& g, const Tensor& grad_output, int64_t dim) {
  const Tensor in = g.in.contiguous(), factors = grad_output.to(accumulate_type(in.scalar_type())).contiguous();
  const Tensor out = g.out.is_contiguous() ? g.out : at::empty_like(in);
  RowScaleProblem problem;
  problem.dtype = kernel_dtype(in.scalar_type());
  problem.classes = in.size(dim);
  for (int64_t d = dim + 1; d < in.dim(); ++d) problem.inner *= in.size(d);
  problem.in = in.const_data_ptr(), problem.out = out.mutable_data_ptr();
  problem.factors = factors.const_data_ptr();
  problem.average = g.average();
  const int64_t runs = in.numel() == 0 ? 0 : in.numel() / problem.run();
  at::parallel_for(0, runs, std::max<int64_t>(1, 4 * kChunkElements / std::max<int64_t>(1, problem.run())),
                   [&](int64_t begin, int64_t end) { cpu_kernels().scale_rows(problem, begin, end); });
  if (!out.is_same(g.out)) g.out.copy_(out);
}

void scale(const ScaledGradient& g, const Tensor& grad_output, int64_t dim) {
  if (grad_output.dim() == g.in.dim() && grad_output.dim() > 0) {
    g.out.copy_(g.in * (grad_output * g.average()));
    return;
  }
  if (grad_output.dim() > 0) return scale_rows(g, grad_output, dim);
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
