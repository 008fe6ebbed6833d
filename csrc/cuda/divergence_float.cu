// The divergences for logits of this dtype: one translation unit each, so that they compile side by side.
#include "divergence_kernel.cuh"

namespace gankernels::cuda {

int launch_divergence_float(const DivergenceLaunch& problem, void* stream) {
  return launch_divergence_as<float>(problem, stream);
}

}  // namespace gankernels::cuda
