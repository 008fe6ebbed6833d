#include "backend.h"

#include "../operators/operators.h"

namespace gankernels {

TORCH_LIBRARY_IMPL(gankernels, CPU, m) { implement<Cpu>(m); }

}  // namespace gankernels
