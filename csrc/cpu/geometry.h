// Seeing strided tensors as rows of classes, without copying where the kernels can walk them as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels.h"

namespace gankernels {

// A tensor that a kernel reads or writes, and where its description goes.
struct Operand {
  const at::Tensor* tensor;
  Rows* rows;
  bool is_output;
};

// Describes all operands (of one shape) by the same two row dimensions and one class dimension.
// False where the non-class dimensions do not merge into two, or neither classes nor rows lie side by side.
inline bool describe(DivergenceProblem& problem, int64_t dim, const std::vector<Operand>& operands) {
  struct Dimension {
    int64_t size;
    c10::SmallVector<int64_t, 6> strides;
  };
  c10::SmallVector<Dimension, 4> merged;
  const auto sizes = operands[0].tensor->sizes();
  for (int64_t d = 0; d < static_cast<int64_t>(sizes.size()); ++d) {
    if (d == dim || sizes[d] == 1) continue;
    Dimension next{sizes[d], {}};
    bool continues = !merged.empty();
    for (size_t i = 0; i < operands.size(); ++i) {
      next.strides.push_back(operands[i].tensor->stride(d));
      continues = continues && merged.back().strides[i] == next.strides[i] * next.size;
    }
    if (continues) next.size *= merged.back().size, merged.pop_back();
    merged.push_back(std::move(next));
  }
  if (merged.size() > 2) return false;

  bool classes_adjacent = true, rows_adjacent = !merged.empty();
  for (size_t i = 0; i < operands.size(); ++i) {
    classes_adjacent = classes_adjacent && (sizes[dim] == 1 || operands[i].tensor->stride(dim) == 1);
    rows_adjacent = rows_adjacent && merged.back().strides[i] == 1;
  }
  // A single class leaves the lanes to the rows.
  problem.class_contiguous = classes_adjacent && !(rows_adjacent && sizes[dim] == 1);
  if (!problem.class_contiguous && !rows_adjacent) return false;

  problem.classes = sizes[dim];
  problem.rows = 1;
  for (const auto& d : merged) problem.rows *= d.size;
  const bool has_inner = merged.size() == 2 || (merged.size() == 1 && !problem.class_contiguous);
  problem.inner_rows = has_inner ? merged.back().size : 1;
  for (size_t i = 0; i < operands.size(); ++i) {
    Rows& rows = *operands[i].rows;
    // A mutable pointer would make a copy-on-write tensor copy itself.
    rows.data = operands[i].is_output ? operands[i].tensor->mutable_data_ptr()
                                      : const_cast<void*>(operands[i].tensor->const_data_ptr());
    rows.cls = operands[i].tensor->stride(dim);
    rows.inner = has_inner ? merged.back().strides[i] : 0;
    rows.outer = merged.size() == (has_inner ? 2u : 1u) ? merged.front().strides[i] : 0;
  }
  return true;
}

}  // namespace gankernels
