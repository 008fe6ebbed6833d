// Launchers of the operators without a class dimension.
#include "elementwise.cuh"

namespace gankernels::cuda {

namespace {

// f(a null pointer to the element type, the width as a constant)
template <class F>
int for_type(Dtype dtype, bool wide, F&& f) {
  const auto with = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (wide) return f(type, std::integral_constant<int, kWide<T>>{});
    return f(type, std::integral_constant<int, 1>{});
  };
  switch (dtype) {
    case Dtype::kHalf: return with(static_cast<__half*>(nullptr));
    case Dtype::kBFloat16: return with(static_cast<__nv_bfloat16*>(nullptr));
    case Dtype::kFloat: return with(static_cast<float*>(nullptr));
    default: return with(static_cast<double*>(nullptr));
  }
}

template <class Kernel>
dim3 grid_for(Kernel* kernel, int64_t elements, int width) {
  const int64_t blocks = ceil_div(elements, static_cast<int64_t>(kThreads) * width);
  return {blocks_for(blocks, resident_blocks(kernel, kThreads), kMaxBlocks), 1, 1};
}

template <class T>
using Element = std::remove_pointer_t<T>;

template <class T, int kWidth>
int launch_relativistic_of(RelativisticLaunch problem, void* stream) {
  const dim3 threads{kThreads, 1, 1};
  if (!takes_several_launches(problem)) {
    GK_LAUNCH((relativistic_kernel<T, kWidth>), (dim3{1, 1, 1}), (dim3{kSingleBlock, 1, 1}), stream, problem);
    return static_cast<int>(cudaGetLastError());
  }
  dim3 grid = grid_for(relativistic_sums_kernel<T, kWidth>, problem.elements(), kWidth);
  grid.x = std::min<unsigned>(grid.x, kMaxBlocks / 2);  // two sums of each
  for (const auto stage : {RelativisticSums::kLogits, RelativisticSums::kSlopes}) {
    problem.stage = stage;
    GK_LAUNCH((relativistic_sums_kernel<T, kWidth>), grid, threads, stream, problem);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return static_cast<int>(error);
  }
  GK_LAUNCH((relativistic_gradients_kernel<T, kWidth>), grid, threads, stream, problem);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch_relativistic(const RelativisticLaunch& problem, void* stream) {
  return for_type(problem.dtype, problem.wide, [&](auto* type, auto width) {
    return launch_relativistic_of<Element<decltype(type)>, decltype(width)::value>(problem, stream);
  });
}

int launch_scale(const ScaleLaunch& problem, void* stream) {
  const int64_t elements = std::max(problem.first.elements, problem.second.elements);
  if (elements == 0) return 0;
  return for_type(problem.dtype, problem.wide, [&](auto* type, auto width) {
    using T = Element<decltype(type)>;
    constexpr int kWidth = decltype(width)::value;
    const dim3 grid = grid_for(scale_kernel<T, kWidth>, elements, kWidth);
    GK_LAUNCH((scale_kernel<T, kWidth>), grid, (dim3{kThreads, 1, 1}), stream, problem);
    return static_cast<int>(cudaGetLastError());
  });
}

int launch_resample(const ResampleLaunch& problem, void* stream) {
  if (problem.elements == 0) return 0;
  return for_type(problem.dtype, problem.wide, [&](auto* type, auto width) {
    using T = Element<decltype(type)>;
    constexpr int kWidth = decltype(width)::value;
    const dim3 block{kThreads, 1, 1};
    if (problem.grad_statistics != nullptr) {
      const dim3 grid = grid_for(resample_backward_kernel<T, kWidth>, problem.elements, kWidth);
      GK_LAUNCH((resample_backward_kernel<T, kWidth>), grid, block, stream, problem);
    } else {
      const dim3 grid = grid_for(resample_kernel<T, kWidth>, problem.elements, kWidth);
      GK_LAUNCH((resample_kernel<T, kWidth>), grid, block, stream, problem);
    }
    return static_cast<int>(cudaGetLastError());
  });
}

std::string launch_error() {
  // Gradients of no elements: the kernel starts and finds nothing to do.
  ScaleLaunch nothing;
  GK_LAUNCH((scale_kernel<float, 1>), (dim3{1, 1, 1}), (dim3{kThreads, 1, 1}), nullptr, nothing);
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return {};
  return std::string(cudaGetErrorString(error)) + " (cudaError " + std::to_string(static_cast<int>(error)) + ")";
}

}  // namespace gankernels::cuda
