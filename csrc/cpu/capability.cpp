#include "capability.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>

namespace gankernels {

namespace {

#if defined(__x86_64__) && defined(__GNUC__)
// Clang before 15 does not know the name in __builtin_cpu_supports.
bool has_f16c() {
  unsigned int a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const Kernels& choose() {
  const char* variable = std::getenv("GANKERNELS_CPU_CAPABILITY");
  const std::string wanted = variable == nullptr ? "" : variable;
#if defined(__x86_64__) && defined(__GNUC__)
  if (has_avx512() && (wanted != "avx2" && wanted != "portable")) return avx512_kernels();
  if (has_avx2() && wanted != "portable") return avx2_kernels();
#endif
  return portable_kernels();
}

}  // namespace

const Kernels& cpu_kernels() {
  static const Kernels& kernels = choose();
  return kernels;
}

}  // namespace gankernels
