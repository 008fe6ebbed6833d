// From the threads' sums to the loss in the same launch: no floating-point atomic, so the same bits every time.
#pragma once

#include "group.cuh"

namespace gankernels::cuda {

// Zero when the module is loaded on a device, and zero again after each launch that used one.
// Launches take slots in turn; one captured in a CUDA graph keeps its own.
static __device__ unsigned tickets[kTicketSlots];

// The sum over the block, on every thread. All threads must call it.
GK_DEVICE double block_sum(double x, double* memory) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  x = butterfly<Plus>(x, kWarp);
  __syncthreads();  // the memory may still be read for an earlier sum
  if (thread % kWarp == 0) memory[thread / kWarp] = x;
  __syncthreads();
  x = 0;
  for (int w = 0; w < warps; ++w) x += memory[w];
  return x;
}

// Each block leaves its sum in `partials`; the last one to finish adds them up, in the order of the blocks.
template <class A>
GK_DEVICE void write_total(double mine, const Total& total) {
  __shared__ double memory[kWarp];
  __shared__ bool is_last;
  if (total.loss == nullptr) return;
  double sum = block_sum(mine, memory);
  const unsigned blocks = gridDim.x * gridDim.y;
  const bool first_thread = threadIdx.x == 0;
  if (blocks > 1) {
    if (first_thread) {
      total.partials[blockIdx.y * gridDim.x + blockIdx.x] = sum;
      __threadfence();
      // Counts up to blocks - 1, and then back to 0 for the next launch.
      is_last = atomicInc(&tickets[total.slot], blocks - 1) == blocks - 1;
      __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    sum = 0;
    for (unsigned i = threadIdx.x; i < blocks; i += blockDim.x) sum += total.partials[i];
    sum = block_sum(sum, memory);
  }
  if (first_thread) *static_cast<A*>(total.loss) = static_cast<A>(sum);
}

}  // namespace gankernels::cuda
