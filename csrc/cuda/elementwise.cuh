// Operators without a class dimension: scalar losses, gradients times grad_output, feature resampling.
//
// Each thread takes kWidth neighbouring elements at a time: 16 bytes of the tensors' dtype where they are aligned.
#pragma once

#include "terms.cuh"

namespace gankernels::cuda {

constexpr int kThreads = 256;
constexpr int kSingleBlock = 512;  // threads of a block that needs sums over all elements before it can go on

// ---- scalar losses: weight * f(sign * (x - offset)) + slope * x, sign = 1 or -1 -------------------------------------

// Elements [i, i + count) of one batch: adds their losses to `loss`, writes their gradients.
template <class T, int kWidth>
GK_DEVICE void scalar_run(const ScalarBatch& batch, const Terms<T>& terms, Accumulate<T> constant, int64_t i, int count,
                          Accumulate<T> (&loss)[kWidth], double& sum) {
  using A = Accumulate<T>;
  const A scale = static_cast<A>(batch.weight);
  A x[kWidth], value[kWidth], g[kWidth], part = 0;
  load_run<kWidth>(x, static_cast<const T*>(batch.logits) + i, count);
  terms.evaluate(x, value, g);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    loss[j] += value[j];
    if (j < count) part += value[j];
    g[j] = fma_of(g[j], scale, constant * scale);
  }
  sum += static_cast<double>(part);
  if (batch.grad != nullptr) store_run<kWidth>(static_cast<T*>(batch.grad) + i, g, count);
}

// Both batches' gradients and losses, an element of each at a time; `of_real` and `of_fake` are added to derivatives.
template <class T, int kWidth>
GK_DEVICE double scalar_batches(const RelativisticLaunch& p, const Terms<T>& real_terms, Accumulate<T> of_real,
                                const Terms<T>& fake_terms, Accumulate<T> of_fake) {
  double real_sum = 0, fake_sum = 0;
  const int64_t elements = p.real.elements > p.fake.elements ? p.real.elements : p.fake.elements;
  const auto within = [](int64_t n, int64_t i) {
    return static_cast<int>(n - i < 0 ? 0 : n - i < kWidth ? n - i : kWidth);
  };
  each_run<kWidth>(elements, [&](int64_t i, int count) {
    Accumulate<T> loss[kWidth] = {};
    const int reals = within(p.real.elements, i), fakes = within(p.fake.elements, i);
    if (reals > 0) scalar_run<T>(p.real, real_terms, of_real, i, reals, loss, real_sum);
    if (fakes > 0) scalar_run<T>(p.fake, fake_terms, of_fake, i, fakes, loss, fake_sum);
    if (p.row_loss != nullptr) store_run<kWidth>(static_cast<Accumulate<T>*>(p.row_loss) + i, loss, count);
  });
  return real_sum * p.real.loss_scale + fake_sum * p.fake.loss_scale;
}

// ---- relativistic losses: each offset is the other batch's mean -----------------------------------------------------
//
// So each logit also moves the other batch's terms through its own mean:
//   d/dr_i of the fake terms = -(1/N_r) sum_j f'_j, and the same with the roles exchanged.

// This thread's part of the sum over a batch of what f leaves in each run of it.
template <class T, int kWidth, class F>
GK_DEVICE double sum_over(const ScalarBatch& batch, F&& f) {
  using A = Accumulate<T>;
  double sum = 0;
  each_run<kWidth>(batch.elements, [&](int64_t i, int count) {
    A x[kWidth], part = 0;
    load_run<kWidth>(x, static_cast<const T*>(batch.logits) + i, count);
    f(x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      if (j < count) part += x[j];
    sum += static_cast<double>(part);
  });
  return sum;
}

// Sums of the logits, real and fake.
template <class T, int kWidth>
GK_DEVICE void sum_logits(const RelativisticLaunch& p, double (&sums)[2]) {
  const auto value = [](auto&) {};
  sums[0] = sum_over<T, kWidth>(p.real, value), sums[1] = sum_over<T, kWidth>(p.fake, value);
}

// The terms, when the sums of the logits are known.
template <class T>
struct RelativisticTerms {
  Terms<T> real, fake;

  GK_DEVICE RelativisticTerms(const RelativisticLaunch& p, const double (&sums)[2])
      : real(p.real.term, p.real.term.offset + sums[1] * p.fake.per_element),
        fake(p.fake.term, p.fake.term.offset + sums[0] * p.real.per_element) {}

  // Sums of their derivatives, real and fake, but for slopes: those are of the logits themselves, which no mean moves.
  template <int kWidth>
  GK_DEVICE void sum_slopes(const RelativisticLaunch& p, double (&sums)[2]) const {
    const auto slope = [](Terms<T> terms) {
      terms.slope = 0;
      return [terms](Accumulate<T>(&x)[kWidth]) {
        Accumulate<T> loss[kWidth], g[kWidth];
        terms.evaluate(x, loss, g);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) x[j] = g[j];
      };
    };
    sums[0] = sum_over<T, kWidth>(p.real, slope(real)), sums[1] = sum_over<T, kWidth>(p.fake, slope(fake));
  }

  // Losses and gradients, when the sums of the derivatives are known too.
  template <int kWidth>
  GK_DEVICE void finish(const RelativisticLaunch& p, const double (&slopes)[2]) const {
    using A = Accumulate<T>;
    // Under "mean" each batch's terms have their own 1/N, of which ScalarBatch::weight applies only its own; of none
    // there is nothing to share out.
    const auto share = [](double slope, const ScalarBatch& of) {
      return of.elements > 0 ? static_cast<A>(-slope * of.per_element) : A(0);
    };
    const A to_real = share(slopes[1], p.mean ? p.fake : p.real);
    const A to_fake = share(slopes[0], p.mean ? p.real : p.fake);
    write_total<A>(scalar_batches<T, kWidth>(p, real, to_real, fake, to_fake), p.total);
  }
};

// One block, which knows all sums as it goes.
template <class T, int kWidth>
__global__ void __launch_bounds__(kSingleBlock, 1) relativistic_kernel(const RelativisticLaunch p) {
  __shared__ double memory[2 * kWarp];
  double sums[2], slopes[2];
  sum_logits<T, kWidth>(p, sums);
  block_sum(sums, memory);
  const RelativisticTerms<T> terms(p, sums);
  terms.template sum_slopes<kWidth>(p, slopes);
  block_sum(slopes, memory);
  terms.template finish<kWidth>(p, slopes);
}

// Many blocks, in three launches: the sums of the logits, those of the derivatives, and the rest.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 1) relativistic_sums_kernel(const RelativisticLaunch p) {
  double sums[2];
  if (p.stage == RelativisticSums::kLogits) {
    sum_logits<T, kWidth>(p, sums);
  } else {
    const double logits[2] = {p.sums[0], p.sums[1]};
    RelativisticTerms<T>(p, logits).template sum_slopes<kWidth>(p, sums);
  }
  if (!grid_sum(sums, p.total) || threadIdx.x != 0) return;
  double* out = p.sums + (p.stage == RelativisticSums::kLogits ? 0 : 2);
  out[0] = sums[0], out[1] = sums[1];
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 1) relativistic_gradients_kernel(const RelativisticLaunch p) {
  const double logits[2] = {p.sums[0], p.sums[1]}, slopes[2] = {p.sums[2], p.sums[3]};
  RelativisticTerms<T>(p, logits).template finish<kWidth>(p, slopes);
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
    if (step == 0) {
      const A factor = factor_of(grad_output[0], batch.average);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[j] = scaled(x[j], factor);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        if (j < count) x[j] = scaled(x[j], factor_of(grad_output[j], batch.average));
    }
    store_run<kWidth>(static_cast<T*>(batch.out) + i, x, count);
  });
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 1) scale_kernel(const ScaleLaunch p) {
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
