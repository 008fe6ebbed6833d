// CUDA, or the host shim that the tests compile the same code with. No torch headers: they cost minutes.
#pragma once

#if defined(GANKERNELS_HOST_SHIM)
#include "cuda_host_shim.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define GK_DEVICE __device__ __forceinline__

namespace gankernels::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// The special function unit itself, without the instructions around it that save subnormal numbers; whole accesses.
#if defined(GANKERNELS_HOST_SHIM)
GK_DEVICE float exp2_unit(float x) { return std::exp2(x); }
GK_DEVICE float log2_unit(float x) { return std::log2(x); }
GK_DEVICE float reciprocal_unit(float x) { return 1 / x; }
template <int kWords>
GK_DEVICE void store_words(void* to, const unsigned (&words)[kWords]) {
  std::memcpy(to, words, sizeof words);
}
template <int kWords>
GK_DEVICE void load_words(unsigned (&words)[kWords], const void* from) {
  std::memcpy(words, from, sizeof words);
}
#else
GK_DEVICE float exp2_unit(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GK_DEVICE float log2_unit(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GK_DEVICE float reciprocal_unit(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 16 or 8 bytes of global memory in one access.
GK_DEVICE void store_words(void* to, const unsigned (&words)[4]) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(to)), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}
GK_DEVICE void store_words(void* to, const unsigned (&words)[2]) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};"
               :
               : "l"(__cvta_generic_to_global(to)), "r"(words[0]), "r"(words[1])
               : "memory");
}
GK_DEVICE void load_words(unsigned (&words)[2], const void* from) {
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];"
               : "=r"(words[0]), "=r"(words[1])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
}
GK_DEVICE void load_words(unsigned (&words)[4], const void* from) {
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
}
#endif

}  // namespace gankernels::cuda
