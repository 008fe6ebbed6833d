// What the CPU operators share: units of parallel work, scalars in memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <algorithm>

#include "kernels.h"

namespace gankernels {

// Elements per unit of parallel work. Units, not threads, own partial sums: results do not depend on their number.
constexpr int64_t kChunkElements = 16384;

// On torch's own threads; for what is worth waking a second one.
void parallel_region(int64_t count, int64_t grain, c10::function_ref<void(int64_t, int64_t)> f);

// f(begin, end) for the parts of [0, count), none of which is shorter than `grain` where there are several.
template <class F>
void parallel_for(int64_t count, int64_t grain, F&& f) {
  if (count > grain && count > 1) parallel_region(count, grain, f);
  else if (count > 0) f(int64_t{0}, count);
}

inline void write_scalar(const at::Tensor& t, double value) {
  if (t.scalar_type() == at::kDouble) *t.mutable_data_ptr<double>() = value;
  else *t.mutable_data_ptr<float>() = static_cast<float>(value);
}

inline double read_scalar(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? *t.const_data_ptr<double>() : *t.const_data_ptr<float>();
}

}  // namespace gankernels
