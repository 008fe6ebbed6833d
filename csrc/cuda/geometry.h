// Seeing strided tensors as rows of classes, without copying where two strides of rows suffice.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "launches.h"

namespace gankernels::cuda {

// A tensor of the logits' shape that a kernel reads or writes, and where its description goes.
struct Operand {
  at::Tensor tensor;
  Rows* rows;
  bool is_output;
  at::Tensor requested = {};  // where an output computed in a copy belongs
};

struct RowDimension {
  int64_t size;
  c10::SmallVector<int64_t, 6> strides;  // of each operand
};

// The dimensions other than `dim`, neighbours that all operands step through evenly merged into one.
inline std::vector<RowDimension> row_dimensions(const std::vector<Operand>& operands, int64_t dim) {
  std::vector<RowDimension> merged;
  const auto sizes = operands[0].tensor.sizes();
  for (int64_t d = 0; d < static_cast<int64_t>(sizes.size()); ++d) {
    if (d == dim || sizes[d] == 1) continue;
    RowDimension next{sizes[d], {}};
    bool continues = !merged.empty();
    for (size_t i = 0; i < operands.size(); ++i) {
      next.strides.push_back(operands[i].tensor.stride(d));
      continues = continues && merged.back().strides[i] == next.strides[i] * next.size;
    }
    if (continues) next.size *= merged.back().size, merged.pop_back();
    merged.push_back(std::move(next));
  }
  return merged;
}

// Describes all operands by the same two row dimensions; false where there are more.
inline bool describe(DivergenceTerm& term, const std::vector<Operand>& operands, int64_t dim) {
  const auto merged = row_dimensions(operands, dim);
  if (merged.size() > 2) return false;
  term.inner_rows = merged.size() == 2 ? merged[1].size : 1;
  for (size_t i = 0; i < operands.size(); ++i) {
    const at::Tensor& t = operands[i].tensor;
    // A mutable pointer would make a copy-on-write tensor copy itself.
    operands[i].rows->data = operands[i].is_output ? t.mutable_data_ptr() : const_cast<void*>(t.const_data_ptr());
    operands[i].rows->cls = t.stride(dim);
    operands[i].rows->outer = merged.empty() ? 0 : merged[0].strides[i];
    operands[i].rows->inner = merged.size() == 2 ? merged[1].strides[i] : 0;
  }
  return true;
}

}  // namespace gankernels::cuda
