// The device that a tensor is on: its guard, its stream, and what a launch on it reports.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <atomic>

#if defined(GANKERNELS_HOST_SHIM)
#include "cuda_host_shim.h"
#else
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include "launches.h"

namespace gankernels::cuda {

#if defined(GANKERNELS_HOST_SHIM)
// The tests' build of these files runs on CPU tensors.
struct OnDeviceOf {
  explicit OnDeviceOf(const at::Tensor&) {}
  void* stream() const { return nullptr; }
};
#define GK_CUDA_KEY PrivateUse1
#else
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const at::Tensor& t) : guard_(t.device()) {}
  void* stream() const { return c10::cuda::getCurrentCUDAStream().stream(); }

 private:
  c10::cuda::CUDAGuard guard_;
};
#define GK_CUDA_KEY CUDA
#endif

inline void check_launch(int error, const char* what) {
  TORCH_CHECK(error == 0, "gankernels: the CUDA kernel of ", what,
              " could not be launched: ", cudaGetErrorString(static_cast<cudaError_t>(error)), " (cudaError ", error,
              ")");
}

// Where the blocks of a launch add up, and what several launches hand on to each other. Its memory is the one
// allocation beside the outputs: a CUDA graph keeps it with these. The ticket is one of a ring; as many launches must
// be under way on one device before two of them share it, and a captured launch keeps its own.
struct Workspace {
  static constexpr int64_t kSums = 4;

  at::Tensor memory;
  Total total;
  double* sums;

  // `loss` is written where it holds the sum, not the losses of rows.
  Workspace(const at::Tensor& loss, bool is_sum, int64_t more = kSums)
      : memory(at::empty({kMaxBlocks + more}, loss.options().dtype(at::kDouble))) {
    static std::atomic<unsigned> next{0};
    double* data = memory.mutable_data_ptr<double>();
    total = {is_sum ? loss.mutable_data_ptr() : nullptr, data, next++ % kTicketSlots};
    sums = data + kMaxBlocks;
  }
};

inline bool is_aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace gankernels::cuda
