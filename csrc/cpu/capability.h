#pragma once

#include "kernels.h"

namespace gankernels {

// The kernels for this machine: the widest instruction set it has, or the one that GANKERNELS_CPU_CAPABILITY names.
const Kernels& cpu_kernels();

}  // namespace gankernels
