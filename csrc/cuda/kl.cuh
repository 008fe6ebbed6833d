// softmax + KL divergence and its gradients for one row, held in the registers of the threads that share it.
//
// With t = q_logits - max, B = P - M for anchors (B = -M beside P = softmax(p_logits)) and S = sum P - sum M:
//   loss = sum P log P - sum M log M - sum P t + sum M t + S log sum exp t,   d/dq_logits = S q - P + M
//   P = softmax(p_logits), u = p_logits - max:  sum P log P = sum P u - log sum exp u,
//   d/dp_logits = P (u - t - sum P (u - t)): the log-sum-exp of q drops out
#pragma once

#include "group.cuh"

namespace gankernels::cuda {

// What anchors contribute: B for the classes of this thread, sum P log P - sum M log M, and S without a softmax's 1.
template <class A, int kValues>
struct Anchors {
  A b[kValues];
  A entropy = 0, mass = 0;

  template <class T, int kWidth, class Group>
  GK_DEVICE void load(const KlTerm& term, Position at, const Share& share, Group& group) {
    A sums[2] = {0, 0};
    load_target<T, kWidth>(b, term.positive, at, share);
#pragma unroll
    for (int v = 0; v < kValues; ++v) sums[0] += x_log_x(b[v]);
    if (term.negative.rows.data != nullptr) {
      A minus[kValues];
      load_target<T, kWidth>(minus, term.negative, at, share);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        sums[0] -= x_log_x(minus[v]);
        b[v] -= minus[v];
      }
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) sums[1] += b[v];
    group.template reduce<Plus>(sums);
    entropy = sums[0], mass = sums[1];
  }
};

// d/dP KL(P || q) = log P + 1 - log q, and 0 where P = 0; `bad` is NaN in a row that log_softmax makes NaN.
template <class A>
GK_DEVICE A target_slope(A p, A log_q, A weight, A bad) {
  return p == A(0) ? bad : weight * (log_of(p) + A(1) - log_q);
}

template <class T, int kWidth, class A, int kValues>
GK_DEVICE void store_target_grad(const KlTerm& term, Position at, const A (&x)[kValues], const Share& share) {
  const Rows& rows = term.target_grad;
  if (std::is_same_v<T, A> || term.positive.wide) store<kWidth>(row_of<A>(rows, at), rows.cls, x, share);
  else store<kWidth>(row_of<T>(rows, at), rows.cls, x, share);
}

// P is an anchor, or a target whose gradient is asked for. Returns the row's loss.
template <class T, bool kTargetGrad, int kWidth, class A, int kValues, class Group>
GK_DEVICE A anchor_row(const KlTerm& term, Position at, const Share& share, const Anchors<A, kValues>& anchors,
                       Group& group) {
  const A weight = static_cast<A>(term.weight);
  A z[kValues], top[1] = {-infinity<A>()};
  load<kWidth>(z, row_of<const T>(term.q_logits, at), term.q_logits.cls, share, -infinity<A>());
#pragma unroll
  for (int v = 0; v < kValues; ++v) top[0] = max_of(top[0], z[v]);
  group.template reduce<Larger>(top);
  A sums[2] = {0, 0};
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const A t = z[v] - top[0], e = exp_of(t);
    sums[0] += e;
    sums[1] += masked_product(anchors.b[v], t);
    z[v] = kTargetGrad ? t : e;
  }
  group.template reduce<Plus>(sums);
  const A log_sum = log_of(sums[0]);
  if constexpr (kTargetGrad) {
    A g[kValues];
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      g[v] = target_slope(anchors.b[v], z[v] - log_sum, weight, sums[0] - sums[0]);
      z[v] = exp_of(z[v]);
    }
    store_target_grad<T, kWidth>(term, at, g, share);
  }
  if (term.q_grad.data != nullptr) {
    const A scale = weight * anchors.mass / sums[0];
#pragma unroll
    for (int v = 0; v < kValues; ++v) z[v] = z[v] * scale - weight * anchors.b[v];
    store<kWidth>(row_of<T>(term.q_grad, at), term.q_grad.cls, z, share);
  }
  return anchors.entropy + anchors.mass * log_sum - sums[1];
}

// P = softmax(p_logits).
template <class T, int kWidth, class A, int kValues, class Group>
GK_DEVICE A softmax_row(const KlTerm& term, Position at, const Share& share, const Anchors<A, kValues>& anchors,
                        Group& group) {
  const A weight = static_cast<A>(term.weight);
  A p[kValues], q[kValues], d[kValues], top[2] = {-infinity<A>(), -infinity<A>()};
  load<kWidth>(p, row_of<const T>(term.p_logits, at), term.p_logits.cls, share, -infinity<A>());
  load<kWidth>(q, row_of<const T>(term.q_logits, at), term.q_logits.cls, share, -infinity<A>());
#pragma unroll
  for (int v = 0; v < kValues; ++v) top[0] = max_of(top[0], p[v]), top[1] = max_of(top[1], q[v]);
  group.template reduce<Larger>(top);
  A sums[5] = {0, 0, 0, 0, 0};  // exp u, exp t, exp(u) u, exp(u) t, B t
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const A u = p[v] - top[0], t = q[v] - top[1];
    p[v] = exp_of(u), q[v] = exp_of(t), d[v] = u - t;
    sums[0] += p[v];
    sums[1] += q[v];
    sums[2] += masked_product(p[v], u);
    sums[3] += masked_product(p[v], t);
    sums[4] += masked_product(anchors.b[v], t);
  }
  group.template reduce<Plus>(sums);
  const A r = A(1) / sums[0], mean_u = sums[2] * r, mean_t = sums[3] * r;
  const A mass = A(1) + anchors.mass, bad = sums[1] - sums[1];
  if (term.p_grad.data != nullptr) {
    const A mean_d = mean_u - mean_t;
#pragma unroll
    for (int v = 0; v < kValues; ++v) d[v] = bad + masked_product(weight * (p[v] * r), d[v] - mean_d);
    store<kWidth>(row_of<T>(term.p_grad, at), term.p_grad.cls, d, share);
  }
  if (term.q_grad.data != nullptr) {
    const A scale = weight * mass / sums[1];
#pragma unroll
    for (int v = 0; v < kValues; ++v) q[v] = q[v] * scale - weight * (p[v] * r + anchors.b[v]);
    store<kWidth>(row_of<T>(term.q_grad, at), term.q_grad.cls, q, share);
  }
  return bad + anchors.entropy + mean_u - log_of(sums[0]) - mean_t - sums[4] + mass * log_of(sums[1]);
}

// A term's rows, dealt out to the blocks in turn.
template <class T, Positive kPositive, class Group, int kValues, int kWidth>
struct InRegisters {
  using A = Accumulate<T>;
  // 64 registers suffice where one array of logits is read in few accesses: twice the threads, twice the bytes in
  // flight.
  static constexpr int kMinBlocks = kPositive == Positive::kAnchor && kWidth > 1 && kValues == 8 ? 2 : 1;

  Anchors<A, kValues> anchors;

  GK_DEVICE void begin(const KlTerm& term, const Share& share, Group& group) {
    if (all_shared(term)) anchors.template load<T, kWidth>(term, Position{0, 0}, share, group);
  }

  GK_DEVICE A row(const KlTerm& term, Position at, const Share& share, Group& group) {
    if (!all_shared(term)) anchors.template load<T, kWidth>(term, at, share, group);
    if constexpr (kPositive == Positive::kSoftmax) return softmax_row<T, kWidth>(term, at, share, anchors, group);
    else return anchor_row<T, kPositive == Positive::kTarget, kWidth>(term, at, share, anchors, group);
  }

  GK_DEVICE static bool all_shared(const KlTerm& term) { return term.positive.shared && term.negative.shared; }
};

}  // namespace gankernels::cuda
