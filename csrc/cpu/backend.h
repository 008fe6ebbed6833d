// The operators on the CPU.
#pragma once

#include "../operators/divergence.h"
#include "../operators/gradient_scale.h"
#include "../operators/resample.h"
#include "../operators/scalar.h"

namespace gankernels {

struct Cpu {
  static void divergences(const char* name, const Tensor& loss, int64_t dim, const Request& request,
                          std::initializer_list<Divergence> divergences);
  static void scalar_loss(const Tensor& loss, int64_t reduction, bool relativistic,
                          const std::optional<ScalarBatch>& real, const ScalarBatch& fake);
  static void scale_gradients(const Tensor& grad_output, int64_t dim, std::initializer_list<ScaledGradient> gradients);
  static void resample(ResampleProblem problem, const Tensor& statistics, const ResampleBlocks& blocks);
};

}  // namespace gankernels
