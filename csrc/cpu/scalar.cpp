// The losses of one logit over any number of tensors, on the CPU: one parallel region each way.

#include "backend.h"
#include "capability.h"
#include "parallel.h"

namespace gankernels {

namespace {

ScalarProblem problem_of(const TermOperands& operands) {
  ScalarProblem problem;
  problem.dtype = kernel_dtype(operands.logits.scalar_type());
  problem.term = operands.term;
  problem.logits = operands.logits.const_data_ptr();
  problem.grad = writable(operands.grad);
  problem.weight = operands.weight;
  if (operands.other.defined()) {
    problem.other = operands.other.const_data_ptr();
    problem.other_wide = operands.other.scalar_type() != operands.logits.scalar_type();
    problem.other_grad = writable(operands.other_grad);
  }
  if (operands.weights.defined()) {
    problem.weights = operands.weights.const_data_ptr();
    problem.per_weight = operands.per_weight;
    problem.weights_grad = writable(operands.weights_grad);
  }
  return problem;
}

// Elements [begin, end) of a term.
struct Unit {
  size_t term;
  int64_t begin, end;
};

// f(unit), several at a time where there is work for that.
template <class F>
void each_unit(const std::vector<Unit>& units, int64_t elements, F&& f) {
  const auto count = static_cast<int64_t>(units.size());
  parallel_for(count, elements <= 2 * kChunkElements ? std::max<int64_t>(1, count) : 1,
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) f(units[static_cast<size_t>(i)], static_cast<size_t>(i));
               });
}

void add_units(std::vector<Unit>& units, size_t term, int64_t elements) {
  for (int64_t i = 0; i < elements; i += kChunkElements)
    units.push_back({term, i, std::min(elements, i + kChunkElements)});
}

// The terms of an output add to its rows one after the other, chunk by chunk.
void rows_of_terms(at::ArrayRef<Tensor> losses, std::vector<ScalarProblem>& problems,
                   const std::vector<TermOperands>& terms) {
  std::vector<Unit> units;
  int64_t elements = 0;
  const auto continues = [&](size_t i) { return i > 0 && terms[i].output == terms[i - 1].output; };
  for (size_t i = 0; i < terms.size(); ++i) {
    problems[i].row_loss = losses[static_cast<size_t>(terms[i].output)].mutable_data_ptr();
    problems[i].add_to_row_loss = continues(i);
    if (continues(i)) continue;
    add_units(units, i, terms[i].elements);
    elements += terms[i].elements;
  }
  each_unit(units, elements, [&](const Unit& unit, size_t) {
    size_t i = unit.term;
    do cpu_kernels().scalar(problems[i++], unit.begin, unit.end);
    while (i < terms.size() && continues(i));
  });
}

void sums_of_terms(at::ArrayRef<Tensor> losses, const std::vector<ScalarProblem>& problems,
                   const std::vector<TermOperands>& terms) {
  std::vector<Unit> units;
  int64_t elements = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    add_units(units, i, terms[i].elements);
    elements += terms[i].elements;
  }
  c10::SmallVector<double, 16> partial(units.size());
  each_unit(units, elements, [&](const Unit& unit, size_t i) {
    partial[i] = cpu_kernels().scalar(problems[unit.term], unit.begin, unit.end).loss;
  });
  c10::SmallVector<double, 16> sums(terms.size());
  for (size_t i = 0; i < units.size(); ++i) sums[units[i].term] += partial[i];
  double loss = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    loss += sums[i] * terms[i].loss_scale;
    if (i + 1 < terms.size() && terms[i + 1].output == terms[i].output) continue;
    write_scalar(losses[static_cast<size_t>(terms[i].output)], loss);
    loss = 0;
  }
}

}  // namespace

void Cpu::scalar_losses(at::ArrayRef<Tensor> losses, int64_t reduction, const std::vector<TermOperands>& terms) {
  std::vector<ScalarProblem> problems;
  problems.reserve(terms.size());
  for (const TermOperands& operands : terms) problems.push_back(problem_of(operands));
  if (reduction == kNone) rows_of_terms(losses, problems, terms);
  else sums_of_terms(losses, problems, terms);
}

void Cpu::scale_terms(at::TensorList gradients, at::TensorList grad_outputs, at::IntArrayRef rows,
                      at::TensorList scaled) {
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor& grad_output = grad_outputs[i];
    const ScaledGradient gradient{gradients[i], scaled[i], rows[i]};
    if (grad_output.dim() == 0 || is_one_number(grad_output)) scale_by(gradient, read_scalar(grad_output));
    else scale_gradients(grad_output, 0, {gradient});
  }
}

}  // namespace gankernels
