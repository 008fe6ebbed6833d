// What the CPU operators share: units of parallel work, scalars in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "kernels.h"

namespace gankernels {

// Elements per unit of parallel work. Units, not threads, own partial sums: results do not depend on their number.
constexpr int64_t kChunkElements = 16384;

inline void write_scalar(const at::Tensor& t, double value) {
  if (t.scalar_type() == at::kDouble) *t.mutable_data_ptr<double>() = value;
  else *t.mutable_data_ptr<float>() = static_cast<float>(value);
}

inline double read_scalar(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? *t.const_data_ptr<double>() : *t.const_data_ptr<float>();
}

}  // namespace gankernels
