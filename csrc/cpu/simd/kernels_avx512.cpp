// The kernels for AVX512, chosen at run time.
#if defined(__x86_64__) && defined(__GNUC__)

#if !defined(__clang__)
// GCC's own header leaves the lanes that a mask drops undefined, and warns of that wherever it is inlined.
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

// Shared headers first: nothing of the standard library may be compiled for this instruction set.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "../kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define GK_ISA avx512
#define GK_VECTOR_BYTES 64
#define GK_AVX512
#include "anchors.h"
#include "divergence_layouts.h"
#include "resample.h"
#include "scalar.h"
#include "gradient_scale.h"

namespace gankernels {

const Kernels& avx512_kernels() {
  static const Kernels kernels{"avx512",         avx512::kl,    avx512::anchor_sums, avx512::scalar,
                               avx512::resample, avx512::scale, avx512::scale_rows};
  return kernels;
}

}  // namespace gankernels

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
