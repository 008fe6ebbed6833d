#include "backend.h"

#include "../operators/operators.h"
#include "device.h"

namespace gankernels {

TORCH_LIBRARY_IMPL(gankernels, GK_CUDA_KEY, m) { implement<Cuda>(m); }

}  // namespace gankernels
