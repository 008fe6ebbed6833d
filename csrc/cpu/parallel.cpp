// Parallel regions on the threads that torch itself has.
#include "parallel.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <exception>

#if defined(__linux__) && AT_PARALLEL_OPENMP
#define GANKERNELS_CALLS_GOMP

// What GCC makes of `#pragma omp parallel`, written out: every OpenMP library that a torch for Linux loads has these,
// whichever compiler built it. Clang's pragma calls a library that torch does not load.
extern "C" {
void GOMP_parallel(void (*function)(void*), void* data, unsigned num_threads, unsigned flags);
#if !defined(_OPENMP)  // else omp.h has them
int omp_get_num_threads();
int omp_get_thread_num();
#endif
}
#endif

namespace gankernels {

#if defined(GANKERNELS_CALLS_GOMP)

namespace {

struct Region {
  int64_t count, grain;
  c10::function_ref<void(int64_t, int64_t)> f;
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::exception_ptr error = nullptr;

  // One thread's share, as at::parallel_for deals them.
  void part() {
    const int64_t threads = std::min<int64_t>(omp_get_num_threads(), at::divup(count, std::max<int64_t>(1, grain)));
    const int64_t size = at::divup(count, threads), begin = omp_get_thread_num() * size;
    if (begin >= count) return;
    try {
      f(begin, std::min(count, begin + size));
    } catch (...) {
      if (!failed.test_and_set()) error = std::current_exception();
    }
  }
};

}  // namespace

void parallel_region(int64_t count, int64_t grain, c10::function_ref<void(int64_t, int64_t)> f) {
  // get_num_threads also tells this thread's OpenMP how many there are.
  if (at::in_parallel_region() || at::get_num_threads() == 1) return f(0, count);
  Region region{count, grain, f};
  GOMP_parallel([](void* data) { static_cast<Region*>(data)->part(); }, &region, 0, 0);
  if (region.error) std::rethrow_exception(region.error);
}

#else

void parallel_region(int64_t count, int64_t grain, c10::function_ref<void(int64_t, int64_t)> f) {
  at::parallel_for(0, count, grain, f);
}

#endif

}  // namespace gankernels
