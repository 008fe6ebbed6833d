// What an anchor shared by all rows contributes to each of them.
#pragma once

#include "../kernels.h"
#include "divergence.h"

namespace gankernels::GK_ISA {

// Few numbers as doubles: lanes<double> of them, or the first of these and zeros.
template <class A>
GK_INLINE Vec<double> load_as_doubles(const A* x, int64_t count) {
  A few[lanes<double>] = {};
  if (count >= lanes<double>) std::memcpy(few, x, sizeof(few));
  else
    for (int64_t i = 0; i < count; ++i) few[i] = x[i];
  Vec<double> v;
  double wide[lanes<double>];
  for (int i = 0; i < lanes<double>; ++i) wide[i] = static_cast<double>(few[i]);
  std::memcpy(&v, wide, sizeof(v));
  return v;
}

// sum a and sum a log a in double, by blocks: the error of one running sum would grow with the number of classes.
template <class A>
AnchorSums sums_of(const A* x, int64_t n) {
  constexpr int64_t block = int64_t{16} * lanes<double>;
  Vec<double> mass{}, entropy{};
  for (int64_t first = 0; first < n; first += block) {
    const int64_t last = first + block < n ? first + block : n;
    Vec<double> block_mass{}, block_entropy{};
    for (int64_t k = first; k < last; k += lanes<double>) {
      const Vec<double> a = load_as_doubles(x + k, last - k);
      block_mass += a;
      block_entropy += x_log_x<double>(a);
    }
    mass += block_mass, entropy += block_entropy;
  }
  return {reduce_sum<double>(mass), reduce_sum<double>(entropy)};
}

inline AnchorSums anchor_sums(Dtype dtype, const void* x, int64_t n) {
  if (dtype == Dtype::kDouble) return sums_of(static_cast<const double*>(x), n);
  return sums_of(static_cast<const float*>(x), n);
}

}  // namespace gankernels::GK_ISA
