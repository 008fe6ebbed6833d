// f of a term and its derivative as differentiable expressions.
#pragma once

#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "../problems.h"

namespace gankernels {

inline at::Tensor value_of(const ScalarTerm& term, const at::Tensor& u) {
  switch (term.function) {
    case ScalarFunction::kSoftplus: return at::log_sigmoid(-u).neg();
    case ScalarFunction::kHinge: return at::relu(u + 1);
    case ScalarFunction::kSquare: return u * u * 0.5;
    case ScalarFunction::kAbsolute: return u.abs();
    default: return u;
  }
}

inline at::Tensor slope_of(const ScalarTerm& term, const at::Tensor& u) {
  switch (term.function) {
    case ScalarFunction::kSoftplus: return u.sigmoid();
    // 1 where max(0, 1 + u) has a slope and 0 elsewhere; a constant as far as derivatives go.
    case ScalarFunction::kHinge: return at::where(u <= -1, at::zeros_like(u), at::ones_like(u));
    case ScalarFunction::kSquare: return u;
    case ScalarFunction::kAbsolute: return u.sign();
    default: return at::ones_like(u);
  }
}

}  // namespace gankernels
