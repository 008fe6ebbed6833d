// f of a term and its derivative as differentiable expressions.
#pragma once

#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "../problems.h"

namespace gankernels {

// Each operation is a pass over the elements: those that would change nothing are left out.
inline at::Tensor times(const at::Tensor& t, double factor) {
  if (factor == 1) return t;
  return factor == -1 ? t.neg() : t * factor;
}

inline at::Tensor plus(const at::Tensor& t, double summand) { return summand == 0 ? t : t + summand; }

// What f is of: logits, or these less what they are compared with.
inline at::Tensor argument_of(const ScalarTerm& term, const at::Tensor& z) {
  return times(plus(z, -term.offset), term.sign);
}

inline at::Tensor value_of(const ScalarTerm& term, const at::Tensor& u) {
  switch (term.function) {
    case ScalarFunction::kSoftplus: return at::log_sigmoid(-u).neg();
    case ScalarFunction::kHinge: return at::relu(u + 1);
    case ScalarFunction::kSquare: return u * u * 0.5;
    case ScalarFunction::kAbsolute: return u.abs();
    case ScalarFunction::kIdentity: break;
  }
  return u;
}

inline at::Tensor slope_of(const ScalarTerm& term, const at::Tensor& u) {
  switch (term.function) {
    case ScalarFunction::kSoftplus: return u.sigmoid();
    // 1 where max(0, 1 + u) has a slope and 0 elsewhere; a constant as far as derivatives go.
    case ScalarFunction::kHinge: return at::where(u <= -1, at::zeros_like(u), at::ones_like(u));
    case ScalarFunction::kSquare: return u;
    case ScalarFunction::kAbsolute: return u.sign();
    case ScalarFunction::kIdentity: break;
  }
  return at::ones_like(u);
}

// d weight f(argument) / dz
inline at::Tensor weighted_slope_of(const ScalarTerm& term, const at::Tensor& z) {
  return times(slope_of(term, argument_of(term, z)), term.weight * term.sign);
}

}  // namespace gankernels
