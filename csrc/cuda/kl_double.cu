// The divergences for logits of this dtype: one translation unit each, so that they compile side by side.
#include "kl_kernel.cuh"

namespace gankernels::cuda {

int launch_kl_double(const KlLaunch& problem, void* stream) { return launch_kl_as<double>(problem, stream); }

}  // namespace gankernels::cuda
