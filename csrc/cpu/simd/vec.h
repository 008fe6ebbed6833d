// SIMD vectors as compiler vector extensions: ordinary operators, no torch, one source for every instruction set.
//
// The translation unit that includes this header defines
//   GK_ISA           the namespace of this instruction set,
//   GK_VECTOR_BYTES  the register width (16, 32 or 64),
//   GK_AVX2 / GK_AVX512 where intrinsics for that set may be used.
// Compilers without vector extensions get vectors of one element.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(GK_AVX2) || defined(GK_AVX512)
#include <immintrin.h>
#endif

#if defined(__GNUC__)
#define GK_INLINE inline __attribute__((always_inline))
#else
#define GK_INLINE inline
#endif

namespace gankernels::GK_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that a storage type is computed in: float, or double for double.
template <class T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

// std::bit_cast would be one symbol shared by all instruction sets: the linker could keep the AVX-512 one.
template <class To, class From>
GK_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class A>
struct Traits;
template <>
struct Traits<float> {
  using Int = int32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
};
template <>
struct Traits<double> {
  using Int = int64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
};

#if defined(__GNUC__)
template <class T, int kLanes>
struct VectorOf;
#define GK_VECTOR_OF(T, LANES)                                      \
  template <>                                                       \
  struct VectorOf<T, LANES> {                                       \
    typedef T type __attribute__((vector_size(LANES * sizeof(T)))); \
  };
#define GK_VECTORS(LANES)       \
  GK_VECTOR_OF(float, LANES)    \
  GK_VECTOR_OF(double, LANES)   \
  GK_VECTOR_OF(int32_t, LANES)  \
  GK_VECTOR_OF(int64_t, LANES)  \
  GK_VECTOR_OF(uint32_t, LANES) \
  GK_VECTOR_OF(uint16_t, LANES)
GK_VECTORS(2)
GK_VECTORS(4)
GK_VECTORS(8)
GK_VECTORS(16)
#undef GK_VECTORS
#undef GK_VECTOR_OF
template <class A>
inline constexpr int lanes = GK_VECTOR_BYTES / static_cast<int>(sizeof(A));
template <class A>
using Vec = typename VectorOf<A, lanes<A>>::type;
template <class A>
using IntVec = typename VectorOf<typename Traits<A>::Int, lanes<A>>::type;

template <class V, class I>
GK_INLINE V convert(I x) {
  return __builtin_convertvector(x, V);
}
template <class A>
GK_INLINE Vec<A> splat(A x) {
  return x - Vec<A>{};  // x - 0 keeps the sign of a zero
}
#else
template <class A>
inline constexpr int lanes = 1;
template <class A>
using Vec = A;
template <class A>
using IntVec = typename Traits<A>::Int;

template <class V, class I>
GK_INLINE V convert(I x) {
  return static_cast<V>(x);
}
template <class A>
GK_INLINE Vec<A> splat(A x) {
  return x;
}
#endif

// x where x > m, else m: a NaN in x is passed over.
template <class A>
GK_INLINE Vec<A> max_of(Vec<A> x, Vec<A> m) {
#if defined(GK_AVX512)
  if constexpr (std::is_same_v<A, float>)
    return bit_cast<Vec<A>>(_mm512_max_ps(bit_cast<__m512>(x), bit_cast<__m512>(m)));
#elif defined(GK_AVX2)
  if constexpr (std::is_same_v<A, float>)
    return bit_cast<Vec<A>>(_mm256_max_ps(bit_cast<__m256>(x), bit_cast<__m256>(m)));
#endif
  return x > m ? x : m;
}

// Active elements of a step: all lanes, or the first `count` of them.
template <class A>
struct Full {
  static constexpr int count = lanes<A>;
};
struct Partial {
  int count;
};

// ---- reductions across lanes -------------------------------------------------------------------------------------

template <class A, class F>
GK_INLINE A reduce(Vec<A> v, F&& combine) {
  if constexpr (lanes<A> == 1) {
    return bit_cast<A>(v);
  } else {
    A x[lanes<A>];
    std::memcpy(x, &v, sizeof(v));
    for (int width = lanes<A> / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) x[i] = combine(x[i], x[i + width]);
    return x[0];
  }
}

template <class A>
GK_INLINE A reduce_sum(Vec<A> v) {
#if defined(GK_AVX512)
  if constexpr (std::is_same_v<A, float>) return _mm512_reduce_add_ps(bit_cast<__m512>(v));
#elif defined(GK_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    const __m256 x = bit_cast<__m256>(v);
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_shuffle_ps(y, y, 1)));
  }
#endif
  return reduce<A>(v, [](A a, A b) { return a + b; });
}

template <class A>
GK_INLINE A reduce_max(Vec<A> v) {
#if defined(GK_AVX512)
  if constexpr (std::is_same_v<A, float>) return _mm512_reduce_max_ps(bit_cast<__m512>(v));
#elif defined(GK_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    const __m256 x = bit_cast<__m256>(v);
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_shuffle_ps(y, y, 1)));
  }
#endif
  return reduce<A>(v, [](A a, A b) { return a > b ? a : b; });
}

// ---- transposing a square of vectors ------------------------------------------------------------------------------

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define GK_HAS_SHUFFLE 1

// Exchanges the off-diagonal blocks of width kBlock: result[j] is a[j] or b[j - kBlock], and a[j + kBlock] or b[j].
template <class A, int kBlock, size_t... kIndex>
GK_INLINE void exchange(Vec<A>& a, Vec<A>& b, std::index_sequence<kIndex...>) {
  constexpr int n = lanes<A>;
  const Vec<A> low = __builtin_shufflevector(a, b, (kIndex & kBlock ? n + int(kIndex) - kBlock : int(kIndex))...);
  const Vec<A> high = __builtin_shufflevector(a, b, (kIndex & kBlock ? n + int(kIndex) : int(kIndex) + kBlock)...);
  a = low, b = high;
}

template <class A, int kBlock = lanes<A> / 2>
GK_INLINE void transpose(Vec<A>* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes<A>; ++i)
    if ((i & kBlock) == 0) exchange<A, kBlock>(rows[i], rows[i + kBlock], std::make_index_sequence<lanes<A>>{});
  if constexpr (kBlock > 1) transpose<A, kBlock / 2>(rows);
}
#endif

// ---- 16-bit storage types ----------------------------------------------------------------------------------------

#if defined(__GNUC__)
using UIntVec = typename VectorOf<uint32_t, lanes<float>>::type;
using ShortVec = typename VectorOf<uint16_t, lanes<float>>::type;
#else
using UIntVec = uint32_t;
using ShortVec = uint16_t;
#endif

GK_INLINE Vec<float> widen(ShortVec h, BFloat16*) { return bit_cast<Vec<float>>(convert<UIntVec>(h) << 16); }

GK_INLINE ShortVec narrow(Vec<float> x, BFloat16*) {
  const UIntVec bits = bit_cast<UIntVec>(x);
  // Round to nearest even; a NaN must not round up to infinity, so it keeps its upper half and turns quiet.
  const UIntVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return convert<ShortVec>(x != x ? (bits >> 16) | 0x40u : rounded);
}

#if defined(GK_AVX512)
GK_INLINE Vec<float> widen(ShortVec h, Half*) { return bit_cast<Vec<float>>(_mm512_cvtph_ps(bit_cast<__m256i>(h))); }
GK_INLINE ShortVec narrow(Vec<float> x, Half*) {
  return bit_cast<ShortVec>(_mm512_cvtps_ph(bit_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(GK_AVX2)
GK_INLINE Vec<float> widen(ShortVec h, Half*) { return bit_cast<Vec<float>>(_mm256_cvtph_ps(bit_cast<__m128i>(h))); }
GK_INLINE ShortVec narrow(Vec<float> x, Half*) {
  return bit_cast<ShortVec>(_mm256_cvtps_ph(bit_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT));
}
#else
GK_INLINE Vec<float> widen(ShortVec h, Half*) {
  const UIntVec u = convert<UIntVec>(h);
  const UIntVec sign = (u & 0x8000u) << 16;
  // Moving exponent and mantissa into place leaves the exponent 112 too small, subnormals included.
  const Vec<float> scaled = bit_cast<Vec<float>>((u & 0x7fffu) << 13) * 0x1p112f;
  const UIntVec finite = bit_cast<UIntVec>(scaled);
  const UIntVec special = ((u & 0x03ffu) << 13) | 0x7f800000u;
  return bit_cast<Vec<float>>(((u & 0x7c00u) == 0x7c00u ? special : finite) | sign);
}
GK_INLINE ShortVec narrow(Vec<float> x, Half*) {
  const UIntVec bits = bit_cast<UIntVec>(x);
  const UIntVec magnitude = bits & 0x7fffffffu;
  // Subnormal results: adding 0.5 aligns the mantissa so that the FPU itself rounds to nearest even.
  const UIntVec subnormal = bit_cast<UIntVec>(bit_cast<Vec<float>>(magnitude) + 0.5f) - 0x3f000000u;
  const UIntVec normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  UIntVec half = magnitude < (113u << 23) ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? UIntVec{} + 0x7c00u : half;  // 65520 and above round to infinity
  half = magnitude > 0x7f800000u ? UIntVec{} + 0x7e00u : half;
  return convert<ShortVec>(half | ((bits >> 16) & 0x8000u));
}
#endif

// ---- loads and stores, converting to and from the accumulation type ----------------------------------------------

template <class A, class T>
GK_INLINE Vec<A> load(const T* p, Full<A>, A = A{}) {
  if constexpr (std::is_same_v<A, T>) {
    Vec<A> v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  } else {
    ShortVec h;
    std::memcpy(&h, p, sizeof(h));
    return widen(h, static_cast<T*>(nullptr));
  }
}

template <class A, class T>
GK_INLINE void store(T* p, Vec<A> v, Full<A>) {
  if constexpr (std::is_same_v<A, T>) {
    std::memcpy(p, &v, sizeof(v));
  } else {
    const ShortVec h = narrow(v, static_cast<T*>(nullptr));
    std::memcpy(p, &h, sizeof(h));
  }
}

// Copies at most lanes - 1 elements: a loop over the bits of `count`, because memcpy of unknown length is a call.
template <int kLanes, class T>
GK_INLINE void copy_few(T* to, const T* from, int count) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    if (count & width) {
      if (width == 8) std::memcpy(to, from, 8 * sizeof(T));
      if (width == 4) std::memcpy(to, from, 4 * sizeof(T));
      if (width == 2) std::memcpy(to, from, 2 * sizeof(T));
      if (width == 1) std::memcpy(to, from, sizeof(T));
      to += width;
      from += width;
    }
  }
}

template <class A, class T>
GK_INLINE Vec<A> load(const T* p, Partial n, A fill = A{}) {
  if (n.count == lanes<A>) return load<A>(p, Full<A>{});
#if defined(GK_AVX512)
  const __mmask16 mask = static_cast<__mmask16>((1u << n.count) - 1u);
  if constexpr (std::is_same_v<T, float>) {
    return bit_cast<Vec<A>>(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, p));
  } else if constexpr (std::is_same_v<T, double>) {
    return bit_cast<Vec<A>>(_mm512_mask_loadu_pd(_mm512_set1_pd(fill), static_cast<__mmask8>(mask), p));
  } else {
    const __m256i h = _mm256_maskz_loadu_epi16(mask, p);
    const __m512 x = bit_cast<__m512>(widen(bit_cast<ShortVec>(h), static_cast<T*>(nullptr)));
    return bit_cast<Vec<A>>(_mm512_mask_mov_ps(_mm512_set1_ps(fill), mask, x));
  }
#else
  if constexpr (std::is_same_v<A, T>) {
    A x[lanes<A>];
    const Vec<A> filled = splat<A>(fill);
    std::memcpy(x, &filled, sizeof(x));
    copy_few<lanes<A>>(x, p, n.count);
    return load<A>(x, Full<A>{});
  } else {
    T x[lanes<A>] = {};
    copy_few<lanes<A>>(x, p, n.count);
    A wide[lanes<A>];
    const Vec<A> v = load<A>(x, Full<A>{});
    std::memcpy(wide, &v, sizeof(v));
    for (int i = n.count; i < lanes<A>; ++i) wide[i] = fill;
    return load<A>(wide, Full<A>{});
  }
#endif
}

template <class A, class T>
GK_INLINE void store(T* p, Vec<A> v, Partial n) {
  if (n.count == lanes<A>) return store<A>(p, v, Full<A>{});
#if defined(GK_AVX512)
  const __mmask16 mask = static_cast<__mmask16>((1u << n.count) - 1u);
  if constexpr (std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(p, mask, bit_cast<__m512>(v));
  } else if constexpr (std::is_same_v<T, double>) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), bit_cast<__m512d>(v));
  } else {
    _mm256_mask_storeu_epi16(p, mask, bit_cast<__m256i>(narrow(v, static_cast<T*>(nullptr))));
  }
#else
  T x[lanes<A>];
  store<A>(x, v, Full<A>{});
  copy_few<lanes<A>>(p, x, n.count);
#endif
}

}  // namespace gankernels::GK_ISA
