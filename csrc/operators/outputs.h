// New memory for what operators return.
//
// PyTorch's functions find the allocator through the dispatcher, twice. On a CPU that takes longer than a small loss.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "../compat.h"

namespace gankernels {

// Asked of the storage: a fake tensor says that it is on a CPU, and has the keys of one that is.
inline bool is_in_memory(const at::Tensor& t) { return t.has_storage() && t.storage().device().is_cpu(); }

inline at::Tensor output_of(c10::SymIntArrayRef sizes, const at::Tensor& beside, at::ScalarType dtype) {
  if (is_in_memory(beside))
    if (const auto known = c10::asIntArrayRefSlowOpt(sizes)) return cpu_memory(*known, dtype);
  return at::empty_symint(sizes, beside.options().dtype(dtype));
}

// Dense, in the order of `like` where that is dense itself.
inline at::Tensor output_like(const at::Tensor& like, at::ScalarType dtype) {
  if (is_in_memory(like) && like.is_non_overlapping_and_dense()) return cpu_memory(like.sizes(), like.strides(), dtype);
  return at::empty_like(like, like.options().dtype(dtype));
}

inline at::Tensor output_like(const at::Tensor& like) { return output_like(like, like.scalar_type()); }

}  // namespace gankernels
