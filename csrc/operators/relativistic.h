// The relativistic average losses: a term of every real and of every fake logit, each less the mean of the other batch.
#pragma once

#include "scalar.h"

namespace gankernels {

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

struct RelativisticLoss {
  static constexpr const char* kName = "relativistic_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor real_logits, Tensor fake_logits, float[] real_term, float[] fake_term, int reduction, bool real_grad, "
      "bool fake_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const Tensor&, const Tensor&, at::ArrayRef<double>, at::ArrayRef<double>, int64_t,
                                 bool, bool, bool, double);
  struct Arguments {
    const Tensor &real, &fake;
    at::ArrayRef<double> real_term, fake_term;
    Request request;
  };
  struct Prepared {
    ScalarTerm real, fake;
    TwoGradients outputs;
  };

  static Prepared prepare(const Arguments& a) {
    const ScalarTerm real = scalar_term("real_term", a.real_term), fake = scalar_term("fake_term", a.fake_term);
    check_reduction(a.request.reduction);
    check_floating("real_logits", a.real);
    check_floating("fake_logits", a.fake);
    check_same_dtype("real_logits", a.real, "fake_logits", a.fake);
    check_same_device("real_logits", a.real, "fake_logits", a.fake);
    if (a.request.reduction == kNone) check_same_shape("real_logits", a.real, "fake_logits", a.fake);
    return {real,
            fake,
            {empty_scalar_loss(a.fake, a.request.reduction), empty_gradient(a.real, a.request.first_grad),
             empty_gradient(a.fake, a.request.second_grad)}};
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    const auto [real_term, fake_term, outputs] = prepare(a);
    const auto& [loss, to_real, to_fake] = outputs;
    const ScalarBatch real(a.real, to_real, loss, real_term, a.request);
    const ScalarBatch fake(a.fake, to_fake, loss, fake_term, a.request);
    Backend::relativistic_loss(loss, a.request.reduction, real, fake);
    real.hand_back();
    fake.hand_back();
    return outputs;
  }
};

}  // namespace gankernels
