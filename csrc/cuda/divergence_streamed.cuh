// The same divergences for rows too long for registers: the logits are read twice, in chunks.
//
// First reading: the maximum and the sums relative to it, moved along whenever a chunk raises the maximum (online
// softmax). Second reading: the gradients, and the products with the anchors.
#pragma once

#include "divergence.cuh"

namespace gankernels::cuda {

// The point that exponents are taken from: any will do while nothing but -inf has been seen.
template <class A>
GK_DEVICE A reference(A top) {
  return top == -infinity<A>() ? A(0) : top;
}

// sum exp t over what has been seen; with P = softmax(p_logits) also sum exp u, sum exp(u) u and sum exp(u) t.
template <class T, bool kSoftmax>
struct OnlineSums {
  using A = Accumulate<T>;
  A q_top = -infinity<A>(), p_top = -infinity<A>();
  A q = 0, p = 0, pu = 0, pt = 0;

  // Makes the sums relative to new maxima, no smaller than the old ones.
  GK_DEVICE void rebase(A new_q, A new_p) {
    q *= exp_for<T>(q_top - reference(new_q));
    if constexpr (kSoftmax) {
      const A scale = exp_for<T>(p_top - reference(new_p));
      pt = masked_product(scale, pt + masked_product(p, reference(q_top) - reference(new_q)));
      pu = masked_product(scale, pu + masked_product(p, p_top - reference(new_p)));
      p *= scale;
    }
    q_top = new_q, p_top = new_p;
  }

  // A chunk of both rows, which this overwrites.
  template <int kWidth, int kValues>
  GK_DEVICE void add(A (&z)[kValues], A (&a)[kValues], const Share& chunk) {
    A new_q = q_top, new_p = p_top;
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      new_q = max_of(new_q, z[v]);
      if constexpr (kSoftmax) new_p = max_of(new_p, a[v]);
    }
    rebase(new_q, new_p);
    const A q_reference = reference(q_top), p_reference = reference(p_top);
    A e[kValues];
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      z[v] -= q_reference;
      q += exp_for<T>(z[v]);
      if constexpr (kSoftmax) {
        a[v] -= p_reference;
        e[v] = exp_for<T>(a[v]);
        p += e[v];
      }
    }
    if constexpr (kSoftmax) {
      pu += masked_dot<kWidth>(e, a, chunk);
      pt += masked_dot<kWidth>(e, z, chunk);
    }
  }

  // Every thread's sums, added up.
  template <class Group>
  GK_DEVICE void reduce(Group& group) {
    A top[2] = {q_top, p_top};
    group.template reduce<Larger>(top);
    rebase(top[0], top[1]);
    A sums[4] = {q, p, pu, pt};
    group.template reduce<Plus>(sums);
    q = sums[0], p = sums[1], pu = sums[2], pt = sums[3];
  }

  // For the sums of a whole row: one of nothing but -inf is NaN, as one with +inf is already.
  GK_DEVICE void finish() {
    q += q_top - q_top;
    if constexpr (kSoftmax) p += p_top - p_top;
  }
};

template <class T, bool kSoftmax, class Group, int kValues, int kWidth>
struct Streamed {
  using A = Accumulate<T>;
  using Sums = OnlineSums<T, kSoftmax>;
  static constexpr int kMost = kMaxThreads<T>;
  static constexpr int kMinBlocks = !kSoftmax && kWidth > 1 && sizeof(T) < 8 ? 2 : 1;
  static constexpr bool kAhead = false;
  static constexpr int kRun = kWidth;  // classes of an access

  A entropy = 0, mass = 0;

  // f(share of a chunk) over the row, or the part of it that begins at the share's first class.
  template <class F>
  GK_DEVICE static void each_chunk(const Share& share, F&& f) {
    Share chunk = share;
    const int step = share.size * kValues;
    // Unsigned: the step past the last chunk may leave int.
    for (unsigned first = share.first; first < static_cast<unsigned>(share.classes); first += step) {
      chunk.first = static_cast<int>(first);
      f(chunk);
    }
  }

  GK_DEVICE static void load_anchor(A (&b)[kValues], A (&minus)[kValues], const DivergenceTerm& term, Position at,
                                    const Share& share) {
    load_target<T, kWidth>(b, term.positive, at, share);
    load_target<T, kWidth>(minus, term.negative, at, share);
  }

  GK_DEVICE void sum_anchors(const DivergenceTerm& term, Position at, const Share& share, Group& group) {
    A sums[2] = {0, 0};
    each_chunk(share, [&](const Share& chunk) {
      A plus[kValues], minus[kValues];
      load_anchor(plus, minus, term, at, chunk);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        sums[0] += x_log_x<T>(plus[v]) - x_log_x<T>(minus[v]);
        sums[1] += plus[v] - minus[v];
      }
    });
    group.template reduce<Plus>(sums);
    entropy = sums[0], mass = sums[1];
  }

  GK_DEVICE void begin(const DivergenceTerm& term, const Share& share, Group& group) {
    if (term.positive.shared && term.negative.shared) sum_anchors(term, Position{0, 0}, share, group);
  }

  GK_DEVICE static void load_logits(A (&z)[kValues], A (&a)[kValues], const DivergenceTerm& term, Position at,
                                    const Share& share) {
    load<kWidth>(z, row_of<const T>(term.q_logits, at), term.q_logits.cls, share, -infinity<A>());
    if constexpr (kSoftmax)
      load<kWidth>(a, row_of<const T>(term.p_logits, at), term.p_logits.cls, share, -infinity<A>());
    const A q_inverse = static_cast<A>(term.q_inverse), p_inverse = static_cast<A>(term.p_inverse);
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      z[v] *= q_inverse;
      if constexpr (kSoftmax) a[v] *= p_inverse;
    }
  }

  GK_DEVICE A row(const DivergenceTerm& term, const Turn& turn, const Turn&, Group& group) {
    const Position at = turn.at;
    const Share& share = turn.share;
    if (!(term.positive.shared && term.negative.shared)) sum_anchors(term, at, share, group);
    Sums sums = first_reading(term, at, share, group);
    sums.finish();
    A dot[1] = {second_reading(term, at, share, sums)};
    group.template reduce<Plus>(dot);
    return loss(sums, dot[0]);
  }

  GK_DEVICE static Sums first_reading(const DivergenceTerm& term, Position at, const Share& share, Group& group) {
    Sums sums;
    each_chunk(share, [&](const Share& chunk) {
      A z[kValues], a[kValues];
      load_logits(z, a, term, at, chunk);
      sums.template add<kWidth>(z, a, chunk);
    });
    sums.reduce(group);
    return sums;
  }

  // Of a row, from its sums and sum B t.
  GK_DEVICE A loss(const Sums& sums, A dot) const {
    const A log_sum = log_of(sums.q), first = entropy - dot;
    if constexpr (!kSoftmax) return first + mass * log_sum;
    else return first + (sums.pu - sums.pt) / sums.p - log_of(sums.p) + (A(1) + mass) * log_sum;
  }

  // Writes the gradients; returns this thread's part of sum B t.
  GK_DEVICE A second_reading(const DivergenceTerm& term, Position at, const Share& share, const Sums& sums) const {
    const A weight = static_cast<A>(term.q_weight), bad = sums.q - sums.q, log_sum = log_of(sums.q);
    const A total = kSoftmax ? A(1) + mass : mass, scale = weight * total / sums.q;
    const A r = kSoftmax ? A(1) / sums.p : A(0);
    // Beside logits of P the gradient to them has a weight of its own, beside a target that to the target.
    const A other_weight = static_cast<A>(kSoftmax ? term.p_weight : term.target_weight);
    const A mean_d = kSoftmax ? (sums.pu - sums.pt) * r + bad : A(0);
    A dot = 0;
    each_chunk(share, [&](const Share& chunk) {
      A z[kValues], a[kValues], b[kValues], minus[kValues], g[kValues];
      load_logits(z, a, term, at, chunk);
      load_anchor(b, minus, term, at, chunk);
#pragma unroll
      for (int v = 0; v < kValues; ++v) {
        b[v] -= minus[v];
        z[v] -= sums.q_top;
        if constexpr (kSoftmax) a[v] -= sums.p_top;
      }
      dot += masked_dot<kWidth>(b, z, chunk);
      if constexpr (kSoftmax) {
        A p[kValues];
#pragma unroll
        for (int v = 0; v < kValues; ++v) p[v] = exp_for<T>(a[v]) * r;
        if (term.p_grad.data != nullptr) {
#pragma unroll
          for (int v = 0; v < kValues; ++v) {
            const A slope = p[v] * other_weight;
            g[v] = slope == A(0) ? bad : slope * (a[v] - z[v] - mean_d);
          }
          store<kWidth>(row_of<T>(term.p_grad, at), term.p_grad.cls, g, chunk);
        }
#pragma unroll
        for (int v = 0; v < kValues; ++v) b[v] = weight * (b[v] + p[v]);
      } else {
        if (term.target_grad.data != nullptr) {
#pragma unroll
          for (int v = 0; v < kValues; ++v) g[v] = target_slope(b[v], z[v] - log_sum, other_weight, bad);
          store_target_grad<T, kWidth>(term, at, g, chunk);
        }
#pragma unroll
        for (int v = 0; v < kValues; ++v) b[v] *= weight;
      }
      if (term.q_grad.data == nullptr) return;
#pragma unroll
      for (int v = 0; v < kValues; ++v) g[v] = fma_of(exp_for<T>(z[v]), scale, -b[v]);
      store<kWidth>(row_of<T>(term.q_grad, at), term.q_grad.cls, g, chunk);
    });
    return dot;
  }
};

}  // namespace gankernels::cuda
