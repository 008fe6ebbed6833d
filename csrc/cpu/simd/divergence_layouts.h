// The divergences of rows as they lie in memory, and of rows that are brought into scratch memory first: those of few
// classes, turned into lanes, and those of logits with a temperature.
#pragma once

#include "divergence.h"

namespace gankernels::GK_ISA {

// ---- temperatures ------------------------------------------------------------------------------------------------

// A multiplication at every logit that the kernels above read would cost those without a temperature, too.
inline bool is_tempered(const DivergenceProblem& p) { return p.q_inverse != 1 || p.p_inverse != 1; }

// The problem on operands of the accumulation dtype.
template <class A>
GK_INLINE DivergenceProblem in_scratch(const DivergenceProblem& p) {
  DivergenceProblem block = p;
  block.target_like_logits = false;
  block.dtype = std::is_same_v<A, double> ? Dtype::kDouble : Dtype::kFloat;
  return block;
}

template <class T, bool kClassContiguous>
double kl_tempered(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  using A = Accumulate<T>;
  DivergenceProblem block = in_scratch<A>(p);
  block.rows = block.inner_rows = 1;
  double total = 0;
  each_tile<A, kClassContiguous>(p, begin, end, [&](const auto& tile) {
    int used = 0;
    const auto lend = [&](const Rows& rows, Rows& lent) {
      if (rows.data == nullptr) return;
      lent = Rows{tile.buffer(scratch, used++).p, 0, 1, kClassContiguous ? 1 : lanes<A>};
    };
    const auto take = [&](const Rows& rows, Rows& lent, auto* type, double factor) {
      lend(rows, lent);
      if (rows.data == nullptr) return;
      const auto from = tile.template operand<const std::remove_pointer_t<decltype(type)>>(rows);
      const Operand<A> to{static_cast<A*>(lent.data), lanes<A>};
      tile.each([&](int64_t k, auto n) { tile.put(to, k, Vec<A>(tile.get(from, k, n) * static_cast<A>(factor)), n); });
    };
    const auto give = [&](const Rows& rows, const Rows& lent, auto* type) {
      if (rows.data == nullptr) return;
      const auto to = tile.template operand<std::remove_pointer_t<decltype(type)>>(rows);
      const Operand<A> from{static_cast<A*>(lent.data), lanes<A>};
      tile.each([&](int64_t k, auto n) { tile.put(to, k, tile.get(from, k, n), n); });
    };
    const auto of_target = [&](auto&& move) {
      if (p.target_like_logits) move(static_cast<T*>(nullptr));
      else move(static_cast<A*>(nullptr));
    };
    T* logits = nullptr;
    take(p.q_logits, block.q_logits, logits, p.q_inverse), take(p.p_logits, block.p_logits, logits, p.p_inverse);
    of_target([&](auto* type) { take(p.p_target, block.p_target, type, 1); });
    of_target([&](auto* type) { take(p.m_target, block.m_target, type, 1); });
    lend(p.q_grad, block.q_grad), lend(p.p_grad, block.p_grad), lend(p.target_grad, block.target_grad);
    if constexpr (!kClassContiguous) block.rows = block.inner_rows = tile.active;
    if (p.row_loss != nullptr) block.row_loss = static_cast<A*>(p.row_loss) + tile.row;
    total += kl_rows<A, kClassContiguous>(block, 0, block.rows, tile.buffer(scratch, used).p);
    give(p.q_grad, block.q_grad, logits), give(p.p_grad, block.p_grad, logits);
    of_target([&](auto* type) { give(p.target_grad, block.target_grad, type); });
  });
  return total;
}

#if defined(GK_HAS_SHUFFLE)
// ---- few classes, side by side: rows are turned into lanes ---------------------------------------------------------

// Up to `active` rows of `classes` elements at `from`, `stride` apart, into to[class][row].
template <class A, class T>
GK_INLINE void rows_to_lanes(const T* from, int64_t stride, int64_t classes, int active, A* to) {
  for (int64_t k = 0; k < classes; k += lanes<A>) {
    const int count = static_cast<int>(classes - k < lanes<A> ? classes - k : lanes<A>);
    Vec<A> square[lanes<A>];
#pragma GCC unroll 16
    for (int i = 0; i < lanes<A>; ++i)
      square[i] = i < active ? load<A>(from + i * stride + k, Partial{count}) : Vec<A>{};
    transpose<A>(square);
    for (int j = 0; j < count; ++j) store<A>(to + (k + j) * lanes<A>, square[j], Full<A>{});
  }
}

template <class A, class T>
GK_INLINE void lanes_to_rows(const A* from, T* to, int64_t stride, int64_t classes, int active) {
  for (int64_t k = 0; k < classes; k += lanes<A>) {
    const int count = static_cast<int>(classes - k < lanes<A> ? classes - k : lanes<A>);
    Vec<A> square[lanes<A>];
#pragma GCC unroll 16
    for (int j = 0; j < lanes<A>; ++j) square[j] = j < count ? load<A>(from + (k + j) * lanes<A>, Full<A>{}) : Vec<A>{};
    transpose<A>(square);
    for (int i = 0; i < active; ++i) store<A>(to + i * stride + k, square[i], Partial{count});
  }
}

template <class A>
GK_INLINE void temper(const Rows& lent, int64_t size, double inverse) {
  if (lent.data == nullptr || inverse == 1) return;
  A* z = static_cast<A*>(lent.data);
  const Vec<A> factor = splat<A>(static_cast<A>(inverse));
  for (int64_t i = 0; i < size; i += lanes<A>) store<A>(z + i, load<A>(z + i, Full<A>{}) * factor, Full<A>{});
}

// The problem on blocks of rows, each transposed into scratch memory, where every lane holds one row.
template <class T>
double kl_transposed(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  using A = Accumulate<T>;
  const int64_t size = p.classes * lanes<A>;
  A* memory = static_cast<A*>(scratch);
  DivergenceProblem block = in_scratch<A>(p);
  block.class_contiguous = false;
  const auto lend = [&](const Rows& rows, Rows& lent) {
    if (rows.data == nullptr) return;
    lent = Rows{memory, 0, 1, lanes<A>};
    memory += size;
  };
  lend(p.q_logits, block.q_logits), lend(p.p_logits, block.p_logits);
  lend(p.p_target, block.p_target), lend(p.m_target, block.m_target);
  lend(p.q_grad, block.q_grad), lend(p.p_grad, block.p_grad), lend(p.target_grad, block.target_grad);

  double total = 0;
  for (int64_t row = begin; row < end; row += lanes<A>) {
    const int active = static_cast<int>(end - row < lanes<A> ? end - row : lanes<A>);
    block.rows = block.inner_rows = active;
    if (p.row_loss != nullptr) block.row_loss = static_cast<A*>(p.row_loss) + row;
    const auto take = [&](const Rows& rows, const Rows& lent, auto* type) {
      if (rows.data == nullptr) return;
      const auto* from = static_cast<decltype(type)>(rows.data) + row * rows.outer;
      rows_to_lanes<A>(from, rows.outer, p.classes, active, static_cast<A*>(lent.data));
    };
    const auto give = [&](const Rows& rows, const Rows& lent, auto* type) {
      if (rows.data == nullptr) return;
      auto* to = static_cast<decltype(type)>(rows.data) + row * rows.outer;
      lanes_to_rows<A>(static_cast<const A*>(lent.data), to, rows.outer, p.classes, active);
    };
    const auto target = [&](const auto& move, const Rows& rows, const Rows& lent) {
      if (p.target_like_logits) move(rows, lent, static_cast<T*>(nullptr));
      else move(rows, lent, static_cast<A*>(nullptr));
    };
    T* logits = nullptr;
    take(p.q_logits, block.q_logits, logits), take(p.p_logits, block.p_logits, logits);
    temper<A>(block.q_logits, size, p.q_inverse), temper<A>(block.p_logits, size, p.p_inverse);
    target(take, p.p_target, block.p_target), target(take, p.m_target, block.m_target);
    total += kl_rows<A, false>(block, 0, active, memory);
    give(p.q_grad, block.q_grad, logits), give(p.p_grad, block.p_grad, logits);
    target(give, p.target_grad, block.target_grad);
  }
  return total;
}
#endif

template <class T>
double kl_layout(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
#if defined(GK_HAS_SHUFFLE)
  // One row would leave lanes empty at its end, and needs its sums taken across lanes.
  const bool few_classes = p.class_contiguous && p.inner_rows == 1 && p.classes <= kTransposedClasses;
  if (few_classes && end - begin > 1) return kl_transposed<T>(p, begin, end, scratch);
#endif
  if (is_tempered(p))
    return p.class_contiguous ? kl_tempered<T, true>(p, begin, end, scratch)
                              : kl_tempered<T, false>(p, begin, end, scratch);
  if (p.class_contiguous) return kl_rows<T, true>(p, begin, end, scratch);
  return kl_rows<T, false>(p, begin, end, scratch);
}

inline double kl(const DivergenceProblem& p, int64_t begin, int64_t end, void* scratch) {
  switch (p.dtype) {
    case Dtype::kHalf: return kl_layout<Half>(p, begin, end, scratch);
    case Dtype::kBFloat16: return kl_layout<BFloat16>(p, begin, end, scratch);
    case Dtype::kFloat: return kl_layout<float>(p, begin, end, scratch);
    default: return kl_layout<double>(p, begin, end, scratch);
  }
}

}  // namespace gankernels::GK_ISA
