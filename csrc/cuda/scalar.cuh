// The scalar losses over any number of tensors: each block is on one of them.
#pragma once

#include "terms.cuh"

namespace gankernels::cuda {

constexpr int kTermThreads = 256;

// Which of the tensors a block is on, and its share of it.
struct BlockShare {
  int term;
  int block, blocks;  // of those on that tensor

  // f(first, count) for the runs of this thread.
  template <int kWidth, class F>
  GK_DEVICE void each_run(int64_t elements, F&& f) const {
    const int64_t step = static_cast<int64_t>(blocks) * blockDim.x * kWidth;
    for (int64_t i = (static_cast<int64_t>(block) * blockDim.x + threadIdx.x) * kWidth; i < elements; i += step)
      f(i, static_cast<int>(elements - i < kWidth ? elements - i : kWidth));
  }
};

template <class Launch>
GK_DEVICE BlockShare share_of(const Launch& p) {
  const int block = static_cast<int>(blockIdx.x);
  int term = 0;
  while (term + 1 < p.count && p.terms[term + 1].first_block <= block) ++term;
  int next = term + 1;
  while (next < p.count && p.terms[next].first_block == p.terms[term].first_block) ++next;
  const int end = next < p.count ? p.terms[next].first_block : static_cast<int>(gridDim.x);
  return {term, block - p.terms[term].first_block, end - p.terms[term].first_block};
}

// f(a null pointer to the element type)
template <class A, class F>
GK_DEVICE void with_type(Dtype dtype, F&& f) {
  if constexpr (std::is_same_v<A, double>) {
    f(static_cast<double*>(nullptr));
  } else {
    switch (dtype) {
      case Dtype::kHalf: f(static_cast<__half*>(nullptr)); break;
      case Dtype::kBFloat16: f(static_cast<__nv_bfloat16*>(nullptr)); break;
      default: f(static_cast<float*>(nullptr));
    }
  }
}

// The factors of a run, of which neighbours may share one.
template <int kWidth, class A>
GK_DEVICE void load_weights(A (&w)[kWidth], const TermBatch& b, int64_t i, int count) {
  const A* weights = static_cast<const A*>(b.weights);
  if (b.per_weight == 1) return load_run<kWidth>(w, weights + i, count);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) w[j] = j < count ? weights[(i + j) / b.per_weight] : A(0);
}

// Elements [i, i + count) of a term: adds their losses to `loss`, writes their gradients.
template <class T, int kWidth>
GK_DEVICE void term_run(const TermBatch& b, const Terms<T>& terms, int64_t i, int count,
                        Accumulate<T> (&loss)[kWidth]) {
  using A = Accumulate<T>;
  const A scale = static_cast<A>(b.weight);
  A x[kWidth], y[kWidth], value[kWidth], g[kWidth];
  load_run<kWidth>(x, static_cast<const T*>(b.logits) + i, count);
  if (b.other != nullptr) {
    if (b.other_wide) load_run<kWidth>(y, static_cast<const A*>(b.other) + i, count);
    else load_run<kWidth>(y, static_cast<const T*>(b.other) + i, count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) x[j] -= y[j];
  }
  terms.evaluate(x, value, g);
  if (b.weights != nullptr) {
    load_weights<kWidth>(y, b, i, count);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const A w = y[j];
      y[j] = value[j] * scale;
      // 0 * inf is NaN: what has no weight must not touch the loss.
      value[j] = w == A(0) ? A(0) : value[j] * w;
      g[j] = w == A(0) ? A(0) : g[j] * w;
    }
    if (b.weights_grad != nullptr) store_run<kWidth>(static_cast<A*>(b.weights_grad) + i, y, count);
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) loss[j] += j < count ? value[j] : A(0), g[j] *= scale;
  if (b.grad != nullptr) store_run<kWidth>(static_cast<T*>(b.grad) + i, g, count);
  if (b.other_grad == nullptr) return;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) g[j] = -g[j];
  if (b.other_wide) store_run<kWidth>(static_cast<A*>(b.other_grad) + i, g, count);
  else store_run<kWidth>(static_cast<T*>(b.other_grad) + i, g, count);
}

// This thread's part of the sum of a term.
template <class A>
GK_DEVICE double term_sum(const TermBatch& b, const BlockShare& share) {
  double sum = 0;
  with_type<A>(b.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Terms<T> terms(b.term, b.term.offset);
    const auto runs = [&](auto width) {
      constexpr int kWidth = decltype(width)::value;
      share.each_run<kWidth>(b.elements, [&](int64_t i, int count) {
        A loss[kWidth] = {}, part = 0;
        term_run<T>(b, terms, i, count, loss);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) part += loss[j];
        sum += static_cast<double>(part);
      });
    };
    if (b.wide) runs(std::integral_constant<int, kWide<T>>{});
    else runs(std::integral_constant<int, 1>{});
  });
  return sum;
}

// Adds the sum of a term to what its output has so far; the last term of an output writes it.
template <class A>
struct Outputs {
  const TermsLaunch& p;
  double loss = 0;

  GK_DEVICE void add(int term, double sum) {
    const int output = p.terms[term].output;
    if (term == 0 || p.terms[term - 1].output != output) loss = begun(output);
    loss += sum * p.terms[term].loss_scale;
    if (term + 1 == p.count || p.terms[term + 1].output != output)
      *static_cast<A*>(p.losses[output]) = static_cast<A>(loss);
  }

  GK_DEVICE double begun(int output) const {
    return p.continues && output == 0 ? static_cast<double>(*static_cast<const A*>(p.losses[0])) : 0;
  }
};

// One block, which knows all sums as it goes.
template <class A>
__global__ void __launch_bounds__(kTermThreads, 1) terms_of_one_block_kernel(const TermsLaunch p) {
  __shared__ double memory[kWarp];
  Outputs<A> outputs{p};
  for (int term = 0; term < p.count; ++term) {
    double sum[1] = {term_sum<A>(p.terms[term], {term, 0, 1})};
    block_sum(sum, memory);
    if (threadIdx.x == 0) outputs.add(term, sum[0]);
  }
}

template <class A>
__global__ void __launch_bounds__(kTermThreads) term_sums_kernel(const TermsLaunch p) {
  __shared__ double memory[kWarp];
  Outputs<A> outputs{p};
  const BlockShare share = share_of(p);
  double sum[1] = {term_sum<A>(p.terms[share.term], share)};
  block_sum(sum, memory);
  if (!leave_partials(sum, p.total)) return;
  for (int term = 0; term < p.count; ++term) {
    const int end = term + 1 < p.count ? p.terms[term + 1].first_block : static_cast<int>(gridDim.x);
    sum[0] = 0;
    for (int i = p.terms[term].first_block + static_cast<int>(threadIdx.x); i < end; i += kTermThreads)
      sum[0] += p.total.partials[i];
    block_sum(sum, memory);
    if (threadIdx.x == 0) outputs.add(term, sum[0]);
  }
}

// The terms of an output, a run of each at a time: their first blocks are one.
template <class A>
__global__ void __launch_bounds__(kTermThreads) term_rows_kernel(const TermsLaunch p) {
  constexpr int kMost = std::is_same_v<A, double> ? 2 : 4;
  const BlockShare share = share_of(p);
  const int output = p.terms[share.term].output;
  int first = share.term;
  while (first > 0 && p.terms[first - 1].output == output) --first;
  const auto runs = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    share.each_run<kWidth>(p.terms[first].elements, [&](int64_t i, int count) {
      A loss[kWidth] = {};
      for (int term = first; term < p.count && p.terms[term].output == output; ++term) {
        const TermBatch& b = p.terms[term];
        with_type<A>(b.dtype, [&](auto* type) {
          using T = std::remove_pointer_t<decltype(type)>;
          term_run<T>(b, Terms<T>(b.term, b.term.offset), i, count, loss);
        });
      }
      store_run<kWidth>(static_cast<A*>(p.losses[output]) + i, loss, count);
    });
  };
  if (p.terms[first].wide) runs(std::integral_constant<int, kMost>{});
  else runs(std::integral_constant<int, 1>{});
}

template <class A>
__global__ void __launch_bounds__(kTermThreads) scale_terms_kernel(const ScaleTermsLaunch p) {
  const BlockShare share = share_of(p);
  const ScaledTerm& b = p.terms[share.term];
  with_type<A>(b.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const A* grad_output = static_cast<const A*>(b.grad_output);
    const A shared = b.by_element ? A(0) : factor_of(grad_output[0], b.average);
    if (b.in == b.out && shared == A(1)) return;
    const auto runs = [&](auto width) {
      constexpr int kWidth = decltype(width)::value;
      share.each_run<kWidth>(b.elements, [&](int64_t i, int count) {
        A x[kWidth], g[kWidth];
        load_run<kWidth>(x, static_cast<const T*>(b.in) + i, count);
        if (b.by_element) load_run<kWidth>(g, grad_output + i, count);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) x[j] = scaled(x[j], b.by_element ? factor_of(g[j], b.average) : shared);
        store_run<kWidth>(static_cast<T*>(b.out) + i, x, count);
      });
    };
    if (b.wide) runs(std::integral_constant<int, kWide<T>>{});
    else runs(std::integral_constant<int, 1>{});
  });
}

}  // namespace gankernels::cuda
