// The same divergences for rows that fit in registers as they lie in memory, but not beside their anchors.
//
// The logits are read once, and what is computed from them is computed anew for each sum: maximum, sum of exponentials,
// gradients. The anchors, which all rows share, are read again for every row, from the cache.
#pragma once

#include "divergence_streamed.cuh"

namespace gankernels::cuda {

template <class T, class Group, int kValues, int kWidth>
struct Packed {
  using A = Accumulate<T>;
  static constexpr int kMost = kMaxThreads<T>;
  static constexpr int kMinBlocks = 1;
  // Where two rows fit, one of them is on its way while the other is computed.
  static constexpr bool kAhead = sizeof(T) * kValues <= 128;

  Streamed<T, false, Group, kWidth, kWidth> anchors;
  Raw<T, kValues, kWidth> ahead;

  GK_DEVICE void fetch(const DivergenceTerm& term, const Turn& turn) {
    ahead.load(row_of<const T>(term.q_logits, turn.at), term.q_logits.cls, turn.share);
  }

  GK_DEVICE void begin(const DivergenceTerm& term, const Share& share, Group& group) {
    anchors.begin(term, share, group);
  }

  GK_DEVICE A row(const DivergenceTerm& term, const Turn& turn, const Turn& next, Group& group) {
    if (!(term.positive.shared && term.negative.shared)) anchors.sum_anchors(term, turn.at, turn.share, group);
    if constexpr (!kAhead) fetch(term, turn);
    Raw<T, kValues, kWidth> logits = ahead;
    if constexpr (kAhead) fetch(term, next);
    const A inverse = static_cast<A>(term.q_inverse);
    A z[kWidth], top[1] = {-infinity<A>()}, sum[1] = {0};
#pragma unroll
    for (int i = 0; i < kValues; i += kWidth) {
      logits.widen_from(z, i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) top[0] = max_of(top[0], z[j]);
    }
    group.template reduce<Larger>(top);
    top[0] *= inverse;
#pragma unroll
    for (int i = 0; i < kValues; i += kWidth) {
      logits.forget(i);
      logits.widen_from(z, i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum[0] += exp_for<T>(z[j] * inverse - top[0]);
    }
    group.template reduce<Plus>(sum);
    A dot[1] = {gradients(term, turn, logits, top[0], sum[0])};
    group.template reduce<Plus>(dot);
    return anchors.entropy + anchors.mass * log_of(sum[0]) - dot[0];
  }

  // Writes the gradient; returns this thread's part of sum B t.
  GK_DEVICE A gradients(const DivergenceTerm& term, const Turn& turn, Raw<T, kValues, kWidth>& logits, A top,
                        A sum) const {
    const A weight = static_cast<A>(term.q_weight), scale = anchors.mass / sum;
    const A inverse = static_cast<A>(term.q_inverse);
    T* out = term.q_grad.data == nullptr ? nullptr : row_of<T>(term.q_grad, turn.at);
    A dot = 0;
    each_run_within<kWidth, kValues>(turn.share, [&](int i) {
      const Share run = turn.share.run(i);
      logits.forget(i);
      A z[kWidth], b[kWidth], minus[kWidth];
      anchors.load_anchor(b, minus, term, turn.at, run);
      logits.widen_from(z, i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) b[j] -= minus[j], z[j] = z[j] * inverse - top;
      dot += masked_dot<kWidth>(b, z, run);
      if (out == nullptr) return;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) z[j] = weight * fma_of(exp_for<T>(z[j]), scale, -b[j]);
      store<kWidth>(out, term.q_grad.cls, z, run);
    });
    return dot;
  }
};

}  // namespace gankernels::cuda
