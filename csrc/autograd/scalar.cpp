// The differentiable losses of one logit over any number of tensors: one node for all of them.
#include "../operators/scalar.h"

#include <torch/library.h>

#include "formulas.h"
#include "loss.h"
#include "terms.h"

namespace gankernels {

namespace {

// Which loss it is, as the node is asked to keep it.
struct TermParameters {
  c10::string_view names;
  at::IntArrayRef places;
  at::ArrayRef<double> terms;
  double scale;
  int64_t reduction;
};

std::vector<int64_t> wanted_of(at::TensorList tensors) {
  std::vector<int64_t> wanted;
  for (size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].requires_grad()) wanted.push_back(static_cast<int64_t>(i));
  return wanted;
}

// What a node has saved: tensors, then the gradients of those that required one.
struct SavedTerms {
  std::vector<int64_t> places, wanted;
  std::vector<double> numbers;
  double scale;
  int64_t reduction;
  bool shown;  // to hooks, which may keep what was saved
  variable_list saved;
  size_t count;  // of tensors

  explicit SavedTerms(AutogradContext* ctx) : saved(ctx->get_saved_variables()) {
    const auto& elements = ctx->saved_data["terms"].toTupleRef().elements();
    const auto terms = static_cast<size_t>(elements[0].toInt() >> 3);
    reduction = elements[0].toInt() & 3;
    shown = elements[0].toInt() & 4;
    scale = elements[1].toDouble();
    places.reserve(terms * TermPlace::kNumbers), numbers.reserve(terms * kTermNumbers);
    size_t at = 2;
    for (const size_t end = at + terms * TermPlace::kNumbers; at < end; ++at) places.push_back(elements[at].toInt());
    for (const size_t end = at + terms * kTermNumbers; at < end; ++at) numbers.push_back(elements[at].toDouble());
    for (; at < elements.size(); ++at) wanted.push_back(elements[at].toInt());
    count = saved.size() - wanted.size();
  }

  TermList list() const { return {at::TensorList(saved.data(), count), "", places, numbers, scale}; }
};

// The gradients of one term as differentiable expressions: to its logits, to those that are subtracted, to its weight.
struct TermGradients {
  Tensor logits, other, weight;

  TermGradients(const TermList& list, size_t i, int64_t reduction, const Tensor& grad_output) {
    const TermPlace p = list.place(i);
    const ScalarTerm term = list.term(i);
    const Tensor& x = list.tensor(p.logits);
    Tensor z = formulas::accumulate(x);
    if (p.other >= 0) z = z - formulas::accumulate(list.tensor(p.other));
    const Tensor per = reduction == kMean ? grad_output / x.sym_numel() : grad_output;
    Tensor slope = plus(weighted_slope_of(term, z), term.slope);
    if (p.weight >= 0) {
      const Tensor& w = list.tensor(p.weight);
      // 0 * inf is NaN: what has no weight must not touch the gradient.
      slope = at::where((w == 0).logical_and(slope.isfinite().logical_not()), at::zeros_like(slope), slope * w);
      Tensor value = times(value_of(term, argument_of(term, z)), term.weight);
      if (term.slope != 0) value = value + z * term.slope;
      weight = per * value;
    }
    const Tensor to_logits = per * slope;
    logits = to_logits.to(x.scalar_type());
    if (p.other >= 0) other = to_logits.neg().to(list.tensor(p.other).scalar_type());
  }
};

// Saved gradients, each with a factor, and whose they are.
class Scaling {
 public:
  void add(const Tensor& gradient, const Tensor& factor, c10::SymInt rows, size_t target) {
    gradients_.push_back(gradient), factors_.push_back(factor);
    rows_.push_back(std::move(rows)), targets_.push_back(target);
  }

  // All by one call of `scale`, which leaves the results in the gradients' place.
  template <class Scale>
  void run(variable_list& result, Scale&& scale) {
    if (gradients_.empty()) return;
    scale(gradients_, factors_, rows_);
    for (size_t i = 0; i < targets_.size(); ++i) result[targets_[i]] = std::move(gradients_[i]);
  }

 private:
  std::vector<Tensor> gradients_, factors_;
  std::vector<c10::SymInt> rows_;
  std::vector<size_t> targets_;
};

class Terms : public Function<Terms> {
 public:
  static constexpr const char* kNode = "ScalarLossBackward";

  static variable_list forward(AutogradContext* ctx, at::TensorList tensors, const TermParameters& parameters) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const std::vector<int64_t> wanted = wanted_of(tensors);
    auto [losses, gradients] =
        Kernel<ScalarLosses>::call(tensors, parameters.names, parameters.places, parameters.terms, parameters.scale,
                                   parameters.reduction, wanted, /*fold_mean=*/false, 1.0);
    variable_list saved(tensors.begin(), tensors.end());
    saved.insert(saved.end(), gradients.begin(), gradients.end());
    ctx->save_for_backward(std::move(saved));
    // All in one tuple: compiled autograd tells nodes apart by a hash, which a list within a tuple has not.
    const auto terms = static_cast<int64_t>(parameters.places.size() / TermPlace::kNumbers);
    const int64_t shown = saved_tensors_are_shown() ? 4 : 0;
    std::vector<c10::IValue> kept{terms << 3 | shown | parameters.reduction, parameters.scale};
    kept.reserve(2 + parameters.places.size() + parameters.terms.size() + wanted.size());
    kept.insert(kept.end(), parameters.places.begin(), parameters.places.end());
    kept.insert(kept.end(), parameters.terms.begin(), parameters.terms.end());
    kept.insert(kept.end(), wanted.begin(), wanted.end());
    ctx->saved_data["terms"] = c10::ivalue::Tuple::create(std::move(kept));
    ctx->set_materialize_grads(false);
    return std::move(losses);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grad_outputs) {
    const SavedTerms saved(ctx);
    variable_list result(saved.count + 1);  // one for `parameters`
    if (at::GradMode::is_enabled()) by_formula(result, saved, grad_outputs);
    else scale(result, saved, grad_outputs);
    return result;
  }

 private:
  static void by_formula(variable_list& result, const SavedTerms& saved, const variable_list& grad_outputs) {
    const TermList list = saved.list();
    for (size_t i = 0; i < list.size(); ++i) {
      const TermPlace p = list.place(i);
      const Tensor& grad_output = grad_outputs[static_cast<size_t>(p.output)];
      if (!grad_output.defined()) continue;
      TermGradients gradients(list, i, saved.reduction, grad_output);
      const auto give = [&](int64_t at, Tensor& gradient) {
        if (at >= 0 && list.tensor(at).requires_grad()) result[static_cast<size_t>(at)] = std::move(gradient);
      };
      give(p.logits, gradients.logits), give(p.other, gradients.other), give(p.weight, gradients.weight);
    }
  }

  static void scale(variable_list& result, const SavedTerms& saved, const variable_list& grad_outputs) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const TermList list = saved.list();
    std::vector<const Tensor*> output_of(saved.count);
    std::vector<c10::SymInt> rows_of(saved.count, c10::SymInt(-1));
    for (size_t i = 0; i < list.size(); ++i) {
      const TermPlace p = list.place(i);
      const Tensor& x = list.tensor(p.logits);
      for (const int64_t at : {p.logits, p.other, p.weight}) {
        if (at < 0) continue;
        output_of[static_cast<size_t>(at)] = &grad_outputs[static_cast<size_t>(p.output)];
        if (saved.reduction == kMean && !folds_mean(x)) rows_of[static_cast<size_t>(at)] = x.sym_numel();
      }
    }
    Scaling copied, in_place;
    // A saved gradient itself may be handed out when nobody will ask this node again.
    const bool last = !graph_is_kept();
    for (size_t i = 0; i < saved.wanted.size(); ++i) {
      const auto at = static_cast<size_t>(saved.wanted[i]);
      const Tensor &gradient = saved.saved[saved.count + i], &grad_output = *output_of[at];
      if (!grad_output.defined()) continue;
      if (last && rows_of[at] == -1 && is_known_one(grad_output)) {
        result[at] = gradient;
        continue;
      }
      if (is_batched(grad_output)) {  // torch.func has no rule for operators on lists
        const Tensor factor = rows_of[at] > 0 ? grad_output / rows_of[at] : grad_output;
        result[at] = (gradient * factor).to(gradient.scalar_type());
        continue;
      }
      const bool unseen = last && !saved.shown && is_sole_owner_of_memory(gradient);
      Scaling& scaling = unseen && !at::isTensorSubclassLike(grad_output) ? in_place : copied;
      scaling.add(gradient, grad_output, rows_of[at], at);
    }
    in_place.run(result, [](auto&&... arguments) { Kernel<ScaleTermsInPlace>::call(arguments...); });
    copied.run(result, [](std::vector<Tensor>& gradients, auto&&... arguments) {
      gradients = Kernel<ScaleTerms>::call(gradients, arguments...);
    });
  }
};

std::vector<Tensor> scalar_loss(at::TensorList tensors, c10::string_view names, at::IntArrayRef places,
                                at::ArrayRef<double> terms, double scale, int64_t reduction) {
  // Else the dispatcher would not know where to go.
  TORCH_CHECK_VALUE(!tensors.empty(), "tensors must hold at least one, got an empty list");
  const bool differentiable =
      at::GradMode::is_enabled() &&
      std::any_of(tensors.begin(), tensors.end(), [](const Tensor& t) { return t.requires_grad(); });
  if (differentiable) return Terms::apply(tensors, TermParameters{names, places, terms, scale, reduction});
  at::AutoDispatchBelowADInplaceOrView guard;
  return std::get<0>(Kernel<ScalarLosses>::call(tensors, names, places, terms, scale, reduction, {}, false, 1.0));
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) { m.impl("scalar_loss", TORCH_FN(scalar_loss)); }

}  // namespace gankernels
