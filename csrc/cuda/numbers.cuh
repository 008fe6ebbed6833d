// Element types, their accumulation type, and moving a thread's share of a row between memory and registers.
#pragma once

#include "platform.cuh"
#include "launches.h"

namespace gankernels::cuda {

template <class T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class A, class T>
GK_DEVICE A widen(T x) {
  if constexpr (std::is_same_v<T, __half>) return static_cast<A>(__half2float(x));
  else if constexpr (std::is_same_v<T, __nv_bfloat16>) return static_cast<A>(__bfloat162float(x));
  else return static_cast<A>(x);
}

template <class T, class A>
GK_DEVICE T narrow(A x) {
  if constexpr (std::is_same_v<T, __half>) return __float2half_rn(static_cast<float>(x));
  else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16_rn(static_cast<float>(x));
  else return static_cast<T>(x);
}

// One access of up to 16 bytes, or several of 16.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T value[kCount];
};

// Elements of T in 16 bytes.
template <class T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));

// 16-bit numbers in words that the compiler does not see into: it would take the run apart.
template <class T, int kCount>
GK_DEVICE void store_pack(T* to, const Pack<T, kCount>& pack) {
  if constexpr (sizeof(T) == 2 && sizeof(pack) == 16) {
    unsigned words[4];
    memcpy(words, &pack, sizeof words);
    store_words(to, words);
  } else {
    *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
  }
}

template <class A>
GK_DEVICE A infinity() {
  return static_cast<A>(INFINITY);
}

GK_DEVICE float max_of(float a, float b) { return fmaxf(a, b); }  // the other one of a NaN
GK_DEVICE double max_of(double a, double b) { return fmax(a, b); }
GK_DEVICE float exp_of(float x) { return expf(x); }
GK_DEVICE double exp_of(double x) { return exp(x); }
GK_DEVICE float fma_of(float a, float b, float c) { return fmaf(a, b, c); }
GK_DEVICE double fma_of(double a, double b, double c) { return fma(a, b, c); }
GK_DEVICE float log_of(float x) { return logf(x); }
GK_DEVICE double log_of(double x) { return log(x); }
GK_DEVICE float log1p_of(float x) { return log1pf(x); }
GK_DEVICE double log1p_of(double x) { return log1p(x); }

constexpr float kLog2E = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

// exp(x) beside logits of T. Those of 16 bits carry errors that dwarf the |x| 2^-24 of this product's rounding.
template <class T, class A>
GK_DEVICE A exp_for(A x) {
  if constexpr (sizeof(T) == 2) return exp2_unit(x * kLog2E);
  else return exp_of(x);
}

// log(1 + e) for e in [0, 1] beside logits of T; by its series where 1 + e has lost the digits of e.
template <class T, class A>
GK_DEVICE A log1p_for(A e) {
  if constexpr (sizeof(T) == 2) {
    const A series = e * fma_of(e, fma_of(e, A(1) / A(3), A(-0.5)), A(1));
    return e < A(1) / A(64) ? series : log2_unit(A(1) + e) * kLn2;
  } else {
    return log1p_of(e);
  }
}

// log(x) of a normal number beside logits of T.
template <class T, class A>
GK_DEVICE A log_for(A x) {
  if constexpr (sizeof(T) == 2) return log2_unit(x) * kLn2;
  else return log_of(x);
}

// a / b beside logits of T.
template <class T, class A>
GK_DEVICE A quotient_for(A a, A b) {
  if constexpr (sizeof(T) == 2) return a * reciprocal_unit(b);
  else return a / b;
}

// b * t with 0 * (-inf) = 0; a NaN in b stays.
template <class A>
GK_DEVICE A masked_product(A b, A t) {
  return b == A(0) ? A(0) : b * t;
}

// a log a with 0 log 0 = 0, beside logits of T.
template <class T, class A>
GK_DEVICE A x_log_x(A a) {
  if constexpr (sizeof(T) == 2) {
    // The unit takes the logarithm of a subnormal number for that of 0.
    const bool is_tiny = a < A(FLT_MIN) && a > -A(FLT_MIN);
    return is_tiny ? A(0) : a * (log2_unit(a) * kLn2);
  } else {
    return a == A(0) ? A(0) : a * log_of(a);
  }
}

// The classes of a row that one of its threads holds: runs of kWidth, dealt out in turn.
struct Share {
  int rank, size;  // this thread among those of the row
  int classes;     // of the row; 0 for a thread without one
  int first = 0;   // class where this chunk of the row begins

  // The run of classes that begins with a value, alone.
  GK_DEVICE Share run(int value) const { return {rank, size, classes, first + value * size}; }

  template <int kWidth>
  GK_DEVICE int at(int value) const {
    return first + ((value / kWidth) * size + rank) * kWidth + value % kWidth;
  }
};

template <int kWidth, class A, class T, int kValues>
GK_DEVICE void load(A (&x)[kValues], const T* row, int64_t stride, const Share& share, A fill) {
#pragma unroll
  for (int i = 0; i < kValues; i += kWidth) {
    const int k = share.at<kWidth>(i);
    if (k < share.classes) {
      if constexpr (kWidth == 1) {
        x[i] = widen<A>(row[k * stride]);
      } else {
        const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(row + k);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) x[i + j] = widen<A>(pack.value[j]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[i + j] = fill;
    }
  }
}

template <int kWidth, class A, class T, int kValues>
GK_DEVICE void store(T* row, int64_t stride, const A (&x)[kValues], const Share& share) {
#pragma unroll
  for (int i = 0; i < kValues; i += kWidth) {
    const int k = share.at<kWidth>(i);
    if (k >= share.classes) continue;
    if constexpr (kWidth == 1) {
      row[k * stride] = narrow<T>(x[i]);
    } else {
      Pack<T, kWidth> pack;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) pack.value[j] = narrow<T>(x[i + j]);
      store_pack(row + k, pack);
    }
  }
}

// A thread's share of a row as it lies in memory: elements of 16 bits take half the registers that their values take.
// Runs of 16 bytes are kept as words, which the compiler would otherwise take apart.
template <class T, int kValues, int kWidth>
struct Raw {
  static constexpr bool kWords = kWidth > 1;
  static constexpr int kEach = kWords ? 4 : 1;                                      // words, or elements, of a run
  static constexpr int kElements = static_cast<int>(sizeof(unsigned) / sizeof(T));  // of a word
  using Unit = std::conditional_t<kWords, unsigned, T>;

  Unit units[kValues / kWidth * kEach];

  // -inf where the row has no class.
  GK_DEVICE void load(const T* row, int64_t stride, const Share& share) {
#pragma unroll
    for (int i = 0; i < kValues; i += kWidth) {
      const int k = share.at<kWidth>(i), first = i / kWidth * kEach;
      Pack<Unit, kEach> run;
      if (k < share.classes) {
        run = *reinterpret_cast<const Pack<Unit, kEach>*>(kWords ? row + k : row + k * stride);
      } else {
        Pack<T, kWidth> nothing;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) nothing.value[j] = narrow<T>(-infinity<Accumulate<T>>());
        memcpy(&run, &nothing, sizeof run);
      }
#pragma unroll
      for (int w = 0; w < kEach; ++w) units[first + w] = run.value[w];
    }
  }

  // What was computed from a run is computed anew from here on: kept, it would be more than the registers.
  GK_DEVICE void forget(int i) {
#pragma unroll
    for (int w = 0; w < kEach; ++w) asm volatile("" : "+r"(units[i / kWidth * kEach + w]));
  }

  template <class A>
  GK_DEVICE A value(int v) const {
    if constexpr (!kWords) {
      return widen<A>(units[v]);
    } else {
      T x;
      const unsigned word = units[v / kElements];
      if constexpr (kElements == 2) {
        const auto half = static_cast<uint16_t>(v % 2 ? word >> 16 : word & 0xffffu);
        memcpy(&x, &half, sizeof x);
      } else {
        memcpy(&x, &word, sizeof x);
      }
      return widen<A>(x);
    }
  }

  template <class A, int kCount>
  GK_DEVICE void widen_from(A (&x)[kCount], int first) const {
#pragma unroll
    for (int j = 0; j < kCount; ++j) x[j] = value<A>(first + j);
  }
};

struct Position {
  int64_t outer, inner;
};

// A row and this thread's share of it.
struct Turn {
  Position at;
  Share share;
};

template <class T>
GK_DEVICE T* row_of(const Rows& rows, Position at) {
  return static_cast<T*>(rows.data) + at.outer * rows.outer + at.inner * rows.inner;
}

// A row of a target; zeros where there is none. The branches are the same for all threads.
template <class T, int kWidth, class A, int kValues>
GK_DEVICE void load_target(A (&x)[kValues], const Target& target, Position at, const Share& share) {
  if (target.rows.data == nullptr) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) x[i] = A(0);
  } else if (std::is_same_v<T, A> || target.wide) {
    load<kWidth>(x, row_of<const A>(target.rows, at), target.rows.cls, share, A(0));
  } else {
    load<kWidth>(x, row_of<const T>(target.rows, at), target.rows.cls, share, A(0));
  }
}

}  // namespace gankernels::cuda
