// The operators on the CPU.
#pragma once

#include "../operators/divergence.h"
#include "../operators/gradient_scale.h"
#include "../operators/relativistic.h"
#include "../operators/resample.h"
#include "../operators/scalar.h"

namespace gankernels {

struct Cpu {
  static void divergences(const char* name, const Tensor& loss, int64_t dim, const Request& request,
                          std::initializer_list<Divergence> divergences);
  static void relativistic_loss(const Tensor& loss, int64_t reduction, const ScalarBatch& real,
                                const ScalarBatch& fake);
  static void scalar_losses(at::ArrayRef<Tensor> losses, int64_t reduction, const std::vector<TermOperands>& terms);
  static void scale_terms(at::TensorList gradients, at::TensorList grad_outputs, at::IntArrayRef rows,
                          at::TensorList scaled);
  static void scale_gradients(const Tensor& grad_output, int64_t dim, std::initializer_list<ScaledGradient> gradients);
  static void resample(ResampleProblem problem, const Tensor& statistics, const ResampleBlocks& blocks);
};

// gradient * factor, divided by its rows where these are positive.
void scale_by(const ScaledGradient& gradient, double factor);

}  // namespace gankernels
