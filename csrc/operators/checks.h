// Argument checks, once for CPU, CUDA and Meta. Messages equal those of gankernels/_checks.py (a test compares them).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cmath>

namespace gankernels {

enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

inline std::string dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kHalf: return "torch.float16";
    case at::kBFloat16: return "torch.bfloat16";
    case at::kFloat: return "torch.float32";
    case at::kDouble: return "torch.float64";
    case at::kByte: return "torch.uint8";
    case at::kChar: return "torch.int8";
    case at::kShort: return "torch.int16";
    case at::kInt: return "torch.int32";
    case at::kLong: return "torch.int64";
    case at::kBool: return "torch.bool";
    case at::kComplexFloat: return "torch.complex64";
    case at::kComplexDouble: return "torch.complex128";
    default: return c10::toString(type);
  }
}

// As Python prints it.
inline std::string layout_name(const at::Tensor& t) {
  if (t.is_nested()) return "a nested tensor";
  switch (t.layout()) {
    case at::kSparse: return "layout torch.sparse_coo";
    case at::kSparseCsr: return "layout torch.sparse_csr";
    case at::kSparseCsc: return "layout torch.sparse_csc";
    case at::kSparseBsr: return "layout torch.sparse_bsr";
    case at::kSparseBsc: return "layout torch.sparse_bsc";
    case at::kMkldnn: return "layout torch._mkldnn";
    default: return "an unknown layout";
  }
}

inline bool is_supported(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

// Losses and intermediate sums of half inputs are fp32.
inline at::ScalarType accumulate_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

inline void check_floating(const char* name, const at::Tensor& t) {
  TORCH_CHECK_TYPE(is_supported(t.scalar_type()), name, " must be a floating-point tensor, got ",
                   dtype_name(t.scalar_type()));
  TORCH_CHECK_TYPE(t.layout() == at::kStrided && !t.is_nested(), name, " must be a dense tensor, got ", layout_name(t));
}

inline void check_reduction(int64_t reduction) {
  TORCH_CHECK_VALUE(reduction >= kNone && reduction <= kSum, "reduction must be 0 (none), 1 (mean) or 2 (sum), got ",
                    reduction);
}

// Checks logits and their class dimension; returns the dimension as a non-negative number.
inline int64_t check_logits(const char* name, const at::Tensor& logits, int64_t dim) {
  check_floating(name, logits);
  const int64_t ndim = logits.dim();
  TORCH_CHECK_VALUE(ndim > 0, name, " must have at least 1 dimension, got a 0-dim tensor");
  TORCH_CHECK_VALUE(-ndim <= dim && dim < ndim, "dim must be in [", -ndim, ", ", ndim - 1, "] for ", name, " with ",
                    ndim, " dimensions, got ", dim);
  const int64_t wrapped = dim < 0 ? dim + ndim : dim;
  TORCH_CHECK_VALUE(logits.sym_size(wrapped) != 0, name, " must have at least one class along dim ", dim,
                    ", got shape ", logits.sym_sizes());
  return wrapped;
}

inline void check_temperature(const char* name, double temperature) {
  TORCH_CHECK_VALUE(temperature > 0 && std::isfinite(temperature), name, " must be finite and positive, got ",
                    temperature);
}

// Of the first of two distributions in their mixture.
inline void check_share(const char* name, double share) {
  TORCH_CHECK_VALUE(share > 0 && share < 1, name, " must be in (0, 1), got ", share);
}

inline void check_same_device(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  TORCH_CHECK(a.device() == b.device(), a_name, " and ", b_name, " must be on the same device, got ", a.device(),
              " and ", b.device());
}

inline void check_same_dtype(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  TORCH_CHECK_TYPE(a.scalar_type() == b.scalar_type(), a_name, " and ", b_name, " must have the same dtype, got ",
                   dtype_name(a.scalar_type()), " and ", dtype_name(b.scalar_type()));
}

inline void check_same_shape(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  TORCH_CHECK_VALUE(a.sym_sizes().equals(b.sym_sizes()), a_name, " and ", b_name, " must have the same shape, got ",
                    a.sym_sizes(), " and ", b.sym_sizes());
}

inline void check_alike(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b) {
  check_same_device(a_name, a, b_name, b);
  check_same_dtype(a_name, a, b_name, b);
  check_same_shape(a_name, a, b_name, b);
}

inline void check_same_classes(const char* a_name, const at::Tensor& a, const char* b_name, const at::Tensor& b,
                               int64_t dim) {
  TORCH_CHECK_VALUE(a.dim() == b.dim(), a_name, " and ", b_name, " must have the same number of dimensions, got ",
                    a.dim(), " and ", b.dim());
  TORCH_CHECK_VALUE(a.sym_size(dim) == b.sym_size(dim), a_name, " and ", b_name,
                    " must have the same number of classes along dim ", dim, ", got ", a.sym_size(dim), " and ",
                    b.sym_size(dim));
}

// One target for all rows: (K,), or the logits' number of dimensions with size 1 in all but the class one.
inline bool is_broadcast(const at::Tensor& target, const at::Tensor& logits, int64_t dim) {
  const c10::SymInt& classes = logits.sym_size(dim);
  if (target.dim() == 1) return target.sym_size(0) == classes;
  if (target.dim() != logits.dim()) return false;
  for (int64_t i = 0; i < target.dim(); ++i)
    if (i == dim ? target.sym_size(i) != classes : target.sym_size(i) != 1) return false;
  return true;
}

inline void check_target(const char* name, const at::Tensor& target, const char* logits_name, const at::Tensor& logits,
                         int64_t dim) {
  check_floating(name, target);
  check_same_device(name, target, logits_name, logits);
  TORCH_CHECK_VALUE(is_broadcast(target, logits, dim) || target.sym_sizes().equals(logits.sym_sizes()), name,
                    " must have shape [", logits.sym_size(dim), "] or ", logits.sym_sizes(), " to match ", logits_name,
                    ", got ", target.sym_sizes());
}

// A target that gets a gradient has one row per row of logits, and a dtype that its gradient is written in.
inline void check_target_gradient(const at::Tensor& target, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(target.sym_sizes().equals(logits.sym_sizes()), "target must have the shape of logits, ",
                    logits.sym_sizes(), ", where its gradient is asked for, got ", target.sym_sizes());
  TORCH_CHECK_TYPE(
      target.scalar_type() == logits.scalar_type() || target.scalar_type() == accumulate_type(logits.scalar_type()),
      "target must have the dtype of logits or of the loss where its gradient is asked for, got ",
      dtype_name(target.scalar_type()));
}

}  // namespace gankernels
