// The divergences for logits of this dtype: one translation unit each, so that they compile side by side.
#include "divergence_kernel.cuh"

namespace gankernels::cuda {

int launch_divergence_bfloat16(const DivergenceLaunch& problem, void* stream) {
  return launch_divergence_as<__nv_bfloat16>(problem, stream);
}

}  // namespace gankernels::cuda
