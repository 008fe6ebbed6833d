// Starting kernels: grids from sizes, errors as numbers. On the host shim a launch is a loop.
#pragma once

#include <algorithm>

#include "total.cuh"

#if defined(GANKERNELS_HOST_SHIM)
#define GK_LAUNCH(kernel, grid, block, stream, problem) \
  host_shim::launch(grid, block, [=] { kernel(problem); }), (void)(stream)
#else
#define GK_LAUNCH(kernel, grid, block, stream, problem) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(problem)
#endif

namespace gankernels::cuda {

inline int multiprocessors() {
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;  // the launch will say why
  if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) return 1;
  return std::max(count, 1);
}

// As many blocks as there is work for, but no more than the device can hold at once. Never none: the loss of an
// empty batch is written too.
inline unsigned blocks_for(int64_t units_of_work, int threads, int64_t most) {
  const int64_t resident = static_cast<int64_t>(multiprocessors()) * std::max(1, 2048 / threads);
  return static_cast<unsigned>(std::max<int64_t>(1, std::min({units_of_work, resident, most})));
}

inline int next_power_of_two(int x) {
  int y = 1;
  while (y < x) y *= 2;
  return y;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace gankernels::cuda
