// softmax + KL divergence and its gradients for one row, held in the registers of the threads that share it.
//
// With t = q_logits - max, B = P - M for anchors (B = -M beside P = softmax(p_logits)) and S = sum P - sum M:
//   loss = sum P log P - sum M log M - sum P t + sum M t + S log sum exp t,   d/dq_logits = S q - P + M
//   P = softmax(p_logits), u = p_logits - max:  sum P log P = sum P u - log sum exp u,
//   d/dp_logits = P (u - t - sum P (u - t)): the log-sum-exp of q drops out
// Logits are multiplied by the inverse of their temperature where they are read.
#pragma once

#include "group.cuh"

namespace gankernels::cuda {

// What anchors contribute: B for the classes of this thread, sum P log P - sum M log M, and S without a softmax's 1.
template <class A, int kValues>
struct Anchors {
  A b[kValues];
  A entropy = 0, mass = 0;

  template <class T, int kWidth, class Group>
  GK_DEVICE void load(const DivergenceTerm& term, Position at, const Share& share, Group& group) {
    if (term.positive.rows.data == nullptr && term.negative.rows.data == nullptr) {
#pragma unroll
      for (int v = 0; v < kValues; ++v) b[v] = A(0);
      return;
    }
    A sums[2] = {0, 0};
    // Run by run: two arrays of all values would be more than the registers.
#pragma unroll
    for (int i = 0; i < kValues; i += kWidth) {
      A plus[kWidth], minus[kWidth];
      load_target<T, kWidth>(plus, term.positive, at, share.run(i));
      load_target<T, kWidth>(minus, term.negative, at, share.run(i));
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        sums[0] += x_log_x<T>(plus[j]) - x_log_x<T>(minus[j]);
        b[i + j] = plus[j] - minus[j];
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
GK_DEVICE void store_target_grad(const DivergenceTerm& term, Position at, const A (&x)[kValues], const Share& share) {
  const Rows& rows = term.target_grad;
  if (std::is_same_v<T, A> || term.positive.wide) store<kWidth>(row_of<A>(rows, at), rows.cls, x, share);
  else store<kWidth>(row_of<T>(rows, at), rows.cls, x, share);
}

// f(the run's first value) for this thread's runs of classes that the row has.
template <int kWidth, int kValues, class F>
GK_DEVICE void each_run_within(const Share& share, F&& f) {
#pragma unroll
  for (int i = 0; i < kValues; i += kWidth)
    if (share.at<kWidth>(i) < share.classes) f(i);
}

// sum b t with 0 * (-inf) = 0; a NaN in b stays. Masked only where the plain sum tells that it has to be.
template <int kWidth, class A, int kValues>
GK_DEVICE A masked_dot(const A (&b)[kValues], const A (&t)[kValues], const Share& share) {
  A sum = 0;
  each_run_within<kWidth, kValues>(share, [&](int i) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum = fma_of(b[i + j], t[i + j], sum);
  });
  if (sum == sum) return sum;
  sum = 0;
  each_run_within<kWidth, kValues>(share, [&](int i) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += masked_product(b[i + j], t[i + j]);
  });
  return sum;
}

// P is an anchor, or a target whose gradient is asked for. Overwrites the logits z; returns the row's loss.
template <class T, bool kTargetGrad, int kWidth, class A, int kValues, class Group>
GK_DEVICE A anchor_row(const DivergenceTerm& term, Position at, const Share& share, A (&z)[kValues],
                       const Anchors<A, kValues>& anchors, Group& group) {
  const A inverse = static_cast<A>(term.q_inverse);
  A top[1] = {-infinity<A>()};
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    z[v] *= inverse;
    top[0] = max_of(top[0], z[v]);
  }
  group.template reduce<Larger>(top);
#pragma unroll
  for (int v = 0; v < kValues; ++v) z[v] -= top[0];
  A sums[2] = {0, masked_dot<kWidth>(anchors.b, z, share)};
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    const A e = exp_for<T>(z[v]);
    sums[0] += e;
    if constexpr (!kTargetGrad) z[v] = e;
  }
  group.template reduce<Plus>(sums);
  const A log_sum = log_of(sums[0]);
  if constexpr (kTargetGrad) {
    const A weight = static_cast<A>(term.target_weight);
    A g[kValues];
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      g[v] = target_slope(anchors.b[v], z[v] - log_sum, weight, sums[0] - sums[0]);
      z[v] = exp_for<T>(z[v]);
    }
    store_target_grad<T, kWidth>(term, at, g, share);
  }
  if (term.q_grad.data != nullptr) {
    const A weight = static_cast<A>(term.q_weight), scale = anchors.mass / sums[0];
#pragma unroll
    for (int v = 0; v < kValues; ++v) z[v] = weight * fma_of(z[v], scale, -anchors.b[v]);
    store<kWidth>(row_of<T>(term.q_grad, at), term.q_grad.cls, z, share);
  }
  return anchors.entropy + anchors.mass * log_sum - sums[1];
}

// P = softmax(p_logits).
template <class T, int kWidth, class A, int kValues, class Group>
GK_DEVICE A softmax_row(const DivergenceTerm& term, Position at, const Share& share, const Anchors<A, kValues>& anchors,
                        Group& group) {
  const A p_inverse = static_cast<A>(term.p_inverse), q_inverse = static_cast<A>(term.q_inverse);
  A u[kValues], t[kValues], p[kValues], top[2] = {-infinity<A>(), -infinity<A>()};
  load<kWidth>(u, row_of<const T>(term.p_logits, at), term.p_logits.cls, share, -infinity<A>());
  load<kWidth>(t, row_of<const T>(term.q_logits, at), term.q_logits.cls, share, -infinity<A>());
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    u[v] *= p_inverse, t[v] *= q_inverse;
    top[0] = max_of(top[0], u[v]), top[1] = max_of(top[1], t[v]);
  }
  group.template reduce<Larger>(top);
  A sums[5] = {0, 0, 0, 0, 0};  // exp u, exp t, exp(u) u, exp(u) t, B t
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    u[v] -= top[0], t[v] -= top[1];
    p[v] = exp_for<T>(u[v]);
    sums[0] += p[v];
  }
  sums[2] = masked_dot<kWidth>(p, u, share);
  sums[3] = masked_dot<kWidth>(p, t, share);
  sums[4] = masked_dot<kWidth>(anchors.b, t, share);
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    u[v] -= t[v];
    t[v] = exp_for<T>(t[v]);
    sums[1] += t[v];
  }
  group.template reduce<Plus>(sums);
  const A r = A(1) / sums[0], mean_u = sums[2] * r, mean_t = sums[3] * r;
  const A mass = A(1) + anchors.mass, bad = sums[1] - sums[1];
  if (term.p_grad.data != nullptr) {
    const A mean_d = mean_u - mean_t + bad, weight_r = static_cast<A>(term.p_weight) * r;
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const A slope = p[v] * weight_r;
      u[v] = slope == A(0) ? bad : slope * (u[v] - mean_d);
    }
    store<kWidth>(row_of<T>(term.p_grad, at), term.p_grad.cls, u, share);
  }
  if (term.q_grad.data != nullptr) {
    const A weight = static_cast<A>(term.q_weight), scale = mass / sums[1];
#pragma unroll
    for (int v = 0; v < kValues; ++v) t[v] = weight * fma_of(t[v], scale, -fma_of(p[v], r, anchors.b[v]));
    store<kWidth>(row_of<T>(term.q_grad, at), term.q_grad.cls, t, share);
  }
  return bad + anchors.entropy + mean_u - log_of(sums[0]) - mean_t - sums[4] + mass * log_of(sums[1]);
}

// Threads of a block, at most: 128 registers each where it has 512, 255 where it has 256, so that no instance spills.
template <class T>
constexpr int kMaxThreads = sizeof(T) == 8 ? 256 : 512;

// A term's rows, dealt out to the blocks in turn.
template <class T, Positive kPositive, class Group, int kValues, int kWidth>
struct InRegisters {
  using A = Accumulate<T>;
  // 64 registers suffice where one array of logits is read in few accesses: twice the threads, twice the bytes in
  // flight.
  static constexpr int kMinBlocks = kPositive == Positive::kAnchor && kWidth > 1 && kValues == 8 ? 2 : 1;

  // Threads of a block, at most: 168 registers each, or 255, where one holds many classes of rows side by side.
  static constexpr int kMost = !(Group::kColumns && kValues > 8) ? kMaxThreads<T>
                               : kPositive == Positive::kSoftmax ? 256
                                                                 : 384;

  // The next row's logits are on their way while a row is computed.
  static constexpr bool kAhead = kPositive != Positive::kSoftmax && sizeof(T) < 8;

  Anchors<A, kValues> anchors;
  Raw<T, kAhead ? kValues : kWidth, kWidth> ahead;

  GK_DEVICE void fetch(const DivergenceTerm& term, const Turn& turn) {
    ahead.load(row_of<const T>(term.q_logits, turn.at), term.q_logits.cls, turn.share);
  }

  GK_DEVICE void begin(const DivergenceTerm& term, const Share& share, Group& group) {
    if (all_shared(term)) anchors.template load<T, kWidth>(term, Position{0, 0}, share, group);
  }

  GK_DEVICE A row(const DivergenceTerm& term, const Turn& turn, const Turn& next, Group& group) {
    const Position at = turn.at;
    const Share& share = turn.share;
    if (!all_shared(term)) anchors.template load<T, kWidth>(term, at, share, group);
    if constexpr (kPositive == Positive::kSoftmax) {
      return softmax_row<T, kWidth>(term, at, share, anchors, group);
    } else {
      A z[kValues];
      if constexpr (kAhead) {
        ahead.widen_from(z, 0);
        fetch(term, next);
      } else {
        load<kWidth>(z, row_of<const T>(term.q_logits, at), term.q_logits.cls, share, -infinity<A>());
      }
      return anchor_row<T, kPositive == Positive::kTarget, kWidth>(term, at, share, z, anchors, group);
    }
  }

  GK_DEVICE static bool all_shared(const DivergenceTerm& term) { return term.positive.shared && term.negative.shared; }
};

}  // namespace gankernels::cuda
