// The loss operators of every backend: what they check, what they return, how the rest of the library calls them.
//
// Each loss has two operators. `name` is the differentiable one that users call. `name_value_and_grad` is the one that
// a backend implements: the loss and the gradients that were asked for, from one pass over the logits, outside
// autograd.
//
// Common arguments of the latter:
//   *_grad      which gradients to compute; one not asked for comes back with no elements
//   fold_mean   whether the gradients of a mean are divided by the number of rows; autograd leaves it to the backward
//               pass for fp16, where 1/rows would underflow before a GradScaler's factor is applied
//   grad_scale  a factor on the gradients, applied before they are rounded to the logits' dtype
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <tuple>

#include "checks.h"

namespace gankernels {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using TwoGradients = std::tuple<Tensor, Tensor, Tensor>;  // loss, gradient, gradient

inline Tensor empty_loss(const Tensor& logits, int64_t dim, int64_t reduction) {
  const auto options = logits.options().dtype(accumulate_type(logits.scalar_type()));
  c10::SymDimVector sizes;
  if (reduction == kNone) {
    for (int64_t i = 0; i < logits.dim(); ++i)
      if (i != dim) sizes.push_back(logits.sym_size(i));
  }
  return at::empty_symint(sizes, options);
}

// Dense, in the layout of `like` where that is dense itself.
inline Tensor empty_gradient(const Tensor& like, bool needed) {
  return needed ? at::empty_like(like) : at::empty({0}, like.options());
}

inline c10::SymInt sym_rows(const Tensor& logits, int64_t dim) {
  c10::SymInt rows = 1;
  for (int64_t i = 0; i < logits.dim(); ++i)
    if (i != dim) rows *= logits.sym_size(i);
  return rows;
}

// ---- arguments checked, outputs allocated: all of a Meta kernel, and the first lines of every other ---------------

struct Prepared {
  int64_t dim;
  TwoGradients outputs;
};

inline Prepared prepare_softmax_kl(const Tensor& logits, const Tensor& target, int64_t dim, int64_t reduction,
                                   bool logits_grad, bool target_grad) {
  check_reduction(reduction);
  dim = check_logits("logits", logits, dim);
  check_target("target", target, "logits", logits, dim);
  TORCH_CHECK_VALUE(!target_grad || target.sym_sizes().equals(logits.sym_sizes()),
                    "target must have the shape of logits, ", logits.sym_sizes(),
                    ", where its gradient is asked for, got ", target.sym_sizes());
  return {
      dim,
      {empty_loss(logits, dim, reduction), empty_gradient(logits, logits_grad), empty_gradient(target, target_grad)}};
}

inline Prepared prepare_softmax_kl_logits(const Tensor& p_logits, const Tensor& q_logits, int64_t dim,
                                          int64_t reduction, bool p_grad, bool q_grad) {
  check_reduction(reduction);
  dim = check_logits("p_logits", p_logits, dim);
  check_floating("q_logits", q_logits);
  check_same_device("p_logits", p_logits, "q_logits", q_logits);
  check_same_dtype("p_logits", p_logits, "q_logits", q_logits);
  check_same_shape("p_logits", p_logits, "q_logits", q_logits);
  return {dim,
          {empty_loss(q_logits, dim, reduction), empty_gradient(p_logits, p_grad), empty_gradient(q_logits, q_grad)}};
}

inline Prepared prepare_realness_d_loss(const Tensor& real, const Tensor& fake, const Tensor& real_anchor,
                                        const Tensor& fake_anchor, int64_t dim, int64_t reduction, bool real_grad,
                                        bool fake_grad) {
  check_reduction(reduction);
  dim = check_logits("real_logits", real, dim);
  check_floating("fake_logits", fake);
  check_same_device("real_logits", real, "fake_logits", fake);
  check_same_dtype("real_logits", real, "fake_logits", fake);
  check_same_classes("real_logits", real, "fake_logits", fake, dim);
  if (reduction == kNone) check_same_shape("real_logits", real, "fake_logits", fake);
  check_target("real_anchor", real_anchor, "real_logits", real, dim);
  check_target("fake_anchor", fake_anchor, "fake_logits", fake, dim);
  return {dim, {empty_loss(real, dim, reduction), empty_gradient(real, real_grad), empty_gradient(fake, fake_grad)}};
}

inline const Tensor& required(const char* name, const OptionalTensor& t, int64_t objective) {
  TORCH_CHECK_VALUE(t.has_value() && t->defined(), name, " is required by objective ", objective, ", got None");
  return *t;
}

inline Prepared prepare_realness_g_loss(const OptionalTensor& real, const Tensor& fake,
                                        const OptionalTensor& real_anchor, const OptionalTensor& fake_anchor,
                                        int64_t objective, int64_t dim, int64_t reduction, bool real_grad,
                                        bool fake_grad) {
  TORCH_CHECK_VALUE(objective >= 1 && objective <= 3, "objective must be 1, 2 or 3, got ", objective);
  check_reduction(reduction);
  dim = check_logits("fake_logits", fake, dim);
  check_target("fake_anchor", required("fake_anchor", fake_anchor, objective), "fake_logits", fake, dim);
  if (objective == 2) {
    const Tensor& logits = required("real_logits", real, objective);
    check_floating("real_logits", logits);
    check_same_device("real_logits", logits, "fake_logits", fake);
    check_same_dtype("real_logits", logits, "fake_logits", fake);
    check_same_shape("real_logits", logits, "fake_logits", fake);
  }
  if (objective == 3)
    check_target("real_anchor", required("real_anchor", real_anchor, objective), "fake_logits", fake, dim);
  const bool with_real = real_grad && objective == 2;
  return {dim,
          {empty_loss(fake, dim, reduction), empty_gradient(with_real ? *real : fake, with_real),
           empty_gradient(fake, fake_grad)}};
}

}  // namespace gankernels
