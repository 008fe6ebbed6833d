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

// Blocks of a kernel that the device holds at once: more would only repeat what each block does before its first row.
template <class Kernel>
int64_t resident_blocks(Kernel* kernel, int threads) {
  int blocks = 0;
  const auto* entry = reinterpret_cast<const void*>(kernel);
  // Where there is no device, the launch will say so.
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, entry, threads, 0) != cudaSuccess) blocks = 1;
  return static_cast<int64_t>(multiprocessors()) * std::max(blocks, 1);
}

// As many blocks as there is work for, within what the device holds. Never none: the loss of an empty batch is written
// too.
inline unsigned blocks_for(int64_t units_of_work, int64_t resident, int64_t most) {
  return static_cast<unsigned>(std::max<int64_t>(1, std::min({units_of_work, resident, most})));
}

inline int next_power_of_two(int x) {
  int y = 1;
  while (y < x) y *= 2;
  return y;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace gankernels::cuda
