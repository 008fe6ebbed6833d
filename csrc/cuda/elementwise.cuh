// Operators without a class dimension: scalar losses, gradients times grad_output, feature resampling.
//
// Each thread takes kWidth neighbouring elements at a time: 16 bytes of the tensors' dtype where they are aligned.
#pragma once

#include "launch.cuh"

namespace gankernels::cuda {

constexpr int kThreads = 256;
constexpr int kSingleBlock = 512;  // threads of a launch that needs sums over all elements before it can go on

template <int kWidth, class T, class A>
GK_DEVICE void load_run(A (&x)[kWidth], const T* from, int count) {
  if (kWidth > 1 && count == kWidth) {
    const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(from);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) x[j] = widen<A>(pack.value[j]);
    return;
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) x[j] = j < count ? widen<A>(from[j]) : A(0);
}

template <int kWidth, class T, class A>
GK_DEVICE void store_run(T* to, const A (&x)[kWidth], int count) {
  if (kWidth > 1 && count == kWidth) {
    Pack<T, kWidth> pack;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) pack.value[j] = narrow<T>(x[j]);
    *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
    return;
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
    if (j < count) to[j] = narrow<T>(x[j]);
}

// f(first, count) for the runs of this thread.
template <int kWidth, class F>
GK_DEVICE void each_run(int64_t elements, F&& f) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kWidth;
  for (int64_t i = thread * kWidth; i < elements; i += step)
    f(i, static_cast<int>(elements - i < kWidth ? elements - i : kWidth));
}

// ---- scalar losses: weight * f(sign * (x - offset)) + slope * x ----------------------------------------------------

template <class A>
struct Terms {
  A sign, offset, weight, slope;
  ScalarFunction function;

  GK_DEVICE explicit Terms(const ScalarTerm& t)
      : sign(static_cast<A>(t.sign)),
        offset(static_cast<A>(t.offset)),
        weight(static_cast<A>(t.weight)),
        slope(static_cast<A>(t.slope)),
        function(t.function) {}

  GK_DEVICE void evaluate(A x, A& loss, A& derivative) const {
    const A u = (x - offset) * sign;
    A value = u, g = A(1);
    if (function == ScalarFunction::kSoftplus) {
      // softplus(u) = max(u, 0) + log(1 + e),  sigmoid(u) = 1 / (1 + e) or e / (1 + e),  e = exp(-|u|)
      const A e = exp_of(u < A(0) ? u : -u);
      value = (u > A(0) ? u : A(0)) + log1p_of(e);
      g = (u < A(0) ? e : A(1)) / (e + A(1));
    } else if (function == ScalarFunction::kHinge) {
      // max(0, 1 + u), with the subgradient 0 at the kink and NaN kept, as torch.relu has it.
      const A v = u + A(1);
      value = v <= A(0) ? A(0) : v;
      g = v <= A(0) ? A(0) : A(1);
    } else if (function == ScalarFunction::kSquare) {
      value = u * u * A(0.5);
      g = u;
    }
    loss = value * weight;
    derivative = g * (weight * sign);
    // 0 * inf is NaN: a slope of zero must not touch the loss.
    if (slope != A(0)) loss += x * slope, derivative += slope;
  }
};

// Elements [i, i + count) of one batch: adds their losses to `loss`, writes their gradients.
template <class T, int kWidth, class A>
GK_DEVICE void scalar_run(const ScalarBatch& batch, const Terms<A>& terms, A constant, int64_t i, int count,
                          A (&loss)[kWidth], double& sum) {
  const A scale = static_cast<A>(batch.weight);
  A x[kWidth], part = 0;
  load_run<kWidth>(x, static_cast<const T*>(batch.logits) + i, count);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    A value, g;
    terms.evaluate(x[j], value, g);
    loss[j] += value;
    if (j < count) part += value;
    x[j] = (g + constant) * scale;
  }
  sum += static_cast<double>(part);
  if (batch.grad != nullptr) store_run<kWidth>(static_cast<T*>(batch.grad) + i, x, count);
}

// Both batches' gradients and losses, an element of each at a time.
template <class T, int kWidth>
GK_DEVICE double scalar_batches(const ScalarLaunch& p, const Terms<Accumulate<T>>& real_terms, Accumulate<T> of_real,
                                const Terms<Accumulate<T>>& fake_terms, Accumulate<T> of_fake) {
  using A = Accumulate<T>;
  double real_sum = 0, fake_sum = 0;
  const int64_t elements = p.real.elements > p.fake.elements ? p.real.elements : p.fake.elements;
  const auto within = [](int64_t n, int64_t i) {
    return static_cast<int>(n - i < 0 ? 0 : n - i < kWidth ? n - i : kWidth);
  };
  each_run<kWidth>(elements, [&](int64_t i, int count) {
    A loss[kWidth] = {};
    const int reals = within(p.real.elements, i), fakes = within(p.fake.elements, i);
    if (reals > 0) scalar_run<T>(p.real, real_terms, of_real, i, reals, loss, real_sum);
    if (fakes > 0) scalar_run<T>(p.fake, fake_terms, of_fake, i, fakes, loss, fake_sum);
    if (p.row_loss != nullptr) store_run<kWidth>(static_cast<A*>(p.row_loss) + i, loss, count);
  });
  const double real = p.with_real ? real_sum * p.real.loss_scale : 0;
  return real + fake_sum * p.fake.loss_scale;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) scalar_kernel(const ScalarLaunch p) {
  using A = Accumulate<T>;
  const Terms<A> real(p.real.term), fake(p.fake.term);
  write_total<A>(scalar_batches<T, kWidth>(p, real, A(0), fake, A(0)), p.total);
}

template <class T, int kWidth, class F>
GK_DEVICE double sum_over(const ScalarBatch& batch, double* memory, F&& f) {
  using A = Accumulate<T>;
  double sum = 0;
  each_run<kWidth>(batch.elements, [&](int64_t i, int count) {
    A x[kWidth], part = 0;
    load_run<kWidth>(x, static_cast<const T*>(batch.logits) + i, count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      if (j < count) part += f(x[j]);
    sum += static_cast<double>(part);
  });
  return block_sum(sum, memory);
}

// Offsets are the other batch's mean, so each logit also moves the other batch's terms through its own mean:
//   d/dr_i of the fake terms = -(1/N_r) sum_j f'_j, and the same with the roles exchanged.
// One block: means and slopes of all elements must be known before the first gradient is.
template <class T, int kWidth>
__global__ void __launch_bounds__(kSingleBlock) relativistic_kernel(const ScalarLaunch p) {
  using A = Accumulate<T>;
  __shared__ double memory[kWarp];
  const auto value = [](A x) { return x; };
  const double n_real = static_cast<double>(p.real.elements), n_fake = static_cast<double>(p.fake.elements);
  Terms<A> real(p.real.term), fake(p.fake.term);
  fake.offset = static_cast<A>(sum_over<T, kWidth>(p.real, memory, value) / n_real);
  real.offset = static_cast<A>(sum_over<T, kWidth>(p.fake, memory, value) / n_fake);
  const auto slope = [](const Terms<A>& terms) {
    return [&terms](A x) {
      A loss, g;
      terms.evaluate(x, loss, g);
      return g;
    };
  };
  const double of_real = sum_over<T, kWidth>(p.real, memory, slope(real));
  const double of_fake = sum_over<T, kWidth>(p.fake, memory, slope(fake));
  // Under "mean" each batch's terms have their own 1/N, of which ScalarBatch::weight applies only its own.
  const A to_real = static_cast<A>(-of_fake / (p.mean ? n_fake : n_real));
  const A to_fake = static_cast<A>(-of_real / (p.mean ? n_real : n_fake));
  write_total<A>(scalar_batches<T, kWidth>(p, real, to_real, fake, to_fake), p.total);
}

// ---- gradients times grad_output --------------------------------------------------------------------------------

template <class T, int kWidth>
GK_DEVICE void scale_batch(const ScaleLaunch& p, const ScaleBatch& batch) {
  using A = Accumulate<T>;
  const bool by_rows = p.spread == Spread::kRows;
  // A run lies within one row, or goes through neighbouring ones.
  const int step = p.spread == Spread::kElements || (by_rows && p.inner > 1) ? 1 : 0;
  each_run<kWidth>(batch.elements, [&](int64_t i, int count) {
    int64_t at = step * i;
    // Element (outer, class, inner) belongs to row (outer, inner).
    if (by_rows) at = i / (p.classes * p.inner) * p.inner + i % p.inner;
    const A* grad_output = static_cast<const A*>(p.grad_output) + at;
    A x[kWidth];
    load_run<kWidth>(x, static_cast<const T*>(batch.in) + i, count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      if (j < count) x[j] *= static_cast<A>(static_cast<double>(grad_output[j * step]) * batch.average);
    store_run<kWidth>(static_cast<T*>(batch.out) + i, x, count);
  });
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) scale_kernel(const ScaleLaunch p) {
  scale_batch<T, kWidth>(p, p.first);
  scale_batch<T, kWidth>(p, p.second);
}

// ---- feature resampling -----------------------------------------------------------------------------------------

// Where element i of z has its mean; the log-variance lies a block further on.
GK_DEVICE int64_t mean_at(int64_t i, int64_t block) { return i + i / block * block; }

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) resample_kernel(const ResampleLaunch p) {
  using A = Accumulate<T>;
  each_run<kWidth>(p.elements, [&](int64_t i, int count) {
    const T* mean = static_cast<const T*>(p.statistics) + mean_at(i, p.block);
    A mu[kWidth], log_variance[kWidth], noise[kWidth];
    load_run<kWidth>(mu, mean, count);
    load_run<kWidth>(log_variance, mean + p.block, count);
    load_run<kWidth>(noise, static_cast<const A*>(p.noise) + i, count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) mu[j] += noise[j] * exp_of(log_variance[j] * A(0.5));
    store_run<kWidth>(static_cast<T*>(p.out) + i, mu, count);
  });
}

// d/dmu = g, d/dlogvar = g (z - mu) / 2. A z rounded to 16 bits has lost the difference: there noise * exp serves.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) resample_backward_kernel(const ResampleLaunch p) {
  using A = Accumulate<T>;
  each_run<kWidth>(p.elements, [&](int64_t i, int count) {
    const int64_t at = mean_at(i, p.block);
    const T* mean = static_cast<const T*>(p.statistics) + at;
    T* to_mean = static_cast<T*>(p.grad_statistics) + at;
    A g[kWidth], spread[kWidth], statistic[kWidth];
    load_run<kWidth>(g, static_cast<const T*>(p.grad_out) + i, count);
    if constexpr (std::is_same_v<T, A>) {
      load_run<kWidth>(spread, static_cast<const T*>(p.out) + i, count);
      load_run<kWidth>(statistic, mean, count);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) spread[j] -= statistic[j];
    } else {
      load_run<kWidth>(spread, static_cast<const A*>(p.noise) + i, count);
      load_run<kWidth>(statistic, mean + p.block, count);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) spread[j] *= exp_of(statistic[j] * A(0.5));
    }
    store_run<kWidth>(to_mean, g, count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] *= spread[j] * A(0.5);
    store_run<kWidth>(to_mean + p.block, g, count);
  });
}

}  // namespace gankernels::cuda
