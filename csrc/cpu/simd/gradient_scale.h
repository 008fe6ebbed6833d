// out = in * factor, rounded once; one factor for all, or one for each row.
#pragma once

#include "../kernels.h"
#include "vec.h"

namespace gankernels::GK_ISA {

template <class T>
void scale_as(const void* in, void* out, int64_t n, double factor) {
  using A = Accumulate<T>;
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
  if (factor == 0) {
    std::memset(out, 0, static_cast<size_t>(n) * sizeof(T));
    return;
  }
  const Vec<A> f = splat<A>(static_cast<A>(factor));
  int64_t i = 0;
  for (; i + lanes<A> <= n; i += lanes<A>) store<A>(y + i, load<A>(x + i, Full<A>{}) * f, Full<A>{});
  if (i < n) {
    const Partial rest{static_cast<int>(n - i)};
    store<A>(y + i, load<A>(x + i, rest) * f, rest);
  }
}

inline void scale(Dtype dtype, const void* in, void* out, int64_t n, double factor) {
  switch (dtype) {
    case Dtype::kHalf: return scale_as<Half>(in, out, n, factor);
    case Dtype::kBFloat16: return scale_as<BFloat16>(in, out, n, factor);
    case Dtype::kFloat: return scale_as<float>(in, out, n, factor);
    default: return scale_as<double>(in, out, n, factor);
  }
}

// A factor for each element.
template <class T>
GK_INLINE void scale_each(const T* x, T* y, int64_t n, const Accumulate<T>* factors, Accumulate<T> average) {
  using A = Accumulate<T>;
  const auto step = [&](int64_t i, auto count) {
    const Vec<A> f = load<A>(factors + i, count);
    store<A>(y + i, f == A(0) ? Vec<A>{} : Vec<A>(load<A>(x + i, count) * (f * average)), count);
  };
  int64_t i = 0;
  for (; i + lanes<A> <= n; i += lanes<A>) step(i, Full<A>{});
  if (i < n) step(i, Partial{static_cast<int>(n - i)});
}

template <class T>
void scale_rows_as(const RowScaleProblem& p, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const A* factors = static_cast<const A*>(p.factors);
  const int64_t run = p.run();
  for (int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(p.in) + r * run;
    T* y = static_cast<T*>(p.out) + r * run;
    if (p.inner > 1) scale_each(x, y, run, factors + r / p.classes * p.inner, static_cast<A>(p.average));
    else scale_as<T>(x, y, run, static_cast<double>(factors[r]) * p.average);
  }
}

inline void scale_rows(const RowScaleProblem& p, int64_t begin, int64_t end) {
  switch (p.dtype) {
    case Dtype::kHalf: return scale_rows_as<Half>(p, begin, end);
    case Dtype::kBFloat16: return scale_rows_as<BFloat16>(p, begin, end);
    case Dtype::kFloat: return scale_rows_as<float>(p, begin, end);
    default: return scale_rows_as<double>(p, begin, end);
  }
}

}  // namespace gankernels::GK_ISA
