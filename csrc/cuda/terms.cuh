// Runs of neighbouring elements between memory and registers, and the terms of the scalar losses on them.
#pragma once

#include "launch.cuh"

namespace gankernels::cuda {

// A run in memory, 16 bytes at a time (or 8, if that is all) in words that the compiler does not see into: it would
// take the run apart, into accesses of 4 bytes that lie apart in neighbouring threads.
template <class T, int kCount>
struct Words {
  static constexpr int kBytes = sizeof(Pack<T, kCount>) < 16 ? 8 : 16;
  static constexpr int kAccesses = static_cast<int>(sizeof(Pack<T, kCount>)) / kBytes;

  unsigned words[kAccesses][kBytes / 4];
};

template <class T, int kCount>
GK_DEVICE Pack<T, kCount> load_whole(const T* from) {
  if constexpr (sizeof(T) == 8) return *reinterpret_cast<const Pack<T, kCount>*>(from);
  else {
    using W = Words<T, kCount>;
    W run;
#pragma unroll
    for (int i = 0; i < W::kAccesses; ++i)
      load_words(run.words[i], reinterpret_cast<const char*>(from) + W::kBytes * i);
    Pack<T, kCount> pack;
    memcpy(&pack, &run, sizeof pack);
    return pack;
  }
}

template <class T, int kCount>
GK_DEVICE void store_whole(T* to, const Pack<T, kCount>& pack) {
  if constexpr (sizeof(T) == 8) *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
  else {
    using W = Words<T, kCount>;
    W run;
    memcpy(&run, &pack, sizeof pack);
#pragma unroll
    for (int i = 0; i < W::kAccesses; ++i) store_words(reinterpret_cast<char*>(to) + W::kBytes * i, run.words[i]);
  }
}

template <int kWidth, class T, class A>
GK_DEVICE void load_run(A (&x)[kWidth], const T* from, int count) {
  if constexpr (kWidth > 1) {
    if (count == kWidth) {
      const auto pack = load_whole<T, kWidth>(from);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[j] = widen<A>(pack.value[j]);
      return;
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) x[j] = j < count ? widen<A>(from[j]) : A(0);
}

template <int kWidth, class T, class A>
GK_DEVICE void store_run(T* to, const A (&x)[kWidth], int count) {
  if constexpr (kWidth > 1) {
    if (count == kWidth) {
      Pack<T, kWidth> pack;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack.value[j] = narrow<T>(x[j]);
      store_whole(to, pack);
      return;
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
    if (j < count) to[j] = narrow<T>(x[j]);
}

// What a gradient is multiplied by. In double precision, which many GPUs have little of: once where elements share it.
template <class A>
GK_DEVICE A factor_of(A grad_output, double average) {
  return static_cast<A>(static_cast<double>(grad_output) * average);
}

// What does not count may be NaN.
template <class A>
GK_DEVICE A scaled(A x, A factor) {
  return factor == A(0) ? A(0) : x * factor;
}

// f(first, count) for the runs of this thread.
template <int kWidth, class F>
GK_DEVICE void each_run(int64_t elements, F&& f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kWidth;
  for (int64_t i = thread * kWidth; i < elements; i += step)
    f(i, static_cast<int>(elements - i < kWidth ? elements - i : kWidth));
}

// weight * f(sign * (x - offset)) + slope * x, sign = 1 or -1
template <class T>
struct Terms {
  using A = Accumulate<T>;
  A sign, shift, weight, slope;
  ScalarFunction function;

  GK_DEVICE explicit Terms(const ScalarTerm& t, double offset)
      : sign(static_cast<A>(t.sign)),
        shift(-static_cast<A>(offset) * static_cast<A>(t.sign)),
        weight(static_cast<A>(t.weight)),
        slope(static_cast<A>(t.slope)),
        function(t.function) {}

  // Losses of a run and their derivatives, without the batch's weight.
  template <int kWidth>
  GK_DEVICE void evaluate(const A (&x)[kWidth], A (&loss)[kWidth], A (&derivative)[kWidth]) const {
    const A turned = weight * sign;
    const auto each = [&](auto&& f) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        f(fma_of(x[j], sign, shift), loss[j], derivative[j]);
        loss[j] *= weight;
        derivative[j] *= turned;
      }
    };
    // One branch for the whole run.
    switch (function) {
      case ScalarFunction::kSoftplus: each(softplus); break;
      case ScalarFunction::kHinge: each(hinge); break;
      case ScalarFunction::kSquare: each(square); break;
      case ScalarFunction::kAbsolute: each(absolute); break;
      case ScalarFunction::kIdentity: each(identity); break;
    }
    // 0 * inf is NaN: a slope of zero must not touch the loss.
    if (slope == A(0)) return;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) loss[j] += x[j] * slope, derivative[j] += slope;
  }

  // softplus(u) = max(u, 0) + log(1 + e),  sigmoid(u) = 1 / (1 + e) or e / (1 + e),  e = exp(-|u|)
  GK_DEVICE static void softplus(A u, A& value, A& g) {
    const A e = exp_for<T>(u < A(0) ? u : -u);
    value = (u > A(0) ? u : A(0)) + log1p_for<T>(e);
    g = quotient_for<T>(u < A(0) ? e : A(1), e + A(1));
  }

  // max(0, 1 + u), with the subgradient 0 at the kink and NaN kept, as torch.relu has it.
  GK_DEVICE static void hinge(A u, A& value, A& g) {
    const A v = u + A(1);
    value = v <= A(0) ? A(0) : v;
    g = v <= A(0) ? A(0) : A(1);
  }

  GK_DEVICE static void square(A u, A& value, A& g) { value = u * u * A(0.5), g = u; }

  // With the slope 0 at 0, as torch.abs has it.
  GK_DEVICE static void absolute(A u, A& value, A& g) {
    value = u < A(0) ? -u : u;
    g = u > A(0) ? A(1) : u < A(0) ? A(-1) : A(0);
  }

  GK_DEVICE static void identity(A u, A& value, A& g) { value = u, g = A(1); }
};

}  // namespace gankernels::cuda
