// The threads that work on one row, and their reductions: every thread gets the same bits, in a fixed order.
#pragma once

#include "numbers.cuh"

namespace gankernels::cuda {

struct Plus {
  template <class A>
  GK_DEVICE A operator()(A a, A b) const {
    return a + b;
  }
};
struct Larger {
  template <class A>
  GK_DEVICE A operator()(A a, A b) const {
    return max_of(a, b);
  }
};

// a + b = b + a: each step of the butterfly leaves the same bits in both partners.
template <class Op, class A, int kCount>
GK_DEVICE void meet(A (&x)[kCount], int o) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) x[n] = Op()(x[n], __shfl_xor_sync(kAllLanes, x[n], o));
}

template <class Op, class A, int kCount>
GK_DEVICE void butterfly(A (&x)[kCount], int lanes) {
  // Unrolled for a whole warp: its steps are most of what a row costs beside its classes.
  if (lanes == kWarp) {
#pragma unroll
    for (int o = kWarp / 2; o > 0; o /= 2) meet<Op>(x, o);
  } else {
    for (int o = lanes / 2; o > 0; o /= 2) meet<Op>(x, o);
  }
}

constexpr int kMaxSums = 5;  // values reduced at once

// The threads of a row are neighbours: a power of two of them, a part of a warp or several warps.
template <class A>
class Neighbours {
 public:
  static constexpr bool kColumns = false;
  static constexpr int kShared = 2 * kMaxSums * kWarp;

  GK_DEVICE Neighbours(A* memory, int log2_threads)
      : memory_(memory), log2_(log2_threads), thread_(static_cast<int>(threadIdx.x)) {}

  GK_DEVICE int rows_per_block() const { return static_cast<int>(blockDim.x) >> log2_; }
  GK_DEVICE int row() const { return thread_ >> log2_; }
  GK_DEVICE int rank() const { return thread_ & (size() - 1); }
  GK_DEVICE int size() const { return 1 << log2_; }

  template <class Op, int kCount>
  GK_DEVICE void reduce(A (&x)[kCount]) {
    static_assert(kCount <= kMaxSums);
    butterfly<Op>(x, size() < kWarp ? size() : kWarp);
    if (size() <= kWarp) return;
    // Two halves of the memory in turn: whoever writes one again has passed the other's barrier, as all readers have.
    A* half = memory_ + turn_ * (kMaxSums * kWarp);
    turn_ ^= 1;
    const int lane = thread_ % kWarp, warps = size() / kWarp, first = row() * warps;
    if (lane == 0) {
#pragma unroll
      for (int n = 0; n < kCount; ++n) half[n * kWarp + thread_ / kWarp] = x[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kCount; ++n) x[n] = half[n * kWarp + first + (lane & (warps - 1))];
    butterfly<Op>(x, warps);
  }

 private:
  A* memory_;
  int log2_, thread_, turn_ = 0;
};

// The threads of a row are those of the block, as many as the compiler knows: addresses are constants apart.
template <class A, int kThreads>
class WholeBlock : public Neighbours<A> {
 public:
  using Neighbours<A>::Neighbours;

  GK_DEVICE int rows_per_block() const { return 1; }
  GK_DEVICE int row() const { return 0; }
  GK_DEVICE int rank() const { return static_cast<int>(threadIdx.x); }
  GK_DEVICE int size() const { return kThreads; }
};

// Neighbouring lanes hold neighbouring rows, and a row's classes are dealt out to a power of two of warps.
template <class A>
class Stacked {
 public:
  static constexpr bool kColumns = true;
  static constexpr int kMaxWarps = sizeof(A) == 8 ? 8 : 16;
  static constexpr int kShared = 2 * kMaxSums * kMaxWarps * kWarp;

  GK_DEVICE Stacked(A* memory, int log2_warps)
      : memory_(memory), log2_(log2_warps), warp_(static_cast<int>(threadIdx.x) / kWarp) {}

  GK_DEVICE int rows_per_block() const { return static_cast<int>(blockDim.x) >> log2_; }
  GK_DEVICE int row() const { return (warp_ >> log2_) * kWarp + lane(); }
  GK_DEVICE int rank() const { return warp_ & (size() - 1); }
  GK_DEVICE int size() const { return 1 << log2_; }

  template <class Op, int kCount>
  GK_DEVICE void reduce(A (&x)[kCount]) {
    static_assert(kCount <= kMaxSums);
    if (log2_ == 0) return;
    A* half = memory_ + turn_ * (kMaxSums * kMaxWarps * kWarp);
    turn_ ^= 1;
    const auto at = [&](int n, int warp) -> A& { return half[(n * kMaxWarps + warp) * kWarp + lane()]; };
#pragma unroll
    for (int n = 0; n < kCount; ++n) at(n, warp_) = x[n];
    __syncthreads();
    const int first = warp_ & -size();
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      x[n] = at(n, first);
      for (int w = 1; w < size(); ++w) x[n] = Op()(x[n], at(n, first + w));
    }
  }

 private:
  GK_DEVICE int lane() const { return static_cast<int>(threadIdx.x) % kWarp; }

  A* memory_;
  int log2_, warp_, turn_ = 0;
};

}  // namespace gankernels::cuda
