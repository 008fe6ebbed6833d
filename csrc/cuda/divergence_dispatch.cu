// The launcher of the divergences: one dtype after another.
#include "launch.cuh"

namespace gankernels::cuda {

int launch_divergence_half(const DivergenceLaunch& problem, void* stream);
int launch_divergence_bfloat16(const DivergenceLaunch& problem, void* stream);
int launch_divergence_float(const DivergenceLaunch& problem, void* stream);
int launch_divergence_double(const DivergenceLaunch& problem, void* stream);

int parts_of(const DivergenceLaunch& problem) {
  // Classes of a part, and parts of a row, for which a second launch pays.
  constexpr int64_t kLeastClasses = 8192, kLeastParts = 4;
  const int64_t rows = problem.rows();
  if (!problem.wide || problem.positive == Positive::kMixture || rows == 0) return 1;
  const int64_t blocks = 2 * static_cast<int64_t>(multiprocessors());
  const int64_t parts = std::min(blocks / rows, ceil_div(problem.classes, kLeastClasses));
  return parts < kLeastParts ? 1 : static_cast<int>(parts);
}

int launch_divergence(const DivergenceLaunch& problem, void* stream) {
  switch (problem.dtype) {
    case Dtype::kHalf: return launch_divergence_half(problem, stream);
    case Dtype::kBFloat16: return launch_divergence_bfloat16(problem, stream);
    case Dtype::kFloat: return launch_divergence_float(problem, stream);
    default: return launch_divergence_double(problem, stream);
  }
}

}  // namespace gankernels::cuda
