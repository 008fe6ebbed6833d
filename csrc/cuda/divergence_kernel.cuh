// The kernel around the rows of a divergence, and the choice of its instance for a layout and a number of classes.
#pragma once

#include "divergence_mixture.cuh"
#include "divergence_packed.cuh"
#include "divergence_split.cuh"

namespace gankernels::cuda {

// Term y of the problem, or both in turn; rows dealt out to blocks, then to groups of threads within a block.
template <class T, class Group, class Body>
__global__ void __launch_bounds__(Body::kMost, Body::kMinBlocks) divergence_kernel(const DivergenceLaunch problem) {
  using A = Accumulate<T>;
  __shared__ A memory[Group::kShared];
  // The term in shared memory: its pointers and strides would take a hundred registers.
  __shared__ __align__(8) unsigned char term_memory[sizeof(DivergenceTerm)];
  DivergenceTerm& term = *reinterpret_cast<DivergenceTerm*>(term_memory);
  Group group(memory, problem.log2_share);
  const int first = problem.one_after_other ? 0 : static_cast<int>(blockIdx.y);
  const int last = problem.one_after_other ? problem.count : first + 1;
  double sum = 0;
  for (int which = first; which < last; ++which) {
    __syncthreads();  // the rows of the term before have been read
    if (threadIdx.x == 0) select(term, which == 1, problem.terms[0], problem.terms[1]);
    __syncthreads();
    const int64_t step = static_cast<int64_t>(gridDim.x) * group.rows_per_block();
    // Those without a row have no classes.
    const auto turn_of = [&](int64_t row) {
      const int64_t outer = term.inner_rows == 1 ? row : row / term.inner_rows;
      return Turn{{outer, term.inner_rows == 1 ? 0 : row - outer * term.inner_rows},
                  {group.rank(), group.size(), row < term.rows ? problem.classes : 0}};
    };
    Body body;
    Turn next = turn_of(static_cast<int64_t>(blockIdx.x) * group.rows_per_block() + group.row());
    if constexpr (Body::kAhead) body.fetch(term, next);
    body.begin(term, Share{group.rank(), group.size(), problem.classes}, group);
    // Terms one after the other have losses of rows, and no sum.
    sum = 0;
    // The same number of turns for all threads, which meet at barriers.
    for (int64_t base = static_cast<int64_t>(blockIdx.x) * group.rows_per_block(); base < term.rows; base += step) {
      const int64_t row = base + group.row();
      const bool active = row < term.rows;
      const Turn turn = Body::kAhead ? next : turn_of(row);
      if constexpr (Body::kAhead) next = turn_of(row + step);
      const A loss = body.row(term, turn, next, group);
      if (!active || group.rank() != 0) continue;
      sum += static_cast<double>(loss);
      if (problem.row_loss == nullptr) continue;
      A* out = static_cast<A*>(problem.row_loss) + row;
      const A scaled = loss * static_cast<A>(term.loss_scale);
      *out = which > first ? *out + scaled : scaled;
    }
  }
  // The mean of no rows is 0 * inf = NaN, once.
  write_total<A>(sum * term.loss_scale, problem.total);
}

template <class T, class Group, class Body>
int start(DivergenceLaunch problem, int threads_per_row, int threads, void* stream) {
  while (1 << problem.log2_share < threads_per_row) ++problem.log2_share;
  const int64_t rows = std::max(problem.terms[0].rows, problem.count > 1 ? problem.terms[1].rows : 0);
  const unsigned terms = problem.one_after_other ? 1 : static_cast<unsigned>(problem.count);
  const int64_t resident = resident_blocks(divergence_kernel<T, Group, Body>, threads) / terms;
  const unsigned blocks = blocks_for(ceil_div(rows, threads / threads_per_row), resident, kMaxBlocks / 2);
  GK_LAUNCH((divergence_kernel<T, Group, Body>), (dim3{blocks, terms, 1}), (dim3{static_cast<unsigned>(threads), 1, 1}),
            stream, problem);
  return static_cast<int>(cudaGetLastError());
}

constexpr int kBlock = 128;  // threads of a block whose rows take fewer

inline int threads_for(int classes, int values) {
  return next_power_of_two(static_cast<int>(ceil_div(classes, values)));
}

template <class T, Positive kPositive, class Group, int kValues, int kWidth>
int start_in_registers(const DivergenceLaunch& problem, void* stream) {
  const int group = threads_for(problem.classes, kValues), threads = Group::kColumns ? group * kWarp : group;
  using Body = std::conditional_t<kPositive == Positive::kMixture, MixtureInRegisters<T, Group, kValues, kWidth>,
                                  InRegisters<T, kPositive, Group, kValues, kWidth>>;
  return start<T, Group, Body>(problem, group, std::max(threads, kBlock), stream);
}

template <class T, Positive kPositive, class Group, int kWidth>
int start_online(const DivergenceLaunch& problem, void* stream) {
  constexpr int kMost = kMaxThreads<T>, kGroup = Group::kColumns ? kMost / kWarp : kMost;
  using All = std::conditional_t<Group::kColumns, Group, WholeBlock<Accumulate<T>, kMost>>;
  using Body = std::conditional_t<kPositive == Positive::kMixture, StreamedMixture<T, All, 8, kWidth>,
                                  Streamed<T, kPositive == Positive::kSoftmax, All, 8, kWidth>>;
  return start<T, All, Body>(problem, kGroup, kMost, stream);
}

// Whether as many threads as `kValues` each leave for the row are not too many.
template <class T, int kValues>
bool fits(const DivergenceLaunch& problem) {
  return threads_for(problem.classes, kValues) <= kMaxThreads<T>;
}

// Values of a long row that a thread holds: as many as its registers take, for each thread adds its own reductions.
template <class T, Positive kPositive>
constexpr int kMany = sizeof(T) == 8                                     ? 8
                      : sizeof(T) == 2 && kPositive == Positive::kAnchor ? 32
                                                                         : 16;

template <class T, int kValues>
int start_packed(const DivergenceLaunch& problem, void* stream) {
  constexpr int kThreads = kMaxThreads<T>;
  using Group = WholeBlock<Accumulate<T>, kThreads>;
  return start<T, Group, Packed<T, Group, kValues, kWide<T>>>(problem, kThreads, kThreads, stream);
}

// Rows whose classes lie side by side, or anyhow.
template <class T, Positive kPositive>
int start_neighbours(const DivergenceLaunch& problem, void* stream) {
  using Group = Neighbours<Accumulate<T>>;
  constexpr int kWidth = kWide<T>;
  // A gradient to the target is a template of its own only where registers are scarce, and has one instance of each.
  constexpr bool kTarget = kPositive == Positive::kTarget;
  constexpr Positive kOnline = kTarget ? Positive::kAnchor : kPositive;
  if constexpr (kPositive != Positive::kMixture) {
    if (problem.parts > 1) return start_split<T, kPositive == Positive::kSoftmax, kWidth>(problem, stream);
  }
  if (problem.wide) {
    constexpr int kLong = kMany<T, kPositive>, kShort = kTarget ? kLong : 8;
    if (threads_for(problem.classes, kShort) <= kWarp)
      return start_in_registers<T, kPositive, Group, kShort, kWidth>(problem, stream);
    if (fits<T, kLong>(problem)) return start_in_registers<T, kPositive, Group, kLong, kWidth>(problem, stream);
    if constexpr (kPositive == Positive::kAnchor && sizeof(T) < 8) {
      if constexpr (sizeof(T) == 4) {
        if (problem.classes <= kMaxThreads<T> * 32) return start_packed<T, 32>(problem, stream);
      }
      if (problem.classes <= kMaxThreads<T> * 64) return start_packed<T, 64>(problem, stream);
    }
    return start_online<T, kOnline, Group, kWidth>(problem, stream);
  }
  // 4 values a thread: 16 rows a warp at K = 5, 4 at K = 20 and 2 at K = 51.
  constexpr int kLong = kPositive == Positive::kAnchor && sizeof(T) < 8 ? 16 : 8, kShort = kTarget ? kLong : 4;
  if (threads_for(problem.classes, kShort) <= kWarp)
    return start_in_registers<T, kPositive, Group, kShort, 1>(problem, stream);
  if (fits<T, kLong>(problem)) return start_in_registers<T, kPositive, Group, kLong, 1>(problem, stream);
  return start_online<T, kOnline, Group, 1>(problem, stream);
}

// Rows that lie side by side, as in (N, K, H, W).
template <class T, Positive kPositive>
int start_stacked(const DivergenceLaunch& problem, void* stream) {
  using Group = Stacked<Accumulate<T>>;
  constexpr Positive kOnline = kPositive == Positive::kTarget ? Positive::kAnchor : kPositive;
  const auto warps = [&](int values) { return threads_for(problem.classes, values); };
  if constexpr (sizeof(T) < 8) {
    // The fewest classes to spare, and then the fewest warps to a row, which would have to meet.
    constexpr int kMost = 8;  // warps to a row, of more than 128 registers
    if (warps(20) <= kMost && 20 * warps(20) < 8 * warps(8))
      return start_in_registers<T, kPositive, Group, 20, 1>(problem, stream);
    if constexpr (kPositive == Positive::kAnchor) {
      if (warps(16) <= kMost && warps(16) < warps(8))
        return start_in_registers<T, kPositive, Group, 16, 1>(problem, stream);
    }
  }
  if (warps(8) <= Group::kMaxWarps) return start_in_registers<T, kPositive, Group, 8, 1>(problem, stream);
  return start_online<T, kOnline, Group, 1>(problem, stream);
}

template <class T, Positive kPositive>
int start_layout(const DivergenceLaunch& problem, void* stream) {
  return problem.columns ? start_stacked<T, kPositive>(problem, stream)
                         : start_neighbours<T, kPositive>(problem, stream);
}

template <class T>
int launch_divergence_as(const DivergenceLaunch& problem, void* stream) {
  switch (problem.positive) {
    case Positive::kMixture: return start_layout<T, Positive::kMixture>(problem, stream);
    case Positive::kSoftmax: return start_layout<T, Positive::kSoftmax>(problem, stream);
    case Positive::kTarget: return start_layout<T, Positive::kTarget>(problem, stream);
    case Positive::kAnchor: break;
  }
  return start_layout<T, Positive::kAnchor>(problem, stream);
}

}  // namespace gankernels::cuda
