// The relativistic average losses on the CPU.

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

ScalarProblem problem_of(const ScalarBatch& batch) {
  ScalarProblem problem;
  problem.dtype = kernel_dtype(batch.logits.scalar_type());
  problem.term = batch.term;
  problem.logits = batch.data();
  problem.grad = batch.grad_data();
  problem.weight = batch.weight;
  return problem;
}

ScalarSums run(const ScalarProblem& problem, int64_t elements) {
  const int64_t chunks = (elements + kChunkElements - 1) / kChunkElements;
  c10::SmallVector<ScalarSums, 16> partial(static_cast<size_t>(chunks));
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      partial[static_cast<size_t>(i)] =
          cpu_kernels().scalar(problem, i * kChunkElements, std::min(elements, (i + 1) * kChunkElements));
  });
  ScalarSums sums;
  for (const ScalarSums& s : partial) sums.loss += s.loss, sums.slope += s.slope;
  return sums;
}

ScalarSums sums_of(ScalarProblem problem, const ScalarTerm& term, int64_t elements) {
  problem.term = term;
  problem.grad = nullptr;
  return run(problem, elements);
}

// Offsets are the other batch's mean, so each logit also moves the other batch's terms through its own mean:
//   d/dr_i of the fake terms = -(1/N_r) sum_j f'_j, and the same with the roles exchanged.
// A slope is of the logit itself, which no mean moves.
void make_relative(ScalarProblem& real, int64_t reals, ScalarProblem& fake, int64_t fakes, int64_t reduction) {
  const auto count = [](int64_t n) { return static_cast<double>(n); };
  const double real_mean = sums_of(real, {}, reals).loss / count(reals);
  real.term.offset += sums_of(fake, {}, fakes).loss / count(fakes);
  fake.term.offset += real_mean;
  const auto slopes = [](const ScalarProblem& p, int64_t n) {
    ScalarTerm term = p.term;
    term.slope = 0;
    return sums_of(p, term, n).slope;
  };
  const double of_real = slopes(real, reals), of_fake = slopes(fake, fakes);
  // Under "mean" each batch's terms have their own 1/N, of which the weight applies only its own; of none there is
  // nothing to share out.
  const int64_t of_fakes = reduction == kMean ? fakes : reals, of_reals = reduction == kMean ? reals : fakes;
  real.gradient_constant = -of_fake / count(std::max<int64_t>(1, of_fakes));
  fake.gradient_constant = -of_real / count(std::max<int64_t>(1, of_reals));
}

}  // namespace

void Cpu::relativistic_loss(const Tensor& loss, int64_t reduction, const ScalarBatch& real, const ScalarBatch& fake) {
  ScalarProblem reals = problem_of(real), fakes = problem_of(fake);
  make_relative(reals, real.elements, fakes, fake.elements, reduction);
  double value = 0;
  const auto add = [&](ScalarProblem& problem, int64_t elements, bool first) {
    if (reduction == kNone) {
      problem.row_loss = loss.mutable_data_ptr();
      problem.add_to_row_loss = !first;
    }
    const double sum = run(problem, elements).loss;
    value += reduction == kMean ? sum / static_cast<double>(elements) : sum;
  };
  add(reals, real.elements, true);
  add(fakes, fake.elements, false);
  if (reduction != kNone) write_scalar(loss, value);
}

}  // namespace gankernels
