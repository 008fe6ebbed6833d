// The losses of one logit per sample or patch: weight * f(sign * (x - offset)) + slope * x over the logits of a real
// and a fake batch, or of a fake batch alone. Which terms make a loss stands in gankernels/_scalar.py.
#pragma once

#include "../problems.h"
#include "divergence.h"

namespace gankernels {

struct ScalarLoss {
  bool has_real = true;
  ScalarTerm real, fake;
  bool relativistic = false;  // offsets are the other batch's means
};

// (function, sign, offset, weight, slope), as ScalarTerm has them.
constexpr size_t kTermNumbers = 5;

inline ScalarTerm scalar_term(const char* name, at::ArrayRef<double> numbers) {
  const bool fits = numbers.size() == kTermNumbers && numbers[0] >= 0 && numbers[0] < kScalarFunctions;
  TORCH_CHECK_VALUE(fits, name, " must be (function, sign, offset, weight, slope) with a function from 0 to ",
                    kScalarFunctions - 1, ", got [", numbers, "]");
  return {static_cast<ScalarFunction>(static_cast<int>(numbers[0])), numbers[1], numbers[2], numbers[3], numbers[4]};
}

inline ScalarLoss scalar_loss_of(at::ArrayRef<double> real_term, at::ArrayRef<double> fake_term, bool relativistic) {
  ScalarLoss loss{!real_term.empty(), {}, scalar_term("fake_term", fake_term), relativistic};
  if (loss.has_real) loss.real = scalar_term("real_term", real_term);
  TORCH_CHECK_VALUE(loss.has_real || !relativistic, "real_term is required by a relativistic loss, got none");
  return loss;
}

inline Tensor empty_scalar_loss(const Tensor& logits, int64_t reduction) {
  const auto options = logits.options().dtype(accumulate_type(logits.scalar_type()));
  return reduction == kNone ? at::empty_like(logits, options) : at::empty({}, options);
}

// One batch: its logits, and its gradient, as dense runs of memory in one order.
struct ScalarBatch {
  Tensor logits, grad;
  bool wants_grad;
  int64_t elements;
  ScalarTerm term;
  double weight;  // of the gradients

  ScalarBatch(const Tensor& x, const Tensor& gradient, const Tensor& loss, const ScalarTerm& term,
              const Request& request)
      : logits(x),
        grad(gradient),
        wants_grad(gradient.numel() != 0),
        elements(x.numel()),
        term(term),
        weight(request.weight(elements)),
        requested_(gradient) {
    // The order is that of the per-element losses, which two batches may share, or of the gradient.
    const Tensor& like = request.reduction == kNone ? loss : (wants_grad ? gradient : x);
    if (!like.is_non_overlapping_and_dense() || !x.strides().equals(like.strides()))
      logits = at::empty_like(like, x.options()).copy_(x);
    if (wants_grad && !gradient.strides().equals(logits.strides())) grad = at::empty_like(logits);
  }

  const void* data() const { return logits.const_data_ptr(); }
  void* grad_data() const { return wants_grad ? grad.mutable_data_ptr() : nullptr; }

  void hand_back() const {
    if (!grad.is_same(requested_)) requested_.copy_(grad);
  }

 private:
  Tensor requested_;
};

struct ScalarLossOperator {
  static constexpr const char* kName = "scalar_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor? real_logits, Tensor fake_logits, float[] real_term, float[] fake_term, bool relativistic, "
      "int reduction, bool real_grad, bool fake_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const OptionalTensor&, const Tensor&, at::ArrayRef<double>, at::ArrayRef<double>, bool,
                                 int64_t, bool, bool, bool, double);
  struct Arguments {
    const OptionalTensor& real;
    const Tensor& fake;
    at::ArrayRef<double> real_term, fake_term;
    bool relativistic;
    Request request;
  };
  struct Prepared {
    ScalarLoss loss;
    TwoGradients outputs;
  };

  static Prepared prepare(const Arguments& a) {
    const ScalarLoss loss = scalar_loss_of(a.real_term, a.fake_term, a.relativistic);
    check_reduction(a.request.reduction);
    if (loss.has_real) {
      TORCH_CHECK_VALUE(a.real.has_value() && a.real->defined(), "real_logits is required by this loss, got None");
      check_floating("real_logits", *a.real);
      check_floating("fake_logits", a.fake);
      check_same_dtype("real_logits", *a.real, "fake_logits", a.fake);
      check_same_device("real_logits", *a.real, "fake_logits", a.fake);
      if (a.request.reduction == kNone) check_same_shape("real_logits", *a.real, "fake_logits", a.fake);
    } else {
      check_floating("fake_logits", a.fake);
    }
    const bool with_real = loss.has_real && a.request.first_grad;
    return {loss,
            {empty_scalar_loss(a.fake, a.request.reduction), empty_gradient(with_real ? *a.real : a.fake, with_real),
             empty_gradient(a.fake, a.request.second_grad)}};
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    const auto [function, outputs] = prepare(a);
    const auto& [loss, to_real, to_fake] = outputs;
    const ScalarBatch fake(a.fake, to_fake, loss, function.fake, a.request);
    std::optional<ScalarBatch> real;
    if (function.has_real) real.emplace(*a.real, to_real, loss, function.real, a.request);
    Backend::scalar_loss(loss, a.request.reduction, function.relativistic, real, fake);
    if (real.has_value()) real->hand_back();
    fake.hand_back();
    return outputs;
  }
};

}  // namespace gankernels
