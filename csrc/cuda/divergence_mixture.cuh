// beta KL(p || m) + (1 - beta) KL(q || m) and its gradients, m = beta p + (1 - beta) q of two softmaxes.
//
// With K_p = sum p log(p / m) and K_q = sum q log(q / m):
//   loss = beta K_p + (1 - beta) K_q
//   d/dp_logits = beta p (log(p / m) - K_p), d/dq_logits likewise: the derivatives by m add up to zero
#pragma once

#include <limits>

#include "divergence_streamed.cuh"

namespace gankernels::cuda {

template <class A>
constexpr A kLeast = std::numeric_limits<A>::min();

template <class T>
struct Mixture {
  using A = Accumulate<T>;
  A p_share, q_share, p_weight, q_weight;

  // A share that vanishes would make the quotients of its own distribution infinite.
  GK_DEVICE explicit Mixture(const DivergenceTerm& term)
      : p_share(max_of(static_cast<A>(term.share), kLeast<A>)),
        q_share(max_of(static_cast<A>(1 - term.share), kLeast<A>)),
        p_weight(static_cast<A>(term.p_weight)),
        q_weight(static_cast<A>(term.q_weight)) {}

  // Without subnormals: their quotients may be infinite, and what they add vanishes.
  GK_DEVICE static A probability(A exponential, A scale) {
    const A p = exponential * scale;
    return p < kLeast<A> ? A(0) : p;
  }

  // p log(p / m), m / p = own + rest (other / p): exact where the two are near each other.
  GK_DEVICE static A part(A p, A other, A own, A rest) {
    return p == A(0) ? A(0) : -p * log_for<T>(fma_of(rest, quotient_for<T>(other, p), own));
  }
  GK_DEVICE A part_of_p(A p, A q) const { return part(p, q, p_share, q_share); }
  GK_DEVICE A part_of_q(A p, A q) const { return part(q, p, q_share, p_share); }

  GK_DEVICE A loss(const A (&divergences)[2]) const { return p_share * divergences[0] + q_share * divergences[1]; }

  // From each class's part.
  template <int kWidth, int kValues>
  GK_DEVICE static void store_gradient(const Rows& to, Position at, const Share& share, A (&parts)[kValues],
                                       const A (&probabilities)[kValues], A divergence, A weight) {
    if (to.data == nullptr) return;
#pragma unroll
    for (int v = 0; v < kValues; ++v) parts[v] = weight * fma_of(-probabilities[v], divergence, parts[v]);
    store<kWidth>(row_of<T>(to, at), to.cls, parts, share);
  }
  template <int kWidth, int kValues>
  GK_DEVICE void store_gradients(const DivergenceTerm& term, Position at, const Share& share, A (&of_p)[kValues],
                                 A (&of_q)[kValues], const A (&p)[kValues], const A (&q)[kValues],
                                 const A (&divergences)[2]) const {
    store_gradient<kWidth>(term.p_grad, at, share, of_p, p, divergences[0], p_weight);
    store_gradient<kWidth>(term.q_grad, at, share, of_q, q, divergences[1], q_weight);
  }
};

// Rows whose classes the threads hold, read once.
template <class T, class Group, int kValues, int kWidth>
struct MixtureInRegisters {
  using A = Accumulate<T>;
  static constexpr int kMinBlocks = 1;
  static constexpr int kMost = Group::kColumns && kValues > 8 ? 256 : kMaxThreads<T>;
  static constexpr bool kAhead = false;

  GK_DEVICE void begin(const DivergenceTerm&, const Share&, Group&) {}

  GK_DEVICE A row(const DivergenceTerm& term, const Turn& turn, const Turn&, Group& group) {
    const Position at = turn.at;
    const Share& share = turn.share;
    A p[kValues], q[kValues], top[2] = {-infinity<A>(), -infinity<A>()};
    Streamed<T, true, Group, kValues, kWidth>::load_logits(q, p, term, at, share);
#pragma unroll
    for (int v = 0; v < kValues; ++v) top[0] = max_of(top[0], p[v]), top[1] = max_of(top[1], q[v]);
    group.template reduce<Larger>(top);
    A sums[2] = {0, 0};
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      p[v] = exp_for<T>(p[v] - top[0]), q[v] = exp_for<T>(q[v] - top[1]);
      sums[0] += p[v], sums[1] += q[v];
    }
    group.template reduce<Plus>(sums);
    const A p_scale = A(1) / sums[0], q_scale = A(1) / sums[1];
    const Mixture<T> mixture(term);
    A of_p[kValues], of_q[kValues], divergences[2] = {0, 0};
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      p[v] = mixture.probability(p[v], p_scale), q[v] = mixture.probability(q[v], q_scale);
      of_p[v] = mixture.part_of_p(p[v], q[v]), of_q[v] = mixture.part_of_q(p[v], q[v]);
      divergences[0] += of_p[v], divergences[1] += of_q[v];
    }
    group.template reduce<Plus>(divergences);
    mixture.template store_gradients<kWidth>(term, at, share, of_p, of_q, p, q, divergences);
    return mixture.loss(divergences);
  }
};

// Longer rows, read three times in chunks: maxima and sums, then the divergences, then the gradients.
template <class T, class Group, int kValues, int kWidth>
struct StreamedMixture {
  using A = Accumulate<T>;
  using Walk = Streamed<T, true, Group, kValues, kWidth>;
  static constexpr int kMost = kMaxThreads<T>;
  static constexpr int kMinBlocks = 1;
  static constexpr bool kAhead = false;

  GK_DEVICE void begin(const DivergenceTerm&, const Share&, Group&) {}

  GK_DEVICE A row(const DivergenceTerm& term, const Turn& turn, const Turn&, Group& group) {
    OnlineSums<T, false> p_sums, q_sums;
    Walk::each_chunk(turn.share, [&](const Share& chunk) {
      A p[kValues], q[kValues];
      Walk::load_logits(q, p, term, turn.at, chunk);
      p_sums.template add<kWidth>(p, p, chunk), q_sums.template add<kWidth>(q, q, chunk);
    });
    p_sums.reduce(group), q_sums.reduce(group);
    p_sums.finish(), q_sums.finish();
    const A p_scale = A(1) / p_sums.q, q_scale = A(1) / q_sums.q;
    const Mixture<T> mixture(term);
    // f(chunk, p, q, their parts)
    const auto each = [&](auto&& f) {
      Walk::each_chunk(turn.share, [&](const Share& chunk) {
        A p[kValues], q[kValues], of_p[kValues], of_q[kValues];
        Walk::load_logits(q, p, term, turn.at, chunk);
#pragma unroll
        for (int v = 0; v < kValues; ++v) {
          p[v] = mixture.probability(exp_for<T>(p[v] - p_sums.q_top), p_scale);
          q[v] = mixture.probability(exp_for<T>(q[v] - q_sums.q_top), q_scale);
          of_p[v] = mixture.part_of_p(p[v], q[v]), of_q[v] = mixture.part_of_q(p[v], q[v]);
        }
        f(chunk, p, q, of_p, of_q);
      });
    };
    A divergences[2] = {0, 0};
    each([&](const Share&, auto&, auto&, auto& of_p, auto& of_q) {
#pragma unroll
      for (int v = 0; v < kValues; ++v) divergences[0] += of_p[v], divergences[1] += of_q[v];
    });
    group.template reduce<Plus>(divergences);
    if (term.p_grad.data != nullptr || term.q_grad.data != nullptr) {
      each([&](const Share& chunk, auto& p, auto& q, auto& of_p, auto& of_q) {
        mixture.template store_gradients<kWidth>(term, turn.at, chunk, of_p, of_q, p, q, divergences);
      });
    }
    return mixture.loss(divergences);
  }
};

}  // namespace gankernels::cuda
