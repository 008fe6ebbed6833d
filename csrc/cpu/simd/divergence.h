// softmax + KL divergence and its gradients, one exponential per element, for rows of any layout.
//
// The mathematics is written once over `Tile`: either one row whose classes fill the lanes (class stride 1), or one row
// per lane (row stride 1). Only loading and reducing differ.
#pragma once

#include <limits>

#include "../kernels.h"
#include "elementary.h"

namespace gankernels::GK_ISA {

template <class T>
struct Operand {
  T* p;
  int64_t step;
};

template <class A, bool kClassContiguous>
struct Tile {
  const DivergenceProblem& problem;
  int64_t row, outer, inner;  // first row, and its coordinates
  int active;                 // rows in this tile

  template <class T>
  GK_INLINE Operand<T> operand(const Rows& rows) const {
    T* base = static_cast<T*>(rows.data);
    if (base == nullptr) return {nullptr, 0};
    return {base + outer * rows.outer + inner * rows.inner, kClassContiguous ? lanes<A> : rows.cls};
  }

  GK_INLINE Operand<A> buffer(void* scratch, int which) const {
    const int64_t size = (problem.classes + lanes<A>)*(kClassContiguous ? 1 : lanes<A>);
    return {static_cast<A*>(scratch) + which * size, lanes<A>};
  }

  // Vectors of the row, or of the column of rows.
  GK_INLINE int64_t steps() const {
    return kClassContiguous ? (problem.classes + lanes<A> - 1) / lanes<A> : problem.classes;
  }

  // f(step, count of active elements) for the vectors [first, last).
  template <class F>
  GK_INLINE void each(int64_t first, int64_t last, F&& f) const {
    if constexpr (kClassContiguous) {
      const int64_t whole = problem.classes / lanes<A>, full = last < whole ? last : whole;
      for (int64_t k = first; k < full; ++k) f(k, Full<A>{});
      if (last > whole) f(whole, Partial{static_cast<int>(problem.classes % lanes<A>)});
    } else if (active == lanes<A>) {
      for (int64_t k = first; k < last; ++k) f(k, Full<A>{});
    } else {
      for (int64_t k = first; k < last; ++k) f(k, Partial{active});
    }
  }
  template <class F>
  GK_INLINE void each(F&& f) const {
    each(0, steps(), std::forward<F>(f));
  }

  template <class T, class N>
  GK_INLINE Vec<A> get(Operand<T> x, int64_t k, N n, A fill = A{}) const {
    return load<A>(x.p + k * x.step, n, fill);
  }
  template <class T, class N>
  GK_INLINE void put(Operand<T> x, int64_t k, Vec<A> v, N n) const {
    store<A>(x.p + k * x.step, v, n);
  }
  // A vector shared by all rows.
  template <class N>
  GK_INLINE Vec<A> shared(const A* x, int64_t k, N n) const {
    if constexpr (kClassContiguous) return load<A>(x + k * lanes<A>, n);
    return splat<A>(x[k]);
  }
  GK_INLINE Vec<A> sum(Vec<A> v) const {
    if constexpr (kClassContiguous) return splat<A>(reduce_sum<A>(v));
    return v;
  }
  GK_INLINE Vec<A> max(Vec<A> v) const {
    if constexpr (kClassContiguous) return splat<A>(reduce_max<A>(v));
    return v;
  }

  GK_INLINE double emit(Vec<A> loss) const {
    A x[lanes<A>];
    std::memcpy(x, &loss, sizeof(loss));
    A* out = static_cast<A*>(problem.row_loss);
    double total = 0;
    for (int i = 0; i < active; ++i) {
      const double scaled = static_cast<double>(x[i]) * problem.loss_scale;
      total += scaled;
      if (out == nullptr) continue;
      const A value = static_cast<A>(scaled);
      out[row + i] = problem.add_to_row_loss ? out[row + i] + value : value;
    }
    return total;
  }
};

template <class A, bool kClassContiguous, class F>
GK_INLINE void each_tile(const DivergenceProblem& p, int64_t begin, int64_t end, F&& f) {
  for (int64_t row = begin; row < end;) {
    const int64_t outer = row / p.inner_rows, inner = row % p.inner_rows;
    int64_t active = 1;
    if constexpr (!kClassContiguous) {
      active = p.inner_rows - inner;
      if (active > end - row) active = end - row;
      if (active > lanes<A>) active = lanes<A>;
    }
    const Tile<A, kClassContiguous> tile{p, row, outer, inner, static_cast<int>(active)};
    f(tile);
    row += active;
  }
}

// f gives the losses of a tile's rows; their sum.
template <class A, bool kClassContiguous, class F>
GK_INLINE double for_each_tile(const DivergenceProblem& p, int64_t begin, int64_t end, F&& f) {
  double total = 0;
  each_tile<A, kClassContiguous>(p, begin, end, [&](const auto& tile) { total += tile.emit(f(tile)); });
  return total;
}

template <class A>
inline constexpr A kInfinity = std::numeric_limits<A>::infinity();

template <class A, class Tile, class T>
GK_INLINE Vec<A> row_max(const Tile& tile, Operand<T> z) {
  Vec<A> m = splat<A>(-kInfinity<A>);
  tile.each([&](int64_t k, auto n) {
    const Vec<A> x = tile.get(z, k, n, -kInfinity<A>);
    m = max_of<A>(x, m);
  });
  return tile.max(m);
}

// 0 for finite rows, NaN where log_softmax would give NaN: a NaN, a +inf, or nothing but -inf.
template <class A, class Tile, class T>
GK_INLINE Vec<A> poison(const Tile& tile, Operand<T> z, Vec<A> max) {
  Vec<A> bad = max - max;
  tile.each([&](int64_t k, auto n) {
    const Vec<A> x = tile.get(z, k, n);
    bad = x != x ? x : bad;
  });
  return tile.sum(bad);
}

// b * t with 0 * (-inf) = 0; a NaN in b stays.
template <class V>
GK_INLINE V masked_product(V b, V t) {
  return b == 0 ? V{} : V(b * t);
}

// a log a with 0 log 0 = 0.
template <class A>
GK_INLINE Vec<A> x_log_x(Vec<A> a) {
  return a == A(0) ? Vec<A>{} : Vec<A>(a * log<A>(a));
}

// sum + b * t with 0 * (-inf) = 0, rounded as `add_product` rounds it: other rows of a tile may ask for the mask.
template <class V>
GK_INLINE V add_masked_product(V sum, V b, V t) {
  return b == 0 ? sum : V(sum + b * t);
}

// The same, masked only beyond the row's end, where t = -inf and b = 0: NaN tells whether the row has to be masked too.
template <class V, class N>
GK_INLINE V add_product(V sum, V b, V t, N) {
  if constexpr (std::is_same_v<N, Partial>) return add_masked_product(sum, b, t);
  else return sum + b * t;
}

// sum B t of a row, or of a row in each lane.
template <class A, class Tile, class T>
GK_INLINE Vec<A> masked_anchor_dot(const Tile& tile, const A* anchor, Operand<T> z, Vec<A> max) {
  Vec<A> dot{};
  tile.each([&](int64_t k, auto n) {
    dot = add_masked_product(dot, tile.shared(anchor, k, n), Vec<A>(tile.get(z, k, n) - max));
  });
  return tile.sum(dot);
}

// The same from its plain products, unless these were NaN.
template <class A, class Tile, class T>
GK_INLINE Vec<A> anchor_dot(const Tile& tile, Vec<A> plain, const A* anchor, Operand<T> z, Vec<A> max) {
  const A all = reduce_sum<A>(plain);
  return all == all ? tile.sum(plain) : masked_anchor_dot<A>(tile, anchor, z, max);
}

// ---- broadcast anchors: B, S and the entropies are known before the rows are read --------------------------------

template <class T, bool kGradient, class Tile>
GK_INLINE auto anchor_row(const Tile& tile, void* scratch) {
  using A = Accumulate<T>;
  const DivergenceProblem& p = tile.problem;
  const A* anchor = static_cast<const A*>(p.anchor);
  const Vec<A> mass = splat<A>(static_cast<A>(p.mass)), entropy = splat<A>(static_cast<A>(p.entropy));
  const Vec<A> weight = splat<A>(static_cast<A>(p.q_weight));
  const auto z = tile.template operand<const T>(p.q_logits);
  const auto grad = tile.template operand<T>(p.q_grad);
  // Where the gradient has the accumulation type its own memory holds the exponentials in between.
  const auto exps = [&] {
    if constexpr (std::is_same_v<T, A>) return grad;
    else return tile.buffer(scratch, 0);
  }();
  const Vec<A> m = row_max<A>(tile, z);
  Vec<A> s{}, dot{};
  tile.each([&](int64_t k, auto n) {
    const Vec<A> t = tile.get(z, k, n, -kInfinity<A>) - m;
    const Vec<A> e = exp_non_positive<A>(t);
    s += e;
    dot = add_product(dot, tile.shared(anchor, k, n), t, n);
    if constexpr (kGradient) tile.put(exps, k, e, n);
  });
  s = tile.sum(s);
  if constexpr (kGradient) {
    const Vec<A> r = weight * mass / s;
    tile.each([&](int64_t k, auto n) {
      const Vec<A> b = tile.shared(anchor, k, n);
      tile.put(grad, k, tile.get(exps, k, n) * r - weight * b, n);
    });
  }
  return Vec<A>(entropy + mass * log<A>(s) - anchor_dot<A>(tile, dot, anchor, z, m));
}

template <class T, bool kClassContiguous, bool kGradient>
double kl_anchor(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  return for_each_tile<Accumulate<T>, kClassContiguous>(
      p, begin, end, [&](const auto& tile) { return anchor_row<T, kGradient>(tile, scratch); });
}

// Classes beyond which a row leaves the cache between its maximum and its exponentials, and how many it holds.
constexpr int64_t kLongRow = 4096, kChunk = 2048;

// The same, chunk by chunk, each relative to the maximum so far: a row is read from memory once, while computing.
template <class T>
double kl_anchor_long(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  const T* anchor = static_cast<const T*>(p.anchor);
  const Vec<T> mass = splat<T>(static_cast<T>(p.mass)), entropy = splat<T>(static_cast<T>(p.entropy));
  const Vec<T> weight = splat<T>(static_cast<T>(p.q_weight));
  return for_each_tile<T, true>(p, begin, end, [&](const auto& tile) {
    const auto z = tile.template operand<const T>(p.q_logits);
    const auto grad = tile.template operand<T>(p.q_grad);
    const auto tops = tile.buffer(scratch, 0);
    constexpr int64_t step = kChunk / lanes<T>;
    const int64_t chunks = (tile.steps() + step - 1) / step;
    const auto each_of = [&](int64_t chunk, auto&& f) {
      tile.each(chunk * step, chunk + 1 < chunks ? (chunk + 1) * step : tile.steps(), f);
    };
    Vec<T> top = splat<T>(-kInfinity<T>), s{}, dot{}, seen{};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      Vec<T> m = top;
      each_of(chunk, [&](int64_t k, auto n) { m = max_of<T>(tile.get(z, k, n, -kInfinity<T>), m); });
      m = tile.max(m);
      if (chunk > 0) s *= exp_non_positive<T>(top - m), dot += seen * (top - m);
      top = m;
      tile.put(tops, chunk, top, Full<T>{});
      each_of(chunk, [&](int64_t k, auto n) {
        const Vec<T> t = tile.get(z, k, n, -kInfinity<T>) - top, b = tile.shared(anchor, k, n);
        const Vec<T> e = exp_non_positive<T>(t);
        s += e, seen += b;
        dot = add_product(dot, b, t, n);
        tile.put(grad, k, e, n);
      });
    }
    s = tile.sum(s);
    const Vec<T> loss = entropy + mass * log<T>(s) - tile.sum(dot);
    // Infinite logits may have made 0 * inf of a sum: the other way masks that.
    if (const T all = reduce_sum<T>(loss); all != all) return anchor_row<T, true>(tile, scratch);
    const Vec<T> r = weight * mass / s;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Vec<T> scale = r * exp_non_positive<T>(tile.get(tops, chunk, Full<T>{}) - top);
      each_of(chunk, [&](int64_t k, auto n) {
        tile.put(grad, k, tile.get(grad, k, n) * scale - weight * tile.shared(anchor, k, n), n);
      });
    }
    return loss;
  });
}

// S = 0: loss = entropy - sum B t, gradient -B, no exponential.
template <class T, bool kClassContiguous>
double kl_anchor_linear(const DivergenceProblem& p, int64_t begin, int64_t end, void*) {
  using A = Accumulate<T>;
  const A* anchor = static_cast<const A*>(p.anchor);
  const Vec<A> entropy = splat<A>(static_cast<A>(p.entropy)), weight = splat<A>(static_cast<A>(p.q_weight));
  return for_each_tile<A, kClassContiguous>(p, begin, end, [&](const auto& tile) {
    const auto z = tile.template operand<const T>(p.q_logits);
    const auto grad = tile.template operand<T>(p.q_grad);
    const Vec<A> m = row_max<A>(tile, z);
    const Vec<A> bad = poison<A>(tile, z, m);
    if (grad.p != nullptr)
      tile.each([&](int64_t k, auto n) { tile.put(grad, k, bad - weight * tile.shared(anchor, k, n), n); });
    return Vec<A>(bad + entropy - masked_anchor_dot<A>(tile, anchor, z, m));
  });
}

// ---- per-row targets ---------------------------------------------------------------------------------------------

// d/dP = log P + 1 - log q, and 0 where P = 0.
template <class T, class P, bool kClassContiguous>
double kl_target(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  using A = Accumulate<T>;
  const Vec<A> weight = splat<A>(static_cast<A>(p.q_weight));
  const Vec<A> target_weight = splat<A>(static_cast<A>(p.target_weight));
  return for_each_tile<A, kClassContiguous>(p, begin, end, [&](const auto& tile) {
    const auto z = tile.template operand<const T>(p.q_logits);
    const auto positive = tile.template operand<const P>(p.p_target);
    const auto negative = tile.template operand<const P>(p.m_target);
    const auto grad = tile.template operand<T>(p.q_grad);
    const auto target_grad = tile.template operand<P>(p.target_grad);
    const auto exps = tile.buffer(scratch, 0);
    const auto target = [&](auto x, int64_t k, auto n) { return x.p == nullptr ? Vec<A>{} : tile.get(x, k, n); };
    const Vec<A> m = row_max<A>(tile, z);
    Vec<A> s{}, dot{}, entropy{}, mass{};
    tile.each([&](int64_t k, auto n) {
      const Vec<A> plus = target(positive, k, n), minus = target(negative, k, n);
      const Vec<A> t = tile.get(z, k, n, -kInfinity<A>) - m;
      const Vec<A> e = exp_non_positive<A>(t);
      s += e;
      mass += plus - minus;
      entropy += x_log_x<A>(plus) - x_log_x<A>(minus);
      dot = add_masked_product(dot, Vec<A>(plus - minus), t);
      tile.put(exps, k, e, Full<A>{});
    });
    s = tile.sum(s), mass = tile.sum(mass);
    const Vec<A> log_s = log<A>(s);
    if (grad.p != nullptr) {
      const Vec<A> r = weight * mass / s;
      tile.each([&](int64_t k, auto n) {
        const Vec<A> b = target(positive, k, n) - target(negative, k, n);
        tile.put(grad, k, tile.get(exps, k, n) * r - weight * b, n);
      });
    }
    if (target_grad.p != nullptr) {
      const Vec<A> bad = s - s;  // NaN in a row that log_softmax makes NaN, its empty bins included
      tile.each([&](int64_t k, auto n) {
        const Vec<A> a = tile.get(positive, k, n);
        const Vec<A> log_q = tile.get(z, k, n) - m - log_s;
        tile.put(target_grad, k, a == A(0) ? bad : Vec<A>(target_weight * (log<A>(a) + A(1) - log_q)), n);
      });
    }
    return Vec<A>(tile.sum(entropy) + mass * log_s - tile.sum(dot));
  });
}

// ---- P = softmax(p_logits) ---------------------------------------------------------------------------------------

// With u = p_logits - max, t = q_logits - max, d = u - t and S = 1 - sum M:
//   loss = sum P u - log sum exp u - sum M log M - sum (P - M) t + S log sum exp t
//   d/dq_logits = S q - P + M,   d/dp_logits = P (d - sum P d): the log-sum-exp of q drops out.
template <class T, bool kClassContiguous, bool kLinear, bool kRowMinus>
double kl_softmax(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  using A = Accumulate<T>;
  const A* anchor = static_cast<const A*>(p.anchor);
  const Vec<A> weight = splat<A>(static_cast<A>(p.q_weight)), p_weight = splat<A>(static_cast<A>(p.p_weight));
  return for_each_tile<A, kClassContiguous>(p, begin, end, [&](const auto& tile) {
    const auto a = tile.template operand<const T>(p.p_logits);
    const auto z = tile.template operand<const T>(p.q_logits);
    const auto negative = tile.template operand<const A>(p.m_target);
    const auto q_grad = tile.template operand<T>(p.q_grad);
    const auto p_grad = tile.template operand<T>(p.p_grad);
    const auto p_exps = tile.buffer(scratch, 0), q_exps = tile.buffer(scratch, 1);
    const auto minus_at = [&](int64_t k, auto n) {
      if constexpr (kRowMinus) return tile.get(negative, k, n);
      else return anchor == nullptr ? Vec<A>{} : tile.shared(anchor, k, n);
    };
    const Vec<A> a_max = row_max<A>(tile, a), z_max = row_max<A>(tile, z);
    Vec<A> p_sum{}, q_sum{}, dot_u{}, dot_t{}, minus_dot{}, entropy{}, minus_mass{};
    tile.each([&](int64_t k, auto n) {
      const Vec<A> u = tile.get(a, k, n, -kInfinity<A>) - a_max;
      const Vec<A> t = tile.get(z, k, n, -kInfinity<A>) - z_max;
      const Vec<A> e = exp_non_positive<A>(u), minus = minus_at(k, n);
      p_sum += e;
      dot_u = add_product(dot_u, e, u, n);
      dot_t = add_product(dot_t, e, t, n);
      minus_dot = add_product(minus_dot, minus, t, n);
      tile.put(p_exps, k, e, Full<A>{});
      if constexpr (!kLinear) {
        const Vec<A> f = exp_non_positive<A>(t);
        q_sum += f;
        tile.put(q_exps, k, f, Full<A>{});
      }
      if constexpr (kRowMinus) {
        minus_mass += minus;
        entropy -= x_log_x<A>(minus);
      }
    });
    if (const A all = reduce_sum<A>(dot_u + dot_t + minus_dot); all != all) {
      dot_u = dot_t = minus_dot = Vec<A>{};
      tile.each([&](int64_t k, auto n) {
        const Vec<A> u = tile.get(a, k, n, -kInfinity<A>) - a_max, e = tile.get(p_exps, k, n);
        const Vec<A> t = tile.get(z, k, n, -kInfinity<A>) - z_max;
        dot_u = add_masked_product(dot_u, e, u);
        dot_t = add_masked_product(dot_t, e, t);
        minus_dot = add_masked_product(minus_dot, minus_at(k, n), t);
      });
    }
    p_sum = tile.sum(p_sum);
    const Vec<A> r = A(1) / p_sum;
    dot_u = tile.sum(dot_u) * r, dot_t = tile.sum(dot_t) * r;
    Vec<A> mass = splat<A>(static_cast<A>(p.mass)), bad{}, q_scale{}, log_q_sum{};
    if constexpr (kRowMinus) mass = A(1) - tile.sum(minus_mass);
    if constexpr (kLinear) {
      bad = poison<A>(tile, z, z_max);
    } else {
      q_sum = tile.sum(q_sum);
      bad = q_sum - q_sum;
      q_scale = weight * mass / q_sum;
      log_q_sum = log<A>(q_sum);
    }
    if (q_grad.p != nullptr) {
      tile.each([&](int64_t k, auto n) {
        Vec<A> g = bad + weight * (minus_at(k, n) - tile.get(p_exps, k, n) * r);
        if constexpr (!kLinear) g += q_scale * tile.get(q_exps, k, n);
        tile.put(q_grad, k, g, n);
      });
    }
    if (p_grad.p != nullptr) {
      const Vec<A> mean_d = dot_u - dot_t;
      tile.each([&](int64_t k, auto n) {
        const Vec<A> d = (tile.get(a, k, n) - a_max) - (tile.get(z, k, n) - z_max);
        const Vec<A> prob = tile.get(p_exps, k, n) * r;
        tile.put(p_grad, k, Vec<A>(bad + masked_product(Vec<A>(p_weight * prob), Vec<A>(d - mean_d))), n);
      });
    }
    const Vec<A> known = splat<A>(static_cast<A>(p.entropy)) + tile.sum(entropy);
    return Vec<A>(bad + known + dot_u - log<A>(p_sum) - dot_t + tile.sum(minus_dot) + mass * log_q_sum);
  });
}

// ---- two softmaxes and their mixture -----------------------------------------------------------------------------

// A class's part of sum b log(b / m), m / b = own + rest (other / b): of distributions near each other the quotient
// keeps digits that the difference of their logarithms loses.
template <class A>
GK_INLINE Vec<A> part_of_mixture(Vec<A> b, Vec<A> other, Vec<A> own, Vec<A> rest) {
  return masked_product(b, Vec<A>(-log<A>(own + rest * (other / b))));
}

// m = beta p + (1 - beta) q, K_p = sum p log(p / m), K_q = sum q log(q / m):
//   loss = beta K_p + (1 - beta) K_q,   d/dp_logits = beta p (log(p / m) - K_p), d/dq_logits likewise:
// the derivatives by m are beta (m - p) + (1 - beta) (m - q) = 0.
template <class T, bool kClassContiguous>
double kl_mixture(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  using A = Accumulate<T>;
  constexpr A least = std::numeric_limits<A>::min();
  const auto at_least = [](double share) { return splat<A>(share < least ? least : static_cast<A>(share)); };
  const Vec<A> p_share = at_least(p.share), q_share = at_least(1 - p.share);
  return for_each_tile<A, kClassContiguous>(p, begin, end, [&](const auto& tile) {
    const auto p_probs = tile.buffer(scratch, 0), q_probs = tile.buffer(scratch, 1);
    const auto p_parts = tile.buffer(scratch, 2), q_parts = tile.buffer(scratch, 3);
    const auto exponentials = [&](const Rows& logits, auto exps) {
      const auto z = tile.template operand<const T>(logits);
      const Vec<A> top = row_max<A>(tile, z);
      Vec<A> sum{};
      tile.each([&](int64_t k, auto n) {
        const Vec<A> e = exp_non_positive<A>(tile.get(z, k, n, -kInfinity<A>) - top);
        sum += e;
        tile.put(exps, k, e, Full<A>{});
      });
      return Vec<A>(A(1) / tile.sum(sum));
    };
    const Vec<A> p_scale = exponentials(p.p_logits, p_probs), q_scale = exponentials(p.q_logits, q_probs);
    // Without subnormals, whose quotients may be infinite, and whose parts vanish.
    const auto probability = [&](auto exps, int64_t k, Vec<A> scale) {
      const Vec<A> x = tile.get(exps, k, Full<A>{}) * scale;
      return Vec<A>(x < least ? Vec<A>{} : x);
    };
    Vec<A> p_divergence{}, q_divergence{};
    tile.each([&](int64_t k, auto) {
      const Vec<A> x = probability(p_probs, k, p_scale), y = probability(q_probs, k, q_scale);
      const Vec<A> of_p = part_of_mixture<A>(x, y, p_share, q_share), of_q = part_of_mixture<A>(y, x, q_share, p_share);
      p_divergence += of_p, q_divergence += of_q;
      tile.put(p_probs, k, x, Full<A>{}), tile.put(q_probs, k, y, Full<A>{});
      tile.put(p_parts, k, of_p, Full<A>{}), tile.put(q_parts, k, of_q, Full<A>{});
    });
    p_divergence = tile.sum(p_divergence), q_divergence = tile.sum(q_divergence);
    const auto gradient = [&](const Rows& to, auto probs, auto parts, Vec<A> divergence, Vec<A> factor) {
      const auto grad = tile.template operand<T>(to);
      if (grad.p == nullptr) return;
      tile.each([&](int64_t k, auto n) {
        tile.put(grad, k, factor * (tile.get(parts, k, n) - tile.get(probs, k, n) * divergence), n);
      });
    };
    gradient(p.p_grad, p_probs, p_parts, p_divergence, splat<A>(static_cast<A>(p.p_weight)));
    gradient(p.q_grad, q_probs, q_parts, q_divergence, splat<A>(static_cast<A>(p.q_weight)));
    return Vec<A>(p_share * p_divergence + q_share * q_divergence);
  });
}

// ---- choosing the instance ---------------------------------------------------------------------------------------

template <class T, bool kClassContiguous>
double kl_rows(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  using A = Accumulate<T>;
  switch (p.positive) {
    case Positive::kAnchor:
      if (p.linear) return kl_anchor_linear<T, kClassContiguous>(p, begin, end, scratch);
      if (p.q_grad.data == nullptr) return kl_anchor<T, kClassContiguous, false>(p, begin, end, scratch);
      if constexpr (kClassContiguous && std::is_same_v<T, A>)
        if (p.classes > kLongRow) return kl_anchor_long<T>(p, begin, end, scratch);
      return kl_anchor<T, kClassContiguous, true>(p, begin, end, scratch);
    case Positive::kTarget:
      if (p.target_like_logits) return kl_target<T, T, kClassContiguous>(p, begin, end, scratch);
      return kl_target<T, A, kClassContiguous>(p, begin, end, scratch);
    case Positive::kMixture: return kl_mixture<T, kClassContiguous>(p, begin, end, scratch);
    case Positive::kSoftmax: break;
  }
  if (p.linear) return kl_softmax<T, kClassContiguous, true, false>(p, begin, end, scratch);
  if (p.m_target.data == nullptr) return kl_softmax<T, kClassContiguous, false, false>(p, begin, end, scratch);
  return kl_softmax<T, kClassContiguous, false, true>(p, begin, end, scratch);
}

}  // namespace gankernels::GK_ISA
