// From the threads' sums to the loss in the same launch: no floating-point atomic, so the same bits every time.
#pragma once

#include "group.cuh"

namespace gankernels::cuda {

// Zero when the module is loaded on a device, and zero again after each launch that used one.
// Launches take slots in turn; one captured in a CUDA graph keeps its own.
static __device__ unsigned tickets[kTicketSlots];

// Sums over the block, on every thread. All threads must call it; `memory` is for kCount * kWarp values.
template <int kCount>
GK_DEVICE void block_sum(double (&x)[kCount], double* memory) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  butterfly<Plus>(x, kWarp);
  __syncthreads();  // the memory may still be read for an earlier sum
#pragma unroll
  for (int n = 0; n < kCount; ++n)
    if (thread % kWarp == 0) memory[n * kWarp + thread / kWarp] = x[n];
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    x[n] = 0;
    for (int w = 0; w < warps; ++w) x[n] += memory[n * kWarp + w];
  }
}

// Each block leaves its sums in `partials`; true in the last block to do so.
template <int kCount>
GK_DEVICE bool leave_partials(const double (&x)[kCount], const Total& total) {
  __shared__ bool is_last;
  const unsigned blocks = gridDim.x * gridDim.y, block = blockIdx.y * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) {
#pragma unroll
    for (int n = 0; n < kCount; ++n) total.partials[n * blocks + block] = x[n];
    __threadfence();
    // Counts up to blocks - 1, and then back to 0 for the next launch.
    is_last = atomicInc(&tickets[total.slot], blocks - 1) == blocks - 1;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// Sums over the grid, on every thread of the last block to finish; false in all others.
// That one adds the blocks' sums up, in the order of the blocks.
template <int kCount>
GK_DEVICE bool grid_sum(double (&x)[kCount], const Total& total) {
  __shared__ double memory[kCount * kWarp];
  const unsigned blocks = gridDim.x * gridDim.y;
  block_sum(x, memory);
  if (blocks == 1) return true;
  if (!leave_partials(x, total)) return false;
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    x[n] = 0;
    for (unsigned i = threadIdx.x; i < blocks; i += blockDim.x) x[n] += total.partials[n * blocks + i];
  }
  block_sum(x, memory);
  return true;
}

template <class A>
GK_DEVICE void write_total(double mine, const Total& total) {
  double sum[1] = {mine};
  if (total.loss == nullptr || !grid_sum(sum, total)) return;
  if (threadIdx.x == 0) *static_cast<A*>(total.loss) = static_cast<A>(sum[0]);
}

}  // namespace gankernels::cuda
