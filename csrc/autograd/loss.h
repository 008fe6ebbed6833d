// Autograd around an operator that computes its loss and its gradients at once.
#pragma once

#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/WrapDimUtils.h>

#include <algorithm>
#include <array>

#include "../compat.h"
#include "../operators/gradient_scale.h"
#include "../operators/divergence.h"
#include "../operators/scalar.h"

namespace gankernels {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// What an operator was called with beside its tensors; each uses what it has.
struct Parameters {
  int64_t reduction = kMean, dim = 0, objective = 0;
  at::ArrayRef<double> real_term = {}, fake_term = {};
  // softmax(logits / temperature), p_temperature where these are the first of two logits; the loss's factor.
  double temperature = 1, p_temperature = 1, scale = 1;
  double share = 0;  // of the first distribution in a mixture of two

  // Small numbers in one integer, with `present`, 13 bits of the node's own; terms one after the other, in no list
  // of their own, as compiled autograd tells nodes apart by a hash, which a list within a tuple has not.
  c10::IValue pack(uint64_t present) const {
    const auto code =
        static_cast<uint64_t>(dim) << 32 | present << 8 | static_cast<uint64_t>(objective << 4 | reduction);
    if (temperature != 1 || p_temperature != 1 || scale != 1 || share != 0)
      return c10::ivalue::Tuple::create(static_cast<int64_t>(code), temperature, p_temperature, scale, share);
    if (fake_term.empty()) return static_cast<int64_t>(code);
    std::vector<c10::IValue> kept{static_cast<int64_t>(code)};
    kept.reserve(1 + real_term.size() + fake_term.size());
    kept.insert(kept.end(), real_term.begin(), real_term.end());
    kept.insert(kept.end(), fake_term.begin(), fake_term.end());
    return c10::ivalue::Tuple::create(std::move(kept));
  }
};

// Parameters as a node has saved them.
struct SavedParameters : Parameters {
  uint64_t present;

  explicit SavedParameters(const c10::IValue& value) {
    int64_t code;
    if (value.isInt()) {
      code = value.toInt();
    } else {
      const at::ArrayRef<c10::IValue> elements = value.toTupleRef().elements().asArrayRef();
      code = elements[0].toInt();
      if (elements.size() == kOfDistributions) {
        temperature = elements[1].toDouble(), p_temperature = elements[2].toDouble();
        scale = elements[3].toDouble(), share = elements[4].toDouble();
      } else {
        for (size_t i = 1; i < elements.size(); ++i) terms_.push_back(elements[i].toDouble());
        const at::ArrayRef<double> terms(terms_);
        real_term = terms.slice(0, terms.size() - kTermNumbers);
        fake_term = terms.slice(real_term.size());
      }
    }
    reduction = code & 0x7, objective = code >> 4 & 0xf, dim = code >> 32;
    present = static_cast<uint64_t>(code) >> 8 & 0x1fff;
  }
  SavedParameters(const SavedParameters&) = delete;

 private:
  static constexpr size_t kOfDistributions = 5;  // code, temperatures, factor and share
  std::vector<double> terms_;
};

// The tensor arguments of a loss, those it does not have undefined; and one entry for each in what follows from them.
constexpr size_t kMaxInputs = 6;
using Inputs = std::array<Tensor, kMaxInputs>;
using Needed = std::array<bool, kMaxInputs>;

struct Evaluated {
  Tensor loss;
  Inputs gradients;  // undefined where not needed
};

// A CPU scalar may be read for free; on a GPU that would stall the host, in a traced graph it cannot be read at all.
inline bool is_known_one(const Tensor& grad_output) {
  if (grad_output.dim() != 0 || !grad_output.device().is_cpu()) return false;
  if (at::isTensorSubclassLike(grad_output)) return false;
  return grad_output.scalar_type() == at::kDouble ? *grad_output.const_data_ptr<double>() == 1
                                                  : *grad_output.const_data_ptr<float>() == 1;
}

// Whether a saved gradient may be overwritten: no other tensor has its memory, and no mode watches.
inline bool is_sole_owner_of_memory(const Tensor& gradient) {
  return gradient.has_storage() && gradient.storage().use_count() == 1 && !at::isTensorSubclassLike(gradient);
}

// fp16 gradients of a mean are saved undivided: 1/rows could underflow before a GradScaler's factor arrives.
inline bool folds_mean(const Tensor& logits) { return logits.scalar_type() != at::kHalf; }

inline OptionalTensor optional(const Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

inline bool requires_grad(const OptionalTensor& t) {
  return at::GradMode::is_enabled() && t.has_value() && t->defined() && t->requires_grad();
}

inline Needed needed_gradients(const Inputs& inputs) {
  Needed needed;
  for (size_t i = 0; i < kMaxInputs; ++i) needed[i] = inputs[i].defined() && inputs[i].requires_grad();
  return needed;
}

// Loss and gradients to the first two inputs; one that was not asked for came back without elements.
inline Evaluated evaluated(TwoGradients outputs, bool first, bool second) {
  auto& [loss, to_first, to_second] = outputs;
  return {std::move(loss), {first ? std::move(to_first) : Tensor(), second ? std::move(to_second) : Tensor()}};
}

// Autograd around Op::evaluate (value and gradients in one call) and Op::formula (the gradients, differentiable).
template <class Op>
class Loss : public Function<Loss<Op>> {
 public:
  static constexpr const char* kNode = Op::kNode;

  // Function::apply looks for variables among its arguments one by one, and takes no undefined ones but these.
  static Tensor forward(AutogradContext* ctx, const OptionalTensor& a, const OptionalTensor& b, const OptionalTensor& c,
                        const OptionalTensor& d, const OptionalTensor& e, const OptionalTensor& f,
                        const Parameters& parameters) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Inputs inputs{a.value_or(Tensor()), b.value_or(Tensor()), c.value_or(Tensor()),
                        d.value_or(Tensor()), e.value_or(Tensor()), f.value_or(Tensor())};
    const Evaluated result = Op::evaluate(inputs, needed_gradients(inputs), parameters);
    variable_list saved;
    saved.reserve(2 * kMaxInputs);
    uint64_t present = 0;  // a saved variable costs something even where there is none
    for (size_t i = 0; i < 2 * kMaxInputs; ++i) {
      const Tensor& t = i < kMaxInputs ? inputs[i] : result.gradients[i - kMaxInputs];
      if (!t.defined()) continue;
      saved.push_back(t);
      present |= uint64_t{1} << i;
    }
    if (saved_tensors_are_shown()) present |= kShown;
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["parameters"] = parameters.pack(present);
    return result.loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grad_outputs) {
    const SavedParameters parameters(ctx->saved_data["parameters"]);
    const uint64_t present = parameters.present;
    variable_list saved = ctx->get_saved_variables();
    Inputs inputs, gradients;
    for (size_t i = 0, next = 0; i < 2 * kMaxInputs; ++i)
      if (present >> i & 1) (i < kMaxInputs ? inputs[i] : gradients[i - kMaxInputs]) = std::move(saved[next++]);
    bool by_formula = at::GradMode::is_enabled();
    // Where rows see each other, the saved gradient of their sum says nothing about one weighted otherwise.
    if constexpr (requires { Op::couples_rows(parameters); }) by_formula = by_formula || Op::couples_rows(parameters);
    if (by_formula) {
      gradients = Op::formula(inputs, needed_gradients(inputs), grad_outputs[0], parameters);
    } else {
      scale_all(gradients, inputs, grad_outputs[0], parameters);
    }
    variable_list result(gradients.begin(), gradients.end());
    result.emplace_back();  // for `parameters`
    return result;
  }

 private:
  static constexpr uint64_t kShown = uint64_t{1} << 2 * kMaxInputs;  // of `present`: hooks were given what was saved

  static void scale_all(Inputs& gradients, const Inputs& inputs, const Tensor& grad_output,
                        const SavedParameters& parameters) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor& logits = inputs[Op::kLogits];
    const bool divide = parameters.reduction == kMean && !folds_mean(logits);
    // The saved gradient itself may be handed out when nobody will ask this node again.
    const bool last = !graph_is_kept();
    if (!divide && last && is_known_one(grad_output)) return;
    const int64_t dim = at::maybe_wrap_dim(parameters.dim, logits.dim());
    const auto rows = [&](size_t i) { return divide ? Op::rows(inputs[i], dim) : c10::SymInt(-1); };
    if (last && !(parameters.present & kShown) && scale_in_place(gradients, grad_output, rows)) return;
    size_t waiting = kMaxInputs;  // a gradient that may share a launch with the next one
    for (size_t i = 0; i < kMaxInputs; ++i) {
      if (!gradients[i].defined()) continue;
      if (gradients[i].device().is_cpu()) {
        gradients[i] = Kernel<ScaleGradient>::call(gradients[i], grad_output, dim, rows(i));
      } else if (waiting == kMaxInputs) {
        waiting = i;
      } else {
        std::tie(gradients[waiting], gradients[i]) =
            Kernel<ScaleGradients>::call(gradients[waiting], gradients[i], grad_output, dim, rows(waiting), rows(i));
        waiting = kMaxInputs;
      }
    }
    if (waiting != kMaxInputs)
      gradients[waiting] = Kernel<ScaleGradient>::call(gradients[waiting], grad_output, dim, rows(waiting));
  }

  // Whether the gradients could be, all by one factor.
  template <class Rows>
  static bool scale_in_place(const Inputs& gradients, const Tensor& grad_output, Rows&& rows) {
    if (grad_output.dim() != 0 || at::isTensorSubclassLike(grad_output)) return false;
    std::vector<Tensor> own;
    std::vector<c10::SymInt> rows_of;
    for (size_t i = 0; i < kMaxInputs; ++i) {
      if (!gradients[i].defined()) continue;
      if (!is_sole_owner_of_memory(gradients[i])) return false;
      own.push_back(gradients[i]), rows_of.push_back(rows(i));
    }
    Kernel<ScaleTermsInPlace>::call(own, std::vector<Tensor>(own.size(), grad_output), rows_of);
    return true;
  }
};

template <class Op>
Tensor apply(const Inputs& in, const Parameters& parameters) {
  if (at::GradMode::is_enabled()) {
    const Needed needed = needed_gradients(in);
    if (std::find(needed.begin(), needed.end(), true) != needed.end())
      return Loss<Op>::apply(optional(in[0]), optional(in[1]), optional(in[2]), optional(in[3]), optional(in[4]),
                             optional(in[5]), parameters);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return Op::evaluate(in, Needed{}, parameters).loss;
}

}  // namespace gankernels
