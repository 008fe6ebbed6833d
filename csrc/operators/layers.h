// The layer operators of every backend: their checks and the shapes of their results.
#pragma once

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "checks.h"
#include "divergence.h"

namespace gankernels {

// How many gradients of gradient_scale were scaled in place, and how many into new memory.
std::pair<int64_t, int64_t> gradient_scale_counts();

inline void check_gradient_scale(const Tensor& x, const OptionalTensor& scale) {
  check_floating("x", x);
  if (!scale.has_value() || scale->dim() == 0) return;
  check_floating("scale", *scale);
  const bool fits = scale->dim() == 1 && x.dim() > 0 && scale->sym_size(0) == x.sym_size(0);
  TORCH_CHECK_VALUE(fits, "scale must have shape [] or ", x.sym_sizes().slice(0, x.dim() > 0 ? 1 : 0), ", got ",
                    scale->sym_sizes());
}

// No element is shared when each stride steps over all that the smaller strides can reach.
inline bool may_overlap(const Tensor& t) {
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) > 1) dims.emplace_back(t.stride(d), t.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reach) return t.numel() > 0;
    reach += stride * (size - 1);
  }
  return false;
}

inline void check_writable(const Tensor& t) {
  check_floating("t", t);
  TORCH_CHECK(!(t.is_leaf() && t.requires_grad() && at::GradMode::is_enabled()),
              "t must not be a leaf that requires grad, got one outside torch.no_grad()");
  // A traced tensor has no memory to overlap in.
  if (t.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) return;
  TORCH_CHECK(!may_overlap(t), "t must not overlap itself in memory, got shape ", t.sizes(), " with strides ",
              t.strides());
}

// Returns the non-negative dimension.
inline int64_t check_resample(const Tensor& statistics, const Tensor& noise, int64_t dim,
                              const char* name = "mu_logvar", const char* noise_name = "noise") {
  const int64_t d = check_logits(name, statistics, dim);
  TORCH_CHECK_VALUE(statistics.sym_size(d) % 2 == 0, name, " must have an even number of channels along dim ", dim,
                    ", got shape ", statistics.sym_sizes());
  c10::SymDimVector shape(statistics.sym_sizes().begin(), statistics.sym_sizes().end());
  shape[static_cast<size_t>(d)] = shape[static_cast<size_t>(d)] / 2;
  check_floating(noise_name, noise);
  check_same_device(noise_name, noise, name, statistics);
  TORCH_CHECK_VALUE(noise.sym_sizes().equals(shape), noise_name, " must have shape ", c10::SymIntArrayRef(shape),
                    " to match ", name, ", got ", noise.sym_sizes());
  return d;
}

// z is dense and contiguous; so is the gradient of the statistics.
inline Tensor empty_resampled(const Tensor& statistics, const Tensor& noise) {
  return at::empty_symint(noise.sym_sizes(), statistics.options());
}
inline Tensor empty_statistics_gradient(const Tensor& statistics) {
  return at::empty_symint(statistics.sym_sizes(), statistics.options());
}

}  // namespace gankernels
