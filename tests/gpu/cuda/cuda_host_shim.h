// Compiles CUDA device code as host C++, a block at a time, with the real conversions of the CUDA headers.
//
// By default the threads of a block are fibers that take turns at barriers and warp instructions: for tests of what
// is computed, and for -fsanitize=address,undefined. With HOST_SHIM_THREADS they are threads, so that
// -fsanitize=thread sees whether the barriers order them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#if defined(HOST_SHIM_THREADS)
#include <pthread.h>

#include <mutex>
#include <thread>
#else
#include <setjmp.h>
#include <ucontext.h>
#endif

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __shared__ static  // blocks run one after another: a static of the function is shared by the block's threads
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

namespace host_shim {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

constexpr int kWarp = 32;

#if defined(HOST_SHIM_THREADS)

class Barrier {
 public:
  explicit Barrier(int n) { pthread_barrier_init(&barrier_, nullptr, static_cast<unsigned>(n)); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  void wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

struct Block {
  Barrier all;
  std::vector<Barrier*> warps;
  std::vector<uint64_t> exchange;

  explicit Block(int n) : all(n), exchange(static_cast<size_t>(n)) {
    for (int w = 0; w < n; w += kWarp) warps.push_back(new Barrier(n - w < kWarp ? n - w : kWarp));
  }
  ~Block() {
    for (Barrier* b : warps) delete b;
  }
};

inline thread_local Index thread_index;
inline thread_local int thread = 0;
inline Index block_index, block_size, grid_size;
inline Block* block = nullptr;
inline std::mutex atomics;

inline void meet_block() { block->all.wait(); }
inline void meet_warp() { block->warps[static_cast<size_t>(thread / kWarp)]->wait(); }
inline std::vector<uint64_t>& exchanged() { return block->exchange; }

template <class F>
void run_block(int n, F&& kernel) {
  Block here(n);
  block = &here;
  std::vector<std::thread> threads;
  for (int i = 0; i < n; ++i)
    threads.emplace_back([&, i] {
      thread = i;
      thread_index = {static_cast<unsigned>(i), 0, 0};
      kernel();
    });
  for (std::thread& t : threads) t.join();
}

#else

enum class Waits { kNot, kForBlock, kForWarp };

struct Fiber {
  ucontext_t context;  // for the first entry
  jmp_buf place;       // for every other: swapcontext asks the system for the signal mask each time
  bool entered = false;
  bool done = false;
  Waits waits = Waits::kNot;
};

inline Index thread_index, block_index, block_size, grid_size;
inline int thread = 0;
inline std::vector<Fiber> fibers;
inline std::vector<char*> stacks;
inline std::vector<uint64_t> exchange_memory;
inline jmp_buf scheduler;
inline const std::function<void()>* body = nullptr;

inline void take_turns(Waits waits) {
  Fiber& mine = fibers[static_cast<size_t>(thread)];
  mine.waits = waits;
  if (_setjmp(mine.place) == 0) _longjmp(scheduler, 1);
}
inline void meet_block() { take_turns(Waits::kForBlock); }
inline void meet_warp() { take_turns(Waits::kForWarp); }
inline std::vector<uint64_t>& exchanged() { return exchange_memory; }

inline void enter() {
  (*body)();
  fibers[static_cast<size_t>(thread)].done = true;
  _longjmp(scheduler, 1);
}

// Runs a fiber until it waits or ends. Not inline: what changes between _setjmp and its second return must be memory.
__attribute__((noinline)) inline void resume(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.entered) _longjmp(fiber.place, 1);
  fiber.entered = true;
  setcontext(&fiber.context);
}

// Frees the fibers [first, last) where all that live wait for the same thing.
inline bool release(size_t first, size_t last, Waits what) {
  bool any = false;
  for (size_t i = first; i < last; ++i) {
    if (fibers[i].done) continue;
    if (fibers[i].waits != what) return false;
    any = true;
  }
  for (size_t i = first; i < last; ++i) fibers[i].waits = Waits::kNot;
  return any;
}

inline void run_ready() {
  for (size_t i = 0; i < fibers.size(); ++i) {
    if (fibers[i].done || fibers[i].waits != Waits::kNot) continue;
    thread = static_cast<int>(i);
    thread_index.x = static_cast<unsigned>(i);
    resume(fibers[i]);
  }
}

template <class F>
void run_block(int n, F&& kernel) {
  constexpr size_t kStack = 256 * 1024;
  while (stacks.size() < static_cast<size_t>(n)) stacks.push_back(static_cast<char*>(std::malloc(kStack)));
  const std::function<void()> function = kernel;
  body = &function;
  exchange_memory.assign(static_cast<size_t>(n), 0);
  fibers.assign(static_cast<size_t>(n), Fiber{});
  for (size_t i = 0; i < fibers.size(); ++i) {
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = stacks[i];
    fibers[i].context.uc_stack.ss_size = kStack;
    fibers[i].context.uc_link = nullptr;
    makecontext(&fibers[i].context, enter, 0);
  }
  for (;;) {
    run_ready();
    bool live = false, released = false;
    for (const Fiber& f : fibers) live = live || !f.done;
    if (!live) return;
    for (size_t w = 0; w < fibers.size(); w += kWarp)
      released = release(w, w + kWarp < fibers.size() ? w + kWarp : fibers.size(), Waits::kForWarp) || released;
    if (!released && !release(0, fibers.size(), Waits::kForBlock)) {
      std::fprintf(stderr, "host shim: threads of block %u wait for each other\n", block_index.x);
      std::abort();
    }
  }
}

#endif

template <class F>
void launch(dim3 grid, dim3 size, F&& kernel) {
  grid_size = {grid.x, grid.y, grid.z};
  block_size = {size.x, size.y, size.z};
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) {
      block_index = {x, y, 0};
      run_block(static_cast<int>(size.x), kernel);
    }
}

template <class T>
T exchange(T value, int lane) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t raw = 0;
  std::memcpy(&raw, &value, sizeof(T));
  exchanged()[static_cast<size_t>(thread)] = raw;
  meet_warp();
  raw = exchanged()[static_cast<size_t>(thread / kWarp * kWarp + lane)];
  meet_warp();
  std::memcpy(&value, &raw, sizeof(T));
  return value;
}

template <class T>
T shuffle_xor(unsigned, T value, int mask) {
  return exchange(value, (thread % kWarp) ^ mask);
}

// Counts up to `most` and then starts again from 0, as the device's does.
inline unsigned atomic_inc(unsigned* counter, unsigned most) {
#if defined(HOST_SHIM_THREADS)
  const std::lock_guard<std::mutex> lock(atomics);
#endif
  const unsigned old = *counter;
  *counter = old >= most ? 0 : old + 1;
  return old;
}

}  // namespace host_shim

#define threadIdx (host_shim::thread_index)
#define blockIdx (host_shim::block_index)
#define blockDim (host_shim::block_size)
#define gridDim (host_shim::grid_size)
#define __syncthreads host_shim::meet_block
#define __shfl_xor_sync host_shim::shuffle_xor
#define atomicInc host_shim::atomic_inc
#define __threadfence() ((void)0)
