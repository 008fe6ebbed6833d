// Seeing strided tensors as rows of classes: which of their dimensions merge. Free of torch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "problems.h"

namespace gankernels {

constexpr size_t kMaxOperands = 6;

struct RowDimension {
  int64_t size = 1;
  int64_t strides[kMaxOperands] = {};
};

// The dimensions other than the class one, neighbours that all operands step through evenly merged into one.
struct RowDimensions {
  static constexpr int kMost = 2;  // that a kernel walks

  int count = 0;  // kMost + 1: too many
  RowDimension dims[kMost + 1];

  int64_t inner_rows() const { return count == 2 ? dims[1].size : 1; }
};

// `sizes` are those of every operand, `strides[i]` those of operand i.
inline RowDimensions merge_rows(int64_t ndim, const int64_t* sizes, const int64_t* const* strides, size_t operands,
                                int64_t dim) {
  RowDimensions merged;
  for (int64_t d = 0; d < ndim; ++d) {
    if (d == dim || sizes[d] == 1) continue;
    bool continues = merged.count > 0;
    for (size_t i = 0; continues && i < operands; ++i)
      continues = merged.dims[merged.count - 1].strides[i] == strides[i][d] * sizes[d];
    if (!continues && merged.count++ == RowDimensions::kMost) return merged;
    RowDimension& last = merged.dims[merged.count - 1];
    last.size = continues ? last.size * sizes[d] : sizes[d];
    for (size_t i = 0; i < operands; ++i) last.strides[i] = strides[i][d];
  }
  return merged;
}

// Operand i's rows; the pointer is the caller's.
inline void describe(Rows& rows, const RowDimensions& merged, size_t i, int64_t class_stride) {
  rows.cls = class_stride;
  rows.outer = merged.count == 0 ? 0 : merged.dims[0].strides[i];
  rows.inner = merged.count == 2 ? merged.dims[1].strides[i] : 0;
}

}  // namespace gankernels
