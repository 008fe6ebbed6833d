// out = in * factor, rounded once.
#pragma once

#include "../kernels.h"
#include "vec.h"

namespace gankernels::GK_ISA {

template <class T>
void scale_as(const void* in, void* out, int64_t n, double factor) {
  using A = Accumulate<T>;
  const T* x = static_cast<const T*>(in);
  T* y = static_cast<T*>(out);
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

template <class T>
void scale_each_as(const void* in, const void* factors, void* out, int64_t n, double average) {
  using A = Accumulate<T>;
  const T* x = static_cast<const T*>(in);
  const A* f = static_cast<const A*>(factors);
  T* y = static_cast<T*>(out);
  const Vec<A> share = splat<A>(static_cast<A>(average));
  int64_t i = 0;
  for (; i + lanes<A> <= n; i += lanes<A>)
    store<A>(y + i, load<A>(x + i, Full<A>{}) * (load<A>(f + i, Full<A>{}) * share), Full<A>{});
  if (i < n) {
    const Partial rest{static_cast<int>(n - i)};
    store<A>(y + i, load<A>(x + i, rest) * (load<A>(f + i, rest) * share), rest);
  }
}

inline void scale_each(Dtype dtype, const void* in, const void* factors, void* out, int64_t n, double average) {
  switch (dtype) {
    case Dtype::kHalf: return scale_each_as<Half>(in, factors, out, n, average);
    case Dtype::kBFloat16: return scale_each_as<BFloat16>(in, factors, out, n, average);
    case Dtype::kFloat: return scale_each_as<float>(in, factors, out, n, average);
    default: return scale_each_as<double>(in, factors, out, n, average);
  }
}

}  // namespace gankernels::GK_ISA
