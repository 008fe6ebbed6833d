// Autograd around an operator that computes its loss and its gradients at once.
#pragma once

#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/WrapDimUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>

#include "../losses.h"

namespace gankernels {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// What an operator was called with beside its tensors; each uses what it has.
struct Parameters {
  int64_t reduction = kMean, dim = 0, objective = 0;
  std::string name;
  double label_smoothing = 0;

  c10::IValue pack() const { return c10::ivalue::Tuple::create(reduction, dim, objective, name, label_smoothing); }
  static Parameters unpack(const c10::IValue& value) {
    const auto& e = value.toTupleRef().elements();
    return {e[0].toInt(), e[1].toInt(), e[2].toInt(), e[3].toStringRef(), e[4].toDouble()};
  }
};

struct Evaluated {
  Tensor loss;
  variable_list gradients;  // one per input, undefined where not needed
};

// gradient * grad_output, divided by `rows` where that is positive.
inline Tensor scale(const Tensor& gradient, const Tensor& grad_output, int64_t dim, const c10::SymInt& rows) {
  static const auto op = find<Tensor(const Tensor&, const Tensor&, int64_t, c10::SymInt)>("gankernels::scale_gradient");
  return op.call(gradient, grad_output, dim, rows);
}

// A CPU scalar may be read for free; on a GPU that would stall the host, in a traced graph it cannot be read at all.
inline bool is_known_one(const Tensor& grad_output) {
  if (grad_output.dim() != 0 || !grad_output.device().is_cpu()) return false;
  if (at::isTensorSubclassLike(grad_output)) return false;
  return grad_output.scalar_type() == at::kDouble ? *grad_output.const_data_ptr<double>() == 1
                                                  : *grad_output.const_data_ptr<float>() == 1;
}

// fp16 gradients of a mean are saved undivided: 1/rows could underflow before a GradScaler's factor arrives.
inline bool folds_mean(const Tensor& logits) { return logits.scalar_type() != at::kHalf; }

// Autograd around Op::evaluate (value and gradients in one call) and Op::formula (the gradients, differentiable).
template <class Op>
class Loss : public Function<Loss<Op>> {
 public:
  // A TensorList, not a vector: the only sequence in which Function::apply looks for variables.
  static Tensor forward(AutogradContext* ctx, at::TensorList list, const Parameters& parameters) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const variable_list inputs = list.vec();
    Evaluated result = Op::evaluate(inputs, needs(inputs), parameters);
    variable_list saved = inputs;
    saved.insert(saved.end(), result.gradients.begin(), result.gradients.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["parameters"] = parameters.pack();
    return result.loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grad_outputs) {
    const Parameters parameters = Parameters::unpack(ctx->saved_data["parameters"]);
    const variable_list saved = ctx->get_saved_variables();
    const auto half = static_cast<std::ptrdiff_t>(saved.size() / 2);
    const variable_list inputs(saved.begin(), saved.begin() + half);
    variable_list result = at::GradMode::is_enabled()
                               ? Op::formula(inputs, needs(inputs), grad_outputs[0], parameters)
                               : scaled({saved.begin() + half, saved.end()}, inputs, grad_outputs[0], parameters);
    result.emplace_back();  // for `parameters`
    return result;
  }

 private:
  static std::vector<bool> needs(const variable_list& inputs) {
    std::vector<bool> needed;
    for (const Tensor& t : inputs) needed.push_back(t.defined() && t.requires_grad());
    return needed;
  }

  static variable_list scaled(variable_list gradients, const variable_list& inputs, const Tensor& grad_output,
                              const Parameters& parameters) {
    const Tensor& logits = inputs[Op::kLogits];
    const bool divide = parameters.reduction == kMean && !folds_mean(logits);
    // The saved gradient itself may be handed out when nobody will ask this node again.
    const bool as_it_is = !divide && !torch::autograd::get_current_graph_task_keep_graph() && is_known_one(grad_output);
    if (as_it_is) return gradients;
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (!gradients[i].defined()) continue;
      const int64_t dim = at::maybe_wrap_dim(parameters.dim, logits.dim());
      gradients[i] = scale(gradients[i], grad_output, dim, divide ? Op::rows(inputs[i], dim) : c10::SymInt(-1));
    }
    return gradients;
  }
};

// Tensor of an operator's output, undefined where it was not asked for.
inline Tensor when(bool needed, Tensor t) { return needed ? std::move(t) : Tensor(); }

template <class Op>
Tensor apply(const variable_list& inputs, const Parameters& parameters) {
  if (at::GradMode::is_enabled()) {
    for (const Tensor& t : inputs)
      if (t.defined() && t.requires_grad()) return Loss<Op>::apply(at::TensorList(inputs), parameters);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return Op::evaluate(inputs, std::vector<bool>(inputs.size(), false), parameters).loss;
}

inline bool requires_grad(const OptionalTensor& t) {
  return at::GradMode::is_enabled() && t.has_value() && t->defined() && t->requires_grad();
}

}  // namespace gankernels
