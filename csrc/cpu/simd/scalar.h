// Elementwise GAN losses: value and derivative of a term of one logit, from at most one exponential.
#pragma once

#include "../kernels.h"
#include "elementary.h"

namespace gankernels::GK_ISA {

template <class A>
struct ValueAndSlope {
  Vec<A> value, slope;
};

// softplus(u) = max(u, 0) + log(1 + e),  sigmoid(u) = 1 / (1 + e) or e / (1 + e),  e = exp(-|u|)
// log(1 + e) = 2 atanh(e / (2 + e)), with an argument of at most 1/3: 8 terms for float, 17 for double.
template <class A>
GK_INLINE ValueAndSlope<A> softplus(Vec<A> u) {
  constexpr int terms = std::is_same_v<A, float> ? 8 : 17;
  const Vec<A> e = exp_non_positive<A>(u < A(0) ? u : Vec<A>(-u));
  const Vec<A> log_1p = twice_atanh<terms, A>(e / (e + A(2)));
  const Vec<A> sigmoid = (u < A(0) ? e : splat<A>(1)) / (e + A(1));
  return {(u > A(0) ? u : Vec<A>{}) + log_1p, sigmoid};
}

// max(0, 1 + u), with the subgradient 0 at the kink and NaN kept, as torch.relu has it.
template <class A>
GK_INLINE ValueAndSlope<A> hinge(Vec<A> u) {
  const Vec<A> v = u + A(1);
  return {v <= A(0) ? Vec<A>{} : v, v <= A(0) ? Vec<A>{} : splat<A>(1)};
}

template <ScalarFunction kFunction, class A>
GK_INLINE ValueAndSlope<A> evaluate(Vec<A> u) {
  if constexpr (kFunction == ScalarFunction::kSoftplus) return softplus<A>(u);
  if constexpr (kFunction == ScalarFunction::kHinge) return hinge<A>(u);
  if constexpr (kFunction == ScalarFunction::kSquare) return {u * u * A(0.5), u};
  if constexpr (kFunction == ScalarFunction::kAbsolute)
    return {u < A(0) ? Vec<A>(-u) : u, u > A(0) ? splat<A>(1) : (u < A(0) ? splat<A>(-1) : Vec<A>{})};
  if constexpr (kFunction == ScalarFunction::kIdentity) return {u, splat<A>(1)};
}

// The logits that are subtracted.
template <class T, class Count>
GK_INLINE Vec<Accumulate<T>> other_logits(const ScalarProblem& p, int64_t i, Count n) {
  using A = Accumulate<T>;
  if (p.other_wide) return load<A>(static_cast<const A*>(p.other) + i, n);
  return load<A>(static_cast<const T*>(p.other) + i, n);
}

// The factors of elements from i on, of which `per_weight` neighbours share one.
template <class A, class Count>
GK_INLINE Vec<A> weights_from(const ScalarProblem& p, int64_t i, Count n) {
  const A* weights = static_cast<const A*>(p.weights);
  if (p.per_weight == 1) return load<A>(weights + i, n);
  int64_t at = i / p.per_weight, left = (at + 1) * p.per_weight - i;
  const int count = n.count;
  if (left >= count) return splat<A>(weights[at]);
  A factors[lanes<A>] = {};
  for (int k = 0; k < count; ++k, --left) {
    if (left == 0) ++at, left = p.per_weight;
    factors[k] = weights[at];
  }
  Vec<A> out;
  std::memcpy(&out, factors, sizeof(out));
  return out;
}

template <class T, ScalarFunction kFunction>
void scalar_term(const ScalarProblem& p, int64_t begin, int64_t end, ScalarSums& sums) {
  using A = Accumulate<T>;
  const T* x = static_cast<const T*>(p.logits);
  T* grad = static_cast<T*>(p.grad);
  A* row_loss = static_cast<A*>(p.row_loss);
  const A sign = static_cast<A>(p.term.sign), offset = static_cast<A>(p.term.offset);
  const A weight = static_cast<A>(p.term.weight), slope = static_cast<A>(p.term.slope);
  const A scale = static_cast<A>(p.weight), constant = static_cast<A>(p.gradient_constant);
  const auto step = [&](int64_t i, auto n) {
    Vec<A> z = load<A>(x + i, n);
    if (p.other != nullptr) z -= other_logits<T>(p, i, n);
    const auto [value, derivative] = evaluate<kFunction, A>((z - offset) * sign);
    Vec<A> loss = value * weight, g = derivative * (weight * sign);
    // 0 * inf is NaN: a slope of zero must not touch the loss.
    if (slope != A(0)) loss += z * slope, g += slope;
    if (p.weights != nullptr) {
      const Vec<A> factor = weights_from<A>(p, i, n);
      if (p.weights_grad != nullptr) store<A>(static_cast<A*>(p.weights_grad) + i, loss * scale, n);
      loss = factor == A(0) ? Vec<A>{} : loss * factor, g = factor == A(0) ? Vec<A>{} : g * factor;
    }
    if (grad != nullptr) store<A>(grad + i, (g + constant) * scale, n);
    if (p.other_grad != nullptr) {
      if (p.other_wide) store<A>(static_cast<A*>(p.other_grad) + i, g * -scale, n);
      else store<A>(static_cast<T*>(p.other_grad) + i, g * -scale, n);
    }
    if (row_loss != nullptr)
      store<A>(row_loss + i, p.add_to_row_loss ? Vec<A>(load<A>(row_loss + i, n) + loss) : loss, n);
    return ValueAndSlope<A>{loss, g};
  };
  // Partial sums move to double after this many vectors: longer ones round worse than PyTorch's pairwise sum.
  constexpr int64_t kBlock = 64 * lanes<A>;
  int64_t i = begin;
  while (i + lanes<A> <= end) {
    Vec<A> total{}, slopes{};
    const int64_t stop = end - i < kBlock ? end : i + kBlock;
    for (; i + lanes<A> <= stop; i += lanes<A>) {
      const auto [loss, g] = step(i, Full<A>{});
      total += loss, slopes += g;
    }
    sums.loss += static_cast<double>(reduce_sum<A>(total));
    sums.slope += static_cast<double>(reduce_sum<A>(slopes));
  }
  if (i == end) return;
  const int rest = static_cast<int>(end - i);
  const auto [loss, g] = step(i, Partial{rest});
  A l[lanes<A>], s[lanes<A>];
  std::memcpy(l, &loss, sizeof(loss));
  std::memcpy(s, &g, sizeof(g));
  for (int k = 0; k < rest; ++k) sums.loss += static_cast<double>(l[k]), sums.slope += static_cast<double>(s[k]);
}

template <class T>
void scalar_function(const ScalarProblem& p, int64_t begin, int64_t end, ScalarSums& sums) {
  switch (p.term.function) {
    case ScalarFunction::kSoftplus: return scalar_term<T, ScalarFunction::kSoftplus>(p, begin, end, sums);
    case ScalarFunction::kHinge: return scalar_term<T, ScalarFunction::kHinge>(p, begin, end, sums);
    case ScalarFunction::kSquare: return scalar_term<T, ScalarFunction::kSquare>(p, begin, end, sums);
    case ScalarFunction::kAbsolute: return scalar_term<T, ScalarFunction::kAbsolute>(p, begin, end, sums);
    case ScalarFunction::kIdentity: return scalar_term<T, ScalarFunction::kIdentity>(p, begin, end, sums);
  }
}

inline ScalarSums scalar(const ScalarProblem& p, int64_t begin, int64_t end) {
  ScalarSums sums;
  switch (p.dtype) {
    case Dtype::kHalf: scalar_function<Half>(p, begin, end, sums); break;
    case Dtype::kBFloat16: scalar_function<BFloat16>(p, begin, end, sums); break;
    case Dtype::kFloat: scalar_function<float>(p, begin, end, sums); break;
    default: scalar_function<double>(p, begin, end, sums);
  }
  return sums;
}

}  // namespace gankernels::GK_ISA
