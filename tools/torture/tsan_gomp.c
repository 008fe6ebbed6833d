// Tells ThreadSanitizer what libgomp, which it does not see into, puts in order: a parallel region begins after what
// came before it, and what comes after it begins when every thread's part has ended.
#define _GNU_SOURCE
#include <dlfcn.h>

typedef void (*Function)(void*);
typedef void (*Parallel)(Function, void*, unsigned, unsigned);

void __tsan_acquire(void*);
void __tsan_release(void*);

struct Region {
  Function function;
  void* data;
};

static void part(void* argument) {
  struct Region* region = argument;
  __tsan_acquire(region);
  region->function(region->data);
  __tsan_release(region);
}

void GOMP_parallel(Function function, void* data, unsigned threads, unsigned flags) {
  struct Region region = {function, data};
  Parallel parallel = (Parallel)dlsym(RTLD_NEXT, "GOMP_parallel");
  __tsan_release(&region);
  parallel(part, &region, threads, flags);
  __tsan_acquire(&region);
}
