// Feature resampling: z = mu + noise * exp(logvar / 2), and its gradient.
#pragma once

#include "../kernels.h"
#include "elementary.h"

namespace gankernels::GK_ISA {

// Blocks of `block` means, each followed by a block of as many log-variances: mu and logvar of one contiguous tensor.
template <class T>
void resample_as(const ResampleProblem& p, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  for (int64_t b = begin; b < end; ++b) {
    const T* mean = static_cast<const T*>(p.statistics) + 2 * b * p.block;
    const T* log_variance = mean + p.block;
    const A* noise = static_cast<const A*>(p.noise) + b * p.block;
    T* out = static_cast<T*>(p.out) + b * p.block;
    const auto step = [&](int64_t i, auto n) {
      const Vec<A> deviation = exp<A>(load<A>(log_variance + i, n) * A(0.5));
      store<A>(out + i, load<A>(mean + i, n) + load<A>(noise + i, n) * deviation, n);
    };
    int64_t i = 0;
    for (; i + lanes<A> <= p.block; i += lanes<A>) step(i, Full<A>{});
    if (i < p.block) step(i, Partial{static_cast<int>(p.block - i)});
  }
}

// d/dmu = g, d/dlogvar = g (z - mu) / 2. A z rounded to 16 bits has lost the difference: there noise * exp serves.
template <class T>
void resample_backward_as(const ResampleProblem& p, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  for (int64_t b = begin; b < end; ++b) {
    const T* mean = static_cast<const T*>(p.statistics) + 2 * b * p.block;
    const T* log_variance = mean + p.block;
    const T* g = static_cast<const T*>(p.grad_out) + b * p.block;
    T* to_mean = static_cast<T*>(p.grad_statistics) + 2 * b * p.block;
    T* to_log_variance = to_mean + p.block;
    const auto step = [&](int64_t i, auto n) {
      const Vec<A> gradient = load<A>(g + i, n);
      Vec<A> spread;
      if constexpr (std::is_same_v<T, A>) {
        spread = load<A>(static_cast<const T*>(p.out) + b * p.block + i, n) - load<A>(mean + i, n);
      } else {
        const Vec<A> noise = load<A>(static_cast<const A*>(p.noise) + b * p.block + i, n);
        spread = noise * exp<A>(load<A>(log_variance + i, n) * A(0.5));
      }
      store<A>(to_mean + i, gradient, n);
      store<A>(to_log_variance + i, gradient * spread * A(0.5), n);
    };
    int64_t i = 0;
    for (; i + lanes<A> <= p.block; i += lanes<A>) step(i, Full<A>{});
    if (i < p.block) step(i, Partial{static_cast<int>(p.block - i)});
  }
}

template <class T>
void resample_either(const ResampleProblem& p, int64_t begin, int64_t end) {
  if (p.grad_statistics == nullptr) return resample_as<T>(p, begin, end);
  resample_backward_as<T>(p, begin, end);
}

inline void resample(const ResampleProblem& p, int64_t begin, int64_t end) {
  switch (p.dtype) {
    case Dtype::kHalf: return resample_either<Half>(p, begin, end);
    case Dtype::kBFloat16: return resample_either<BFloat16>(p, begin, end);
    case Dtype::kFloat: return resample_either<float>(p, begin, end);
    default: return resample_either<double>(p, begin, end);
  }
}

}  // namespace gankernels::GK_ISA
