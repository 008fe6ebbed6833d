// Sample kernels for the simulator's own tests: a row per block, a row per warp, an element-wise one.
// loss += scale * KL(softmax(p) || softmax(q)) per row; dP = its gradient. They use floating-point atomics and
// block reductions on purpose: what the tests break must be there. Not the package's kernels.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include <math.h>

namespace sample {

template <typename T>
__device__ __forceinline__ float to_f(T x);
template <>
__device__ __forceinline__ float to_f<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ float to_f<__nv_bfloat16>(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <>
__device__ __forceinline__ float to_f<__half>(__half x) {
  return __half2float(x);
}
template <typename T>
__device__ __forceinline__ T from_f(float x);
template <>
__device__ __forceinline__ float from_f<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_f<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half from_f<__half>(float x) {
  return __float2half_rn(x);
}

__device__ __forceinline__ float neg_(float x) { return -x; }
__device__ __forceinline__ __nv_bfloat16 neg_(__nv_bfloat16 x) {
  return __hneg(x);
}  // torch passes -D__CUDA_NO_HALF_OPERATORS__: no -x
__device__ __forceinline__ __half neg_(__half x) { return __hneg(x); }
template <typename T, int N>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
};

struct Sum {
  __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
  static constexpr float id = 0.f;
};
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
  static constexpr float id = -INFINITY;
};

template <int THREADS, typename Op>
__device__ __forceinline__ float block_reduce(float x, Op op, float* smem /* >= 32 floats */) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) x = op(x, __shfl_xor_sync(0xffffffffu, x, o));
  if constexpr (THREADS > 32) {
    const int lane = threadIdx.x & 31, w = threadIdx.x >> 5;
    __syncthreads();  // smem may still be read by the previous reduction
    if (lane == 0) smem[w] = x;
    __syncthreads();
    x = lane < THREADS / 32 ? smem[lane] : Op::id;
#pragma unroll
    for (int o = THREADS / 64; o > 0; o >>= 1) x = op(x, __shfl_xor_sync(0xffffffffu, x, o));
    x = __shfl_sync(0xffffffffu, x, 0);
  }
  return x;
}

// one row per block; row kept in registers: THREADS * VEC * ITEMS >= n, n % VEC == 0, rows VEC-aligned
template <typename T, int THREADS, int VEC, int ITEMS>
__global__ void __launch_bounds__(THREADS)
    softmax_kl_row(const T* __restrict__ P, const T* __restrict__ Q, float* __restrict__ loss, T* __restrict__ dP,
                   int n, int64_t stride, float scale) {
  __shared__ float smem[32];
  using V = Vec<T, VEC>;
  const int64_t row = blockIdx.x;
  const T* p = P + row * stride;
  const T* q = Q + row * stride;
  T* d = dP + row * stride;
  float fp[ITEMS * VEC], fq[ITEMS * VEC];
  float mp = -INFINITY, mq = -INFINITY;
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    const int c = (i * THREADS + threadIdx.x) * VEC;
    if (c < n) {
      V a = *reinterpret_cast<const V*>(p + c), b = *reinterpret_cast<const V*>(q + c);
#pragma unroll
      for (int j = 0; j < VEC; ++j) {
        fp[i * VEC + j] = to_f(a.v[j]);
        fq[i * VEC + j] = to_f(b.v[j]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < VEC; ++j) {
        fp[i * VEC + j] = -INFINITY;
        fq[i * VEC + j] = -INFINITY;
      }
    }
#pragma unroll
    for (int j = 0; j < VEC; ++j) {
      mp = fmaxf(mp, fp[i * VEC + j]);
      mq = fmaxf(mq, fq[i * VEC + j]);
    }
  }
  mp = block_reduce<THREADS>(mp, Max(), smem);
  mq = block_reduce<THREADS>(mq, Max(), smem);
  float sp = 0.f, sq = 0.f;
#pragma unroll
  for (int k = 0; k < ITEMS * VEC; ++k) {
    sp += __expf(fp[k] - mp);
    sq += __expf(fq[k] - mq);
  }
  sp = block_reduce<THREADS>(sp, Sum(), smem);
  sq = block_reduce<THREADS>(sq, Sum(), smem);
  const float lp = mp + __logf(sp), lq = mq + __logf(sq);
  float kl = 0.f;
#pragma unroll
  for (int i = 0; i < ITEMS; ++i)
    if ((i * THREADS + (int)threadIdx.x) * VEC < n) {
#pragma unroll
      for (int j = 0; j < VEC; ++j) {
        const float a = fp[i * VEC + j] - lp, e = a - (fq[i * VEC + j] - lq), s = __expf(a);
        fp[i * VEC + j] = s;
        fq[i * VEC + j] = e;
        kl += s * e;
      }
    }
  kl = block_reduce<THREADS>(kl, Sum(), smem);
  if (threadIdx.x == 0) atomicAdd(loss, kl * scale);
#pragma unroll
  for (int i = 0; i < ITEMS; ++i) {
    const int c = (i * THREADS + threadIdx.x) * VEC;
    if (c < n) {
      V o;
#pragma unroll
      for (int j = 0; j < VEC; ++j) o.v[j] = from_f<T>(fp[i * VEC + j] * (fq[i * VEC + j] - kl) * scale);
      *reinterpret_cast<V*>(d + c) = o;
    }
  }
}

// one row per warp, scalar loads, any n (strided loop), two passes over memory
template <typename T>
__global__ void softmax_kl_warp(const T* __restrict__ P, const T* __restrict__ Q, float* __restrict__ loss,
                                T* __restrict__ dP, int rows, int n, int64_t stride, float scale) {
  const int64_t row = (int64_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  if (row >= rows) return;
  const int lane = threadIdx.x & 31;
  const T* p = P + row * stride;
  const T* q = Q + row * stride;
  T* d = dP + row * stride;
  float mp = -INFINITY, sp = 0.f, mq = -INFINITY, sq = 0.f, acc = 0.f;
  for (int c = lane; c < n; c += 32) {
    const float x = to_f(p[c]), y = to_f(q[c]);
    const float np = fmaxf(mp, x), nq = fmaxf(mq, y);
    const float f = __expf(mp - np), e = __expf(x - np);
    acc = acc * f + e * (x - y);
    sp = sp * f + e;
    mp = np;
    sq = sq * __expf(mq - nq) + __expf(y - nq);
    mq = nq;
  }
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) {
    const float omp = __shfl_xor_sync(~0u, mp, o), osp = __shfl_xor_sync(~0u, sp, o),
                oac = __shfl_xor_sync(~0u, acc, o);
    const float omq = __shfl_xor_sync(~0u, mq, o), osq = __shfl_xor_sync(~0u, sq, o);
    const float np = fmaxf(mp, omp), nq = fmaxf(mq, omq);
    const float f = mp == np ? 1.f : __expf(mp - np), g = omp == np ? 1.f : __expf(omp - np);
    const float h = mq == nq ? 1.f : __expf(mq - nq), k = omq == nq ? 1.f : __expf(omq - nq);
    sp = sp * f + osp * g;
    acc = acc * f + oac * g;
    mp = np;
    sq = sq * h + osq * k;
    mq = nq;
  }
  const float lp = mp + __logf(sp), lq = mq + __logf(sq), kl = acc / sp - lp + lq;
  if (lane == 0) atomicAdd(loss, kl * scale);
  for (int c = lane; c < n; c += 32) {
    const float a = to_f(p[c]) - lp, e = a - (to_f(q[c]) - lq);
    d[c] = from_f<T>(__expf(a) * (e - kl) * scale);
  }
}

template <typename T, int VEC>
__global__ void negate(const T* __restrict__ x, T* __restrict__ y, int64_t n) {
  using V = Vec<T, VEC>;
  const int64_t i0 = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * VEC,
                step = (int64_t)gridDim.x * blockDim.x * VEC;
  for (int64_t i = i0; i < n; i += step) {
    if (i + VEC <= n) {
      V a = *reinterpret_cast<const V*>(x + i);
#pragma unroll
      for (int j = 0; j < VEC; ++j) a.v[j] = neg_(a.v[j]);
      *reinterpret_cast<V*>(y + i) = a;
    } else
      for (int64_t k = i; k < n; ++k) y[k] = neg_(x[k]);
  }
}
}  // namespace sample
