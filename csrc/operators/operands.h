// The tensors of one batch that a kernel walks together.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include "../layout.h"

namespace gankernels {

using at::Tensor;

inline Dtype kernel_dtype(at::ScalarType type) {
  switch (type) {
    case at::kHalf: return Dtype::kHalf;
    case at::kBFloat16: return Dtype::kBFloat16;
    case at::kFloat: return Dtype::kFloat;
    default: return Dtype::kDouble;
  }
}

// The memory of a tensor that may be absent.
inline void* writable(const Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; }
inline const void* readable(const Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; }

class Operands {
 public:
  void input(const Tensor& t, Rows& rows) { list_.push_back({t, &rows, false, {}}); }

  // One without elements was not asked for.
  void output(const Tensor* t, Rows& rows) {
    if (t != nullptr && t->numel() != 0) list_.push_back({*t, &rows, true, {}});
  }

  // Describes all operands as they lie where `walks` accepts that, else contiguous copies of them.
  template <class Walks>
  RowDimensions settle(int64_t dim, const Walks& walks) {
    RowDimensions merged = row_dimensions(dim);
    if (merged.count > RowDimensions::kMost || !walks(merged, *this)) {
      make_contiguous();
      merged = row_dimensions(dim);
      TORCH_INTERNAL_ASSERT(merged.count <= RowDimensions::kMost && walks(merged, *this));
    }
    for (size_t i = 0; i < list_.size(); ++i) {
      const Tensor& t = list_[i].tensor;
      describe(*list_[i].rows, merged, i, t.stride(dim));
      // A mutable pointer would make a copy-on-write tensor copy itself.
      list_[i].rows->data = list_[i].is_output ? t.mutable_data_ptr() : const_cast<void*>(t.const_data_ptr());
    }
    return merged;
  }

  // After the kernel: outputs computed in copies go where they belong.
  void hand_back() const {
    for (const Operand& operand : list_)
      if (operand.is_output && operand.requested.defined()) operand.requested.copy_(operand.tensor);
  }

  bool classes_adjacent(int64_t dim) const {
    for (const Operand& operand : list_)
      if (operand.tensor.size(dim) != 1 && operand.tensor.stride(dim) != 1) return false;
    return true;
  }

  bool rows_adjacent(const RowDimensions& merged) const {
    for (size_t i = 0; i < list_.size(); ++i)
      if (merged.count == 0 || merged.dims[merged.count - 1].strides[i] != 1) return false;
    return true;
  }

  // Exchanges the two row dimensions of every operand.
  void swap_rows() const {
    for (const Operand& operand : list_) std::swap(operand.rows->outer, operand.rows->inner);
  }

 private:
  struct Operand {
    Tensor tensor;
    Rows* rows;
    bool is_output;
    Tensor requested;  // where an output computed in a copy belongs
  };

  RowDimensions row_dimensions(int64_t dim) const {
    const int64_t* strides[kMaxOperands];
    for (size_t i = 0; i < list_.size(); ++i) strides[i] = list_[i].tensor.strides().data();
    const Tensor& first = list_[0].tensor;
    return merge_rows(first.dim(), first.sizes().data(), strides, list_.size(), dim);
  }

  void make_contiguous() {
    for (Operand& operand : list_) {
      operand.requested = operand.tensor;
      operand.tensor = operand.is_output ? at::empty_like(operand.tensor, at::MemoryFormat::Contiguous)
                                         : operand.tensor.contiguous();
    }
  }

  c10::SmallVector<Operand, kMaxOperands> list_;
};

}  // namespace gankernels
