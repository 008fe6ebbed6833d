// The launcher of the divergences: one dtype after another.
#include "launches.h"

namespace gankernels::cuda {

int launch_divergence_half(const DivergenceLaunch& problem, void* stream);
int launch_divergence_bfloat16(const DivergenceLaunch& problem, void* stream);
int launch_divergence_float(const DivergenceLaunch& problem, void* stream);
int launch_divergence_double(const DivergenceLaunch& problem, void* stream);

int launch_divergence(const DivergenceLaunch& problem, void* stream) {
  switch (problem.dtype) {
    case Dtype::kHalf: return launch_divergence_half(problem, stream);
    case Dtype::kBFloat16: return launch_divergence_bfloat16(problem, stream);
    case Dtype::kFloat: return launch_divergence_float(problem, stream);
    default: return launch_divergence_double(problem, stream);
  }
}

}  // namespace gankernels::cuda
