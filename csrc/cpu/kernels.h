// What the instruction-set specific translation units offer; free of torch and of the instruction sets.
#pragma once

#include "../problems.h"

namespace gankernels {

struct Kernels {
  const char* name;
  // Rows [begin, end); returns the sum of their losses. `scratch` holds scratch_bytes(problem).
  double (*kl)(const DivergenceProblem& problem, int64_t begin, int64_t end, void* scratch);
  // Of n numbers, floats or doubles.
  AnchorSums (*anchor_sums)(Dtype dtype, const void* anchor, int64_t n);
  // Elements [begin, end); returns the sums of their losses and derivatives.
  ScalarSums (*scalar)(const ScalarProblem& problem, int64_t begin, int64_t end);
  // Blocks [begin, end).
  void (*resample)(const ResampleProblem& problem, int64_t begin, int64_t end);
  // out = in * factor over n elements, 0 where that is 0, as a row that a mask leaves out may hold NaN; in and out may
  // be the same.
  void (*scale)(Dtype dtype, const void* in, void* out, int64_t n, double factor);
  // Runs [begin, end).
  void (*scale_rows)(const RowScaleProblem& problem, int64_t begin, int64_t end);
};

const Kernels& portable_kernels();
#if defined(__x86_64__) && defined(__GNUC__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

// Rows of up to this many classes are transposed, so that each lane holds one row.
constexpr int64_t kTransposedClasses = 128;

// Room for nine values per class and lane of the widest vector: transposed operands, and what a kernel keeps of a row.
inline int64_t scratch_bytes(const DivergenceProblem& p) {
  const bool by_lanes = !p.class_contiguous || p.classes <= kTransposedClasses;
  return 9 * (p.classes + 16) * (by_lanes ? 16 : 1) * static_cast<int64_t>(sizeof(double));
}

}  // namespace gankernels
