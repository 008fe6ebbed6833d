// Feature resampling on the CPU.

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

void Cpu::resample(ResampleProblem problem, const Tensor& statistics, const ResampleBlocks& blocks) {
  problem.block = blocks.block;
  problem.dtype = kernel_dtype(statistics.scalar_type());
  if (problem.block == 0) return;
  const int64_t grain = std::max<int64_t>(1, kChunkElements / problem.block);
  parallel_for(blocks.outer, grain, [&](int64_t begin, int64_t end) { cpu_kernels().resample(problem, begin, end); });
}

}  // namespace gankernels
