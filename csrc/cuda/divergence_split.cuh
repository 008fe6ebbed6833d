// The same divergences for few rows that are longer still: each is shared by several blocks, in two launches.
//
// First launch: the sums of a part of a row, relative to its own maximum, and what its anchors add up to. Second
// launch: every block adds up the parts of its row, in their order, and writes the gradients of its own part.
#pragma once

#include "divergence_streamed.cuh"
#include "divergence_term.cuh"
#include "launch.cuh"

namespace gankernels::cuda {

// What the first launch finds of a part, and the second adds up.
template <class Body>
struct Part {
  typename Body::Sums sums;
  typename Body::A entropy = 0, mass = 0;
};

// The term that a block's row is of, in shared memory, and the block's part of that row.
template <class Body>
GK_DEVICE Turn part_turn(const DivergenceLaunch& problem, DivergenceTerm& term) {
  const int64_t row = blockIdx.y, first_rows = problem.terms[0].rows;
  const bool second = row >= first_rows;
  if (threadIdx.x == 0) select(term, second, problem.terms[0], problem.terms[1]);
  __syncthreads();
  // Whole accesses of whole warps.
  constexpr int kStep = Body::kRun * kWarp;
  const int parts = static_cast<int>(gridDim.x), part = static_cast<int>(blockIdx.x);
  const int64_t length = ((problem.classes + parts - 1) / parts + kStep - 1) / kStep * kStep, first = length * part;
  const int end = static_cast<int>(first + length < problem.classes ? first + length : problem.classes);
  const int64_t at = second ? row - first_rows : row, outer = at / term.inner_rows;
  return {
      {outer, at - outer * term.inner_rows},
      {static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), end, static_cast<int>(first < end ? first : end)}};
}

template <class T, class Group, class Body>
__global__ void __launch_bounds__(kMaxThreads<T>, Body::kMinBlocks)
    divergence_sums_kernel(const DivergenceLaunch problem) {
  __shared__ Accumulate<T> memory[Group::kShared];
  __shared__ __align__(8) unsigned char term_memory[sizeof(DivergenceTerm)];
  DivergenceTerm& term = *reinterpret_cast<DivergenceTerm*>(term_memory);
  Group group(memory, problem.log2_share);
  const Turn turn = part_turn<Body>(problem, term);
  Body body;
  body.sum_anchors(term, turn.at, turn.share, group);
  const auto sums = Body::first_reading(term, turn.at, turn.share, group);
  static_assert(sizeof(Part<Body>) <= kPartBytes);
  if (threadIdx.x != 0) return;
  Part<Body>* parts = static_cast<Part<Body>*>(problem.part_sums);
  parts[blockIdx.y * gridDim.x + blockIdx.x] = {sums, body.entropy, body.mass};
}

template <class T, class Group, class Body>
__global__ void __launch_bounds__(kMaxThreads<T>, Body::kMinBlocks)
    divergence_parts_kernel(const DivergenceLaunch problem) {
  using A = Accumulate<T>;
  __shared__ A memory[Group::kShared];
  __shared__ __align__(8) unsigned char term_memory[sizeof(DivergenceTerm)];
  DivergenceTerm& term = *reinterpret_cast<DivergenceTerm*>(term_memory);
  Group group(memory, problem.log2_share);
  const Turn turn = part_turn<Body>(problem, term);
  Part<Body> row;
  const Part<Body>* parts = static_cast<const Part<Body>*>(problem.part_sums) + blockIdx.y * gridDim.x;
  // No more parts than threads.
  if (threadIdx.x < gridDim.x) row = parts[threadIdx.x];
  A anchors[2] = {row.entropy, row.mass};
  group.template reduce<Plus>(anchors);
  row.sums.reduce(group);
  row.sums.finish();
  Body body;
  body.entropy = anchors[0], body.mass = anchors[1];
  A dot[1] = {body.second_reading(term, turn.at, turn.share, row.sums)};
  group.template reduce<Plus>(dot);
  const A loss = blockIdx.x == 0 ? body.loss(row.sums, dot[0]) : -dot[0];
  write_total<A>(threadIdx.x == 0 ? static_cast<double>(loss) * term.loss_scale : 0, problem.total);
}

template <class T, bool kSoftmax, int kWidth>
int start_split(DivergenceLaunch problem, void* stream) {
  constexpr int kThreads = kMaxThreads<T>;
  while (1 << problem.log2_share < kThreads) ++problem.log2_share;
  using Group = WholeBlock<Accumulate<T>, kThreads>;
  using Body = Streamed<T, kSoftmax, Group, 8, kWidth>;
  const dim3 grid{static_cast<unsigned>(problem.parts), static_cast<unsigned>(problem.rows()), 1};
  const dim3 block{kThreads, 1, 1};
  GK_LAUNCH((divergence_sums_kernel<T, Group, Body>), grid, block, stream, problem);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return static_cast<int>(error);
  GK_LAUNCH((divergence_parts_kernel<T, Group, Body>), grid, block, stream, problem);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace gankernels::cuda
