// exp, log and softplus on vectors, written once for float and double: no table, no libm call.
#pragma once

#include <limits>

#include "vec.h"

namespace gankernels::GK_ISA {

#if defined(__GNUC__)
#define GK_UNROLL _Pragma("GCC unroll 32")
#else
#define GK_UNROLL
#endif

template <class A, int kTerms>
struct Coefficients {
  A value[kTerms];
};

// sum_k c_k x^k, by Horner.
template <class A, int kTerms>
GK_INLINE Vec<A> polynomial(Vec<A> x, const Coefficients<A, kTerms>& c) {
  Vec<A> sum = splat<A>(c.value[kTerms - 1]);
  GK_UNROLL
  for (int k = kTerms - 2; k >= 0; --k) sum = c.value[k] + x * sum;
  return sum;
}

// Of e^x: the Taylor series, in float its minimax counterpart on |x| <= ln(2)/2.
template <class A>
constexpr auto exp_coefficients() {
  if constexpr (std::is_same_v<A, float>) {
    return Coefficients<float, 7>{
        {1, 1, 0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f, 0x1.123a2p-7f, 0x1.6a23dp-10f}};
  } else {
    Coefficients<A, 14> c{};
    double factorial = 1;
    for (int k = 0; k < 14; ++k) {
      factorial *= k == 0 ? 1 : k;
      c.value[k] = static_cast<A>(1 / factorial);
    }
    return c;
  }
}

// 2 / (2k + 1), the coefficients of 2 atanh(s) / s in powers of s^2.
template <class A, int kTerms>
constexpr Coefficients<A, kTerms> atanh_coefficients() {
  Coefficients<A, kTerms> c{};
  for (int k = 0; k < kTerms; ++k) c.value[k] = static_cast<A>(2.0 / (2 * k + 1));
  return c;
}

// 2^n * y for integral n in float form, exact down to the subnormals.
template <class A>
GK_INLINE Vec<A> scale_by_power_of_two(Vec<A> y, Vec<A> n) {
#if defined(GK_AVX512)
  if constexpr (std::is_same_v<A, float>) {
    return bit_cast<Vec<A>>(_mm512_scalef_ps(bit_cast<__m512>(y), bit_cast<__m512>(n)));
  } else {
    return bit_cast<Vec<A>>(_mm512_scalef_pd(bit_cast<__m512d>(y), bit_cast<__m512d>(n)));
  }
#else
  constexpr auto bits = Traits<A>::mantissa_bits;
  const IntVec<A> whole = convert<IntVec<A>>(n);
  // Two factors: 2^n alone would leave the exponent range where the result is subnormal.
  const IntVec<A> half = whole / 2, rest = whole - half;
  return y * bit_cast<Vec<A>>((half + Traits<A>::bias) << bits) * bit_cast<Vec<A>>((rest + Traits<A>::bias) << bits);
#endif
}

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2)/2, e^r by a polynomial.
// Its relative error is 3e-9 in float (degree 6) and r^14/14! = 4e-18 in double. NaN stays NaN.
template <class A, bool kNonPositive = false>
GK_INLINE Vec<A> exp(Vec<A> x) {
  constexpr bool is_float = std::is_same_v<A, float>;
  constexpr A lowest = is_float ? A(-104) : A(-746);  // below: less than half the least subnormal
  constexpr A highest = is_float ? A(89) : A(710);    // above: infinity
  constexpr A log2_e = A(1.44269504088896340736);
  constexpr A ln2_high = is_float ? A(0.693145751953125) : A(0.69314718036912381649);
  constexpr A ln2_low = is_float ? A(1.428606765330187045e-6) : A(1.90821492927058770002e-10);
  constexpr A shifter = is_float ? A(0x1.8p23) : A(0x1.8p52);  // adding it rounds to an integer
  x = max_of<A>(splat<A>(lowest), x);                          // in this order NaN stays
  if constexpr (!kNonPositive) x = x > highest ? splat<A>(highest) : x;
  const Vec<A> n = (x * log2_e + shifter) - shifter;
  const Vec<A> r = (x - n * ln2_high) - n * ln2_low;
  constexpr auto coefficients = exp_coefficients<A>();
  const Vec<A> y = polynomial<A>(r, coefficients);
  return scale_by_power_of_two<A>(y, n);
}

// e^x for x <= 0, NaN allowed.
template <class A>
GK_INLINE Vec<A> exp_non_positive(Vec<A> x) {
  return exp<A, true>(x);
}

// 2 atanh(s) = 2 sum s^(2k+1) / (2k+1) = log((1+s)/(1-s)), for |s| such that `kTerms` terms suffice.
template <int kTerms, class A>
GK_INLINE Vec<A> twice_atanh(Vec<A> s) {
  constexpr auto coefficients = atanh_coefficients<A, kTerms>();
  return s * polynomial<A>(s * s, coefficients);
}

// log x = e ln 2 + log m, m in [1/sqrt 2, sqrt 2), log m = 2 atanh((m-1)/(m+1)) with |s| <= 0.172.
// The remainder is below 3e-9 relative at 5 terms and 1e-18 at 11. log 0 = -inf, log(negative) = NaN.
template <class A>
GK_INLINE Vec<A> log(Vec<A> x) {
  using Int = typename Traits<A>::Int;
  constexpr bool is_float = std::is_same_v<A, float>;
  constexpr int bits = Traits<A>::mantissa_bits;
  constexpr A least = std::numeric_limits<A>::min(), infinity = std::numeric_limits<A>::infinity();
  constexpr A subnormal_scale = is_float ? A(0x1p24) : A(0x1p54);
  const Vec<A> scaled = x < least ? Vec<A>(x * subnormal_scale) : x;
  const IntVec<A> raw = bit_cast<IntVec<A>>(scaled);
  Vec<A> e = convert<Vec<A>>(IntVec<A>((raw >> bits) - Int(Traits<A>::bias)));
  e = x < least ? Vec<A>(e - (is_float ? A(24) : A(54))) : e;
  constexpr Int mantissa = (Int(1) << bits) - 1, one = Int(Traits<A>::bias) << bits;
  Vec<A> m = bit_cast<Vec<A>>(IntVec<A>((raw & mantissa) | one));
  const auto upper = m > A(1.41421356237309504880);
  m = upper ? Vec<A>(m * A(0.5)) : m;
  e = upper ? Vec<A>(e + A(1)) : e;
  const Vec<A> log_m = twice_atanh<is_float ? 5 : 11, A>((m - A(1)) / (m + A(1)));
  constexpr A ln2_high = is_float ? A(0.693145751953125) : A(0.69314718036912381649);
  constexpr A ln2_low = is_float ? A(1.428606765330187045e-6) : A(1.90821492927058770002e-10);
  Vec<A> y = e * ln2_high + (log_m + e * ln2_low);
  y = x == infinity ? x : y;
  y = x == A(0) ? splat<A>(-infinity) : y;
  // Negative or NaN, in the one comparison that is false for both.
  return x >= A(0) ? y : splat<A>(std::numeric_limits<A>::quiet_NaN());
}

}  // namespace gankernels::GK_ISA
