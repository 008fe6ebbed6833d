// Feature resampling on CUDA.
#include "backend.h"
#include "device.h"

namespace gankernels {

void Cuda::resample(const ResampleProblem& problem, const Tensor& statistics, const ResampleBlocks& blocks) {
  const cuda::OnDeviceOf device(statistics);
  cuda::ResampleLaunch launch;
  launch.statistics = problem.statistics;
  launch.noise = problem.noise;
  launch.out = problem.out;
  launch.grad_out = problem.grad_out;
  launch.grad_statistics = problem.grad_statistics;
  launch.elements = statistics.numel() / 2;
  launch.block = blocks.block;
  launch.dtype = kernel_dtype(statistics.scalar_type());
  launch.wide = launch.block % (16 / static_cast<int64_t>(statistics.element_size())) == 0;
  for (const void* data : {launch.statistics, launch.noise, static_cast<const void*>(launch.out), launch.grad_out,
                           static_cast<const void*>(launch.grad_statistics)})
    launch.wide = launch.wide && cuda::is_aligned(data);
  const char* name = launch.grad_out == nullptr ? "resample_logits" : "the backward pass of resample_logits";
  cuda::check_launch(cuda::launch_resample(launch, device.stream()), name);
}

}  // namespace gankernels
