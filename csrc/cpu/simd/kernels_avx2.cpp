// The kernels for AVX2, chosen at run time.
#if defined(__x86_64__) && defined(__GNUC__)

// Shared headers first: nothing of the standard library may be compiled for this instruction set.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "../kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define GK_ISA avx2
#define GK_VECTOR_BYTES 32
#define GK_AVX2
#include "anchors.h"
#include "divergence_layouts.h"
#include "resample.h"
#include "scalar.h"
#include "gradient_scale.h"

namespace gankernels {

const Kernels& avx2_kernels() {
  static const Kernels kernels{"avx2",         avx2::kl,    avx2::anchor_sums, avx2::scalar,
                               avx2::resample, avx2::scale, avx2::scale_rows};
  return kernels;
}

}  // namespace gankernels

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
