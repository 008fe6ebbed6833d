// Gradients times grad_output on the CPU.
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
  parallel_for(g.in.numel(), 4 * kChunkElements, [&](int64_t begin, int64_t end) {
    cpu_kernels().scale(dtype, from + begin * size, to + begin * size, end - begin, factor);
  });
}

namespace {

// Contiguous, or, where every element has a factor, all in any one order.
struct RowScaling {
  Tensor in, out, factors;
  RowScaleProblem problem;

  RowScaling(const ScaledGradient& g, const Tensor& grad_output)
      : in(g.in), out(g.out), factors(grad_output.to(accumulate_type(g.in.scalar_type()))) {
    if (!in_one_order()) {
      in = g.in.contiguous(), factors = factors.contiguous();
      if (!g.out.is_contiguous()) out = at::empty_like(in);
    }
    problem.dtype = kernel_dtype(in.scalar_type());
    problem.in = in.const_data_ptr(), problem.out = out.mutable_data_ptr();
    problem.factors = factors.const_data_ptr();
    problem.average = g.average();
  }

  void hand_back(const ScaledGradient& g) const {
    if (!out.is_same(g.out)) g.out.copy_(out);
  }

 private:
  bool in_one_order() const {
    return in.is_non_overlapping_and_dense() && in.strides().equals(out.strides()) &&
           in.strides().equals(factors.strides());
  }
};

void scale_rows(const ScaledGradient& g, const Tensor& grad_output, int64_t dim) {
  RowScaling scaling(g, grad_output);
  RowScaleProblem& problem = scaling.problem;
  problem.classes = g.in.size(dim);
  for (int64_t d = dim + 1; d < g.in.dim(); ++d) problem.inner *= g.in.size(d);
  const int64_t runs = g.in.numel() == 0 ? 0 : g.in.numel() / problem.run();
  const int64_t grain = std::max<int64_t>(1, 4 * kChunkElements / std::max<int64_t>(1, problem.run()));
  parallel_for(runs, grain, [&](int64_t begin, int64_t end) { cpu_kernels().scale_rows(problem, begin, end); });
  scaling.hand_back(g);
}

// One row of its own for each element.
void scale_elements(const ScaledGradient& g, const Tensor& grad_output) {
  const RowScaling scaling(g, grad_output);
  const auto at_element = [](const auto* data, int64_t i, int64_t size) {
    return static_cast<const char*>(data) + i * size;
  };
  const auto size = static_cast<int64_t>(scaling.in.element_size());
  const auto factor_size = static_cast<int64_t>(scaling.factors.element_size());
  parallel_for(g.in.numel(), 4 * kChunkElements, [&](int64_t begin, int64_t end) {
    RowScaleProblem part = scaling.problem;
    part.inner = end - begin;
    part.in = at_element(part.in, begin, size);
    part.out = const_cast<char*>(at_element(part.out, begin, size));
    part.factors = at_element(part.factors, begin, factor_size);
    cpu_kernels().scale_rows(part, 0, 1);
  });
  scaling.hand_back(g);
}

void scale(const ScaledGradient& g, const Tensor& grad_output, int64_t dim) {
  if (grad_output.dim() == 0) return scale_by(g, read_scalar(grad_output));
  return grad_output.dim() == g.in.dim() ? scale_elements(g, grad_output) : scale_rows(g, grad_output, dim);
}

}  // namespace

void Cpu::scale_gradients(const Tensor& grad_output, int64_t dim, std::initializer_list<ScaledGradient> gradients) {
  for (const ScaledGradient& g : gradients) scale(g, grad_output, dim);
}

}  // namespace gankernels
