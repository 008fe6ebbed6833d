// The launcher of the divergences: one dtype after another.
#include "problems.h"

namespace gankernels::cuda {

int launch_kl_half(const KlLaunch& problem, void* stream);
int launch_kl_bfloat16(const KlLaunch& problem, void* stream);
int launch_kl_float(const KlLaunch& problem, void* stream);
int launch_kl_double(const KlLaunch& problem, void* stream);

int launch_kl(const KlLaunch& problem, void* stream) {
  switch (problem.dtype) {
    case Dtype::kHalf: return launch_kl_half(problem, stream);
    case Dtype::kBFloat16: return launch_kl_bfloat16(problem, stream);
    case Dtype::kFloat: return launch_kl_float(problem, stream);
    default: return launch_kl_double(problem, stream);
  }
}

}  // namespace gankernels::cuda
