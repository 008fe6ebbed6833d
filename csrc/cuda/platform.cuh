// CUDA, or the host shim that the tests compile the same code with. No torch headers: they cost minutes.
#pragma once

#if defined(GANKERNELS_HOST_SHIM)
#include "cuda_host_shim.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cmath>
#include <cstdint>
#include <type_traits>

#define GK_DEVICE __device__ __forceinline__

namespace gankernels::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace gankernels::cuda
