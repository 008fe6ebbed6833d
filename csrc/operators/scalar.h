// The losses of one logit per sample or patch over any number of tensors: each has a term,
//   weight * f(sign * (x - y - offset)) + slope * (x - y)   for every logit x, y that of another tensor or absent,
// times a factor of the element where there is one. Which terms make a loss stands in gankernels/_scalar.py.
#pragma once

#include <string>
#include <vector>

#include "../problems.h"
#include "divergence.h"
#include "gradient_scale.h"

namespace gankernels {

inline ScalarTerm scalar_term(const char* name, at::ArrayRef<double> numbers) {
  const bool fits = numbers.size() == kTermNumbers && numbers[0] >= 0 && numbers[0] < kScalarFunctions;
  TORCH_CHECK_VALUE(fits, name, " must be (function, sign, offset, weight, slope) with a function from 0 to ",
                    kScalarFunctions - 1, ", got [", numbers, "]");
  return {static_cast<ScalarFunction>(static_cast<int>(numbers[0])), numbers[1], numbers[2], numbers[3], numbers[4]};
}

inline Tensor empty_scalar_loss(const Tensor& logits, int64_t reduction) {
  const auto dtype = accumulate_type(logits.scalar_type());
  return reduction == kNone ? output_like(logits, dtype) : output_of({}, logits, dtype);
}

// Where a term's tensors are in the list of tensors, -1 for none, and which of the outputs it adds to.
struct TermPlace {
  static constexpr size_t kNumbers = 4;
  int64_t logits, other, weight, output;
};

// The arguments that say which loss it is.
struct TermList {
  at::TensorList tensors;
  c10::string_view names;  // of the tensors, for errors, with commas between them
  at::IntArrayRef places;
  at::ArrayRef<double> numbers;
  double scale;  // a factor on all of them

  size_t size() const { return places.size() / TermPlace::kNumbers; }
  TermPlace place(size_t i) const {
    const auto p = places.slice(i * TermPlace::kNumbers, TermPlace::kNumbers);
    return {p[0], p[1], p[2], p[3]};
  }
  ScalarTerm term(size_t i) const {
    ScalarTerm term = scalar_term("terms", numbers.slice(i * kTermNumbers, kTermNumbers));
    term.weight *= scale, term.slope *= scale;
    return term;
  }
  const Tensor& tensor(int64_t i) const { return tensors[static_cast<size_t>(i)]; }

  std::string name(int64_t i) const {
    size_t begin = 0;
    for (; i > 0; --i) begin = names.find(',', begin) + 1;
    return std::string(names.substr(begin, names.find(',', begin) - begin));
  }

  // Every tensor belongs to one term; outputs are in the order of the terms.
  void check_places() const {
    TORCH_CHECK_VALUE(!places.empty() && places.size() % TermPlace::kNumbers == 0,
                      "places must hold (logits, other, weight, output) of at least one term, got ", places.size(),
                      " numbers");
    TORCH_CHECK_VALUE(numbers.size() == size() * kTermNumbers, "terms must hold ", kTermNumbers,
                      " numbers for each of ", size(), " terms, got ", numbers.size());
    const auto count = static_cast<int64_t>(tensors.size());
    std::vector<bool> used(tensors.size());
    int64_t last = -1;
    for (size_t i = 0; i < size(); ++i) {
      const TermPlace p = place(i);
      TORCH_CHECK_VALUE(p.output == last || p.output == last + 1, "places must have outputs in order from 0, got ",
                        p.output, " after ", last);
      last = p.output;
      TORCH_CHECK_VALUE(p.logits >= 0, "places must name the logits of every term, got ", p.logits);
      for (const int64_t at : {p.logits, p.other, p.weight}) {
        if (at == -1) continue;
        TORCH_CHECK_VALUE(at >= 0 && at < count && !used[static_cast<size_t>(at)], "places must name each of ", count,
                          " tensors once, got ", at);
        used[static_cast<size_t>(at)] = true;
      }
    }
    TORCH_CHECK_VALUE(std::find(used.begin(), used.end(), false) == used.end(), "places must name each of ", count,
                      " tensors once, got ", places);
  }

  // Names are made only where something does not fit: they cost more than all the rest.
  void check(int64_t reduction) const {
    check_places();
    check_reduction(reduction);
    for (size_t i = 0; i < size(); ++i) {
      term(i);
      if (!fits(i, reduction)) refuse(i, reduction);
    }
  }

 private:
  bool fits(size_t i, int64_t reduction) const {
    const TermPlace p = place(i);
    const Tensor &first = tensor(place(0).logits), &x = tensor(p.logits);
    const auto loss_type = accumulate_type(x.scalar_type());
    const auto is_beside = [&](int64_t at, bool narrow) {
      if (at < 0) return true;
      const Tensor& t = tensor(at);
      return is_plain(t) && (t.scalar_type() == loss_type || (narrow && t.scalar_type() == x.scalar_type())) &&
             t.device() == x.device() && t.sym_sizes().equals(x.sym_sizes());
    };
    return is_plain(x) && x.device() == first.device() && loss_type == accumulate_type(first.scalar_type()) &&
           is_beside(p.other, true) && is_beside(p.weight, false) &&
           (reduction != kNone || !continues(i) || x.sym_sizes().equals(tensor(place(i - 1).logits).sym_sizes()));
  }

  static bool is_plain(const Tensor& t) {
    return is_supported(t.scalar_type()) && t.layout() == at::kStrided && !t.is_nested();
  }

  bool continues(size_t i) const { return i > 0 && place(i - 1).output == place(i).output; }

  void refuse(size_t i, int64_t reduction) const {
    const TermPlace p = place(i);
    const Tensor &first = tensor(place(0).logits), &logits = tensor(p.logits);
    const std::string first_name = name(place(0).logits), logits_name = name(p.logits);
    check_floating(logits_name.c_str(), logits);
    check_same_device(first_name.c_str(), first, logits_name.c_str(), logits);
    TORCH_CHECK_TYPE(accumulate_type(first.scalar_type()) == accumulate_type(logits.scalar_type()), first_name, " and ",
                     logits_name, " must both be of float64 or neither, got ", dtype_name(first.scalar_type()), " and ",
                     dtype_name(logits.scalar_type()));
    if (p.other >= 0) refuse_beside(p.other, p.logits, true);
    if (p.weight >= 0) refuse_beside(p.weight, p.logits, false);
    if (reduction == kNone && continues(i)) {
      const int64_t before = place(i - 1).logits;
      check_same_shape(name(before).c_str(), tensor(before), logits_name.c_str(), logits);
    }
  }

  // Another tensor of a term: of the dtype of the loss, or of the logits' where that is allowed.
  void refuse_beside(int64_t at, int64_t logits_at, bool narrow) const {
    const Tensor &t = tensor(at), &logits = tensor(logits_at);
    const std::string t_name = name(at), logits_name = name(logits_at);
    check_floating(t_name.c_str(), t);
    check_same_device(logits_name.c_str(), logits, t_name.c_str(), t);
    if (!narrow || t.scalar_type() != logits.scalar_type())
      TORCH_CHECK_TYPE(t.scalar_type() == accumulate_type(logits.scalar_type()), t_name, " must be of ",
                       dtype_name(accumulate_type(logits.scalar_type())), " beside ", logits_name, " of ",
                       dtype_name(logits.scalar_type()), ", got ", dtype_name(t.scalar_type()));
    check_same_shape(logits_name.c_str(), logits, t_name.c_str(), t);
  }
};

// What a mean hands to its rows: one number seen many times.
inline bool is_one_number(const Tensor& t) {
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.stride(d) != 0 && t.size(d) != 1) return false;
  return t.dim() > 0 && t.numel() > 0;
}

inline bool is_half(const Tensor& t) { return t.scalar_type() == at::kHalf; }

// One term's tensors as dense runs of memory in one order; gradients may be lent.
struct TermOperands {
  Tensor logits, other, weights;          // the last two undefined where there are none
  Tensor grad, other_grad, weights_grad;  // undefined where not asked for
  int64_t elements, per_weight = 1, output;
  ScalarTerm term;
  double weight, loss_scale;  // of the gradients, of the sum of the losses

  TermOperands(const TermList& list, size_t i, at::ArrayRef<Tensor> gradients, const Tensor& row_loss,
               const Request& request);

  // Computed in other memory than asked for: copied to where they belong.
  void hand_back() const {
    for (const auto& [lent, asked] : lent_) asked.copy_(lent);
  }

 private:
  Tensor in_order(const Tensor& t, const Tensor& like) const {
    return t.strides().equals(like.strides()) ? t : at::empty_like(like, t.options()).copy_(t);
  }
  Tensor gradient(const Tensor& asked, const Tensor& like) {
    if (!asked.defined() || asked.strides().equals(like.strides())) return asked;
    return lent_.emplace_back(at::empty_like(like, asked.options()), asked).first;
  }
  // One factor for each sample is read as it is, where samples lie one after the other.
  bool set_weights_per_sample(const Tensor& weight, const Tensor& like);

  std::vector<std::pair<Tensor, Tensor>> lent_;
};

inline bool TermOperands::set_weights_per_sample(const Tensor& weight, const Tensor& like) {
  if (elements == 0 || weight.dim() < 2 || !like.is_contiguous() || weights_grad.defined()) return false;
  for (int64_t d = 1; d < weight.dim(); ++d)
    if (weight.stride(d) != 0 && weight.size(d) != 1) return false;
  weights = weight;
  for (int64_t d = weight.dim() - 1; d > 0; --d) weights = weights.select(d, 0);
  weights = weights.contiguous();
  per_weight = elements / weight.size(0);
  return true;
}

inline TermOperands::TermOperands(const TermList& list, size_t i, at::ArrayRef<Tensor> gradients,
                                  const Tensor& row_loss, const Request& request)
    : term(list.term(i)) {
  const TermPlace p = list.place(i);
  const Tensor& x = list.tensor(p.logits);
  const auto asked = [&](int64_t at) { return at < 0 ? Tensor() : gradients[static_cast<size_t>(at)]; };
  elements = x.numel();
  output = p.output;
  const bool fold = request.fold_mean || !is_half(x);
  weight = Request{request.reduction, true, true, fold, request.grad_scale}.weight(elements);
  loss_scale = request.reduction == kMean ? 1 / static_cast<double>(elements) : 1;
  // The order is that of the losses of the elements, which terms may share, or of the gradient.
  Tensor like = request.reduction == kNone ? row_loss : asked(p.logits);
  if (!like.defined()) like = x.is_non_overlapping_and_dense() ? x : at::empty_like(x);
  logits = in_order(x, like);
  grad = gradient(asked(p.logits), like);
  if (p.other >= 0) {
    other = in_order(list.tensor(p.other), like);
    other_grad = gradient(asked(p.other), like);
  }
  if (p.weight >= 0) {
    weights_grad = gradient(asked(p.weight), like);
    if (!set_weights_per_sample(list.tensor(p.weight), like)) weights = in_order(list.tensor(p.weight), like);
  }
}

using TensorsAndGradients = std::tuple<std::vector<Tensor>, std::vector<Tensor>>;

struct ScalarLosses {
  static constexpr const char* kName = "scalar_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor[] tensors, str names, int[] places, float[] terms, float scale, int reduction, int[] wanted, bool "
      "fold_mean, "
      "float grad_scale) -> (Tensor[], Tensor[])";
  using Signature = TensorsAndGradients(at::TensorList, c10::string_view, at::IntArrayRef, at::ArrayRef<double>, double,
                                        int64_t, at::IntArrayRef, bool, double);
  struct Arguments {
    at::TensorList tensors;
    c10::string_view names;
    at::IntArrayRef places;
    at::ArrayRef<double> terms;
    double scale;
    int64_t reduction;
    at::IntArrayRef wanted;  // the tensors whose gradients are asked for, in the order that these come back in
    bool fold_mean;          // else gradients of a mean of fp16 logits are left undivided
    double grad_scale;

    TermList list() const { return {tensors, names, places, terms, scale}; }
    Request request() const { return {reduction, true, true, fold_mean, grad_scale}; }
  };

  static Outputs<TensorsAndGradients> prepare(const Arguments& a) {
    const TermList list = a.list();
    list.check(a.reduction);
    std::vector<Tensor> losses, gradients;
    for (size_t i = 0; i < list.size(); ++i) {
      const TermPlace p = list.place(i);
      if (static_cast<size_t>(p.output) == losses.size())
        losses.push_back(empty_scalar_loss(list.tensor(p.logits), a.reduction));
    }
    for (const int64_t at : a.wanted) {
      const auto count = static_cast<int64_t>(a.tensors.size());
      TORCH_CHECK_VALUE(at >= 0 && at < count, "wanted must name tensors from 0 to ", count - 1, ", got ", at);
      gradients.push_back(output_like(list.tensor(at)));
    }
    return {{std::move(losses), std::move(gradients)}};
  }

  template <class Backend>
  static TensorsAndGradients evaluate(const Arguments& a) {
    auto [outputs] = prepare(a);
    const auto& [losses, gradients] = outputs;
    const TermList list = a.list();
    std::vector<Tensor> asked(a.tensors.size());
    for (size_t i = 0; i < a.wanted.size(); ++i) asked[static_cast<size_t>(a.wanted[i])] = gradients[i];
    std::vector<TermOperands> terms;
    terms.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i)
      terms.emplace_back(list, i, asked, losses[static_cast<size_t>(list.place(i).output)], a.request());
    Backend::scalar_losses(losses, a.reduction, terms);
    for (const TermOperands& term : terms) term.hand_back();
    return outputs;
  }
};

// Gradients times the grad_output of their loss, divided by `rows` where that is positive.
struct ScaleTerms {
  static constexpr const char* kName = "scale_terms";
  static constexpr const char* kSchema = "(Tensor[] gradients, Tensor[] grad_outputs, SymInt[] rows) -> Tensor[]";
  using Signature = std::vector<Tensor>(at::TensorList, at::TensorList, c10::SymIntArrayRef);
  struct Arguments {
    at::TensorList gradients, grad_outputs;
    c10::SymIntArrayRef rows;
  };

  static void check(const Arguments& a) {
    TORCH_CHECK_VALUE(a.gradients.size() == a.grad_outputs.size() && a.gradients.size() == a.rows.size(),
                      "gradients, grad_outputs and rows must be of the same length, got ", a.gradients.size(), ", ",
                      a.grad_outputs.size(), " and ", a.rows.size());
    for (size_t i = 0; i < a.gradients.size(); ++i)
      check_grad_output("gradients", a.gradients[i], a.grad_outputs[i], -1);
  }

  static Outputs<std::vector<Tensor>> prepare(const Arguments& a) {
    check(a);
    std::vector<Tensor> scaled;
    scaled.reserve(a.gradients.size());
    for (const Tensor& gradient : a.gradients) scaled.push_back(output_like(gradient));
    return {std::move(scaled)};
  }

  template <class Backend>
  static std::vector<Tensor> evaluate(const Arguments& a) {
    auto [scaled] = prepare(a);
    scale<Backend>(a, scaled);
    return scaled;
  }

  template <class Backend>
  static void scale(const Arguments& a, at::TensorList scaled) {
    std::vector<int64_t> rows;
    rows.reserve(a.rows.size());
    for (const c10::SymInt& n : a.rows) rows.push_back(n.guard_int(__FILE__, __LINE__));
    Backend::scale_terms(a.gradients, a.grad_outputs, rows, scaled);
  }
};

// The same in the gradients' own memory. A GPU's kernel leaves it alone where the factor is one.
struct ScaleTermsInPlace {
  static constexpr const char* kName = "scale_terms_";
  static constexpr const char* kSchema = "(Tensor(a!)[] gradients, Tensor[] grad_outputs, SymInt[] rows) -> ()";
  using Signature = void(at::TensorList, at::TensorList, c10::SymIntArrayRef);
  using Arguments = ScaleTerms::Arguments;

  static void prepare(const Arguments& a) {
    ScaleTerms::check(a);
    for (const Tensor& gradient : a.gradients)
      TORCH_CHECK_VALUE(gradient.is_non_overlapping_and_dense(),
                        "gradients must be dense, to be scaled where they are, got shape ", gradient.sym_sizes(),
                        " with strides ", gradient.sym_strides());
  }

  template <class Backend>
  static void evaluate(const Arguments& a) {
    prepare(a);
    ScaleTerms::scale<Backend>(a, a.gradients);
  }
};

}  // namespace gankernels
