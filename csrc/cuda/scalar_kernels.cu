// Launchers of the scalar losses over any number of tensors.
#include "scalar.cuh"

namespace gankernels::cuda {

namespace {

// Up to this many elements of two tensors one block is done sooner than several that wait for the last of them.
constexpr int64_t kElementsOfOneBlock = 8192;

template <class Term>
int64_t blocks_wanted(const Term& term, int width) {
  return std::max<int64_t>(1, ceil_div(term.elements, static_cast<int64_t>(kTermThreads) * width));
}

int width_of(Dtype dtype) { return dtype == Dtype::kDouble ? 2 : dtype == Dtype::kFloat ? 4 : 8; }

// Gives each term its blocks, in proportion to its work where the device does not hold all; returns their number.
// Terms that are worked on together (`joined`) get those of the first of them.
template <class Launch, class Joined>
unsigned share_blocks(Launch& launch, int64_t resident, Joined&& joined) {
  int64_t wanted = 0;
  const auto blocks_of = [&](int i) { return blocks_wanted(launch.terms[i], width_of(launch.terms[i].dtype)); };
  for (int i = 0; i < launch.count; ++i)
    if (!joined(i)) wanted += blocks_of(i);
  const int64_t held = std::min<int64_t>(resident, kMaxBlocks);
  int64_t next = 0, begin = 0;
  for (int i = 0; i < launch.count; ++i) {
    if (!joined(i)) {
      begin = next;
      const int64_t blocks = blocks_of(i);
      next += wanted <= held ? blocks : std::max<int64_t>(1, blocks * held / wanted);
    }
    launch.terms[i].first_block = static_cast<int>(begin);
  }
  return static_cast<unsigned>(next);
}

template <class A>
int launch_sums(TermsLaunch launch, void* stream) {
  int64_t elements = 0;
  for (int i = 0; i < launch.count; ++i) elements += launch.terms[i].elements;
  const dim3 threads{kTermThreads, 1, 1};
  if (launch.count <= 2 && elements <= kElementsOfOneBlock) {
    GK_LAUNCH((terms_of_one_block_kernel<A>), (dim3{1, 1, 1}), threads, stream, launch);
    return static_cast<int>(cudaGetLastError());
  }
  const unsigned blocks =
      share_blocks(launch, resident_blocks(term_sums_kernel<A>, kTermThreads), [](int) { return false; });
  GK_LAUNCH((term_sums_kernel<A>), (dim3{blocks, 1, 1}), threads, stream, launch);
  return static_cast<int>(cudaGetLastError());
}

template <class A>
int launch_rows(TermsLaunch launch, void* stream) {
  const unsigned blocks = share_blocks(launch, resident_blocks(term_rows_kernel<A>, kTermThreads), [&](int i) {
    return i > 0 && launch.terms[i].output == launch.terms[i - 1].output;
  });
  GK_LAUNCH((term_rows_kernel<A>), (dim3{blocks, 1, 1}), (dim3{kTermThreads, 1, 1}), stream, launch);
  return static_cast<int>(cudaGetLastError());
}

template <class A>
int launch_scaled(ScaleTermsLaunch launch, void* stream) {
  const unsigned blocks =
      share_blocks(launch, resident_blocks(scale_terms_kernel<A>, kTermThreads), [](int) { return false; });
  GK_LAUNCH((scale_terms_kernel<A>), (dim3{blocks, 1, 1}), (dim3{kTermThreads, 1, 1}), stream, launch);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch_terms(const TermsLaunch& problem, void* stream) {
  if (problem.rows)
    return problem.is_double ? launch_rows<double>(problem, stream) : launch_rows<float>(problem, stream);
  return problem.is_double ? launch_sums<double>(problem, stream) : launch_sums<float>(problem, stream);
}

int launch_scale_terms(const ScaleTermsLaunch& problem, void* stream) {
  return problem.is_double ? launch_scaled<double>(problem, stream) : launch_scaled<float>(problem, stream);
}

}  // namespace gankernels::cuda
