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

}  // namespace gankernels::GK_ISA
