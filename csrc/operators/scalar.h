// The losses of one logit per sample or patch, as data: adding one is adding a row to `find_scalar_loss`.
#pragma once

#include "../problems.h"
#include "divergence.h"

namespace gankernels {

struct ScalarLoss {
  bool has_real = true;
  ScalarTerm real, fake;
  bool relativistic = false;  // offsets are the other batch's means
};

inline ScalarLoss find_scalar_loss(c10::string_view name, double label_smoothing) {
  using enum ScalarFunction;
  ScalarLoss loss;
  const auto terms = [&](ScalarTerm real, ScalarTerm fake) { loss.real = real, loss.fake = fake; };
  const auto generator = [&](ScalarTerm fake) { loss.has_real = false, loss.fake = fake; };
  //                 function   sign offset weight slope
  if (name == "logistic_d") terms({kSoftplus, -1, 0, 1, label_smoothing}, {kSoftplus, 1});
  else if (name == "nonsaturating_g") generator({kSoftplus, -1});
  else if (name == "saturating_g") generator({kSoftplus, 1, 0, -1});
  else if (name == "hinge_d") terms({kHinge, -1}, {kHinge, 1});
  else if (name == "hinge_g" || name == "wasserstein_g") generator({kIdentity, -1});
  else if (name == "wasserstein_d") terms({kIdentity, -1}, {kIdentity, 1});
  else if (name == "lsgan_d") terms({kSquare, 1, 1}, {kSquare, 1, 0});
  else if (name == "lsgan_g") generator({kSquare, 1, 1});
  else if (name == "relativistic_d") terms({kSoftplus, -1}, {kSoftplus, 1}), loss.relativistic = true;
  else if (name == "relativistic_g") terms({kSoftplus, 1}, {kSoftplus, -1}), loss.relativistic = true;
  else TORCH_CHECK_VALUE(false, "loss must be the name of a scalar loss such as 'logistic_d', got '", name, "'");
  return loss;
}

inline Tensor empty_scalar_loss(const Tensor& logits, int64_t reduction) {
  const auto options = logits.options().dtype(accumulate_type(logits.scalar_type()));
  return reduction == kNone ? at::empty_like(logits, options) : at::empty({}, options);
}

inline TwoGradients prepare_scalar_loss(const OptionalTensor& real, const Tensor& fake, const ScalarLoss& loss,
                                        int64_t reduction, bool real_grad, bool fake_grad) {
  check_reduction(reduction);
  if (loss.has_real) {
    TORCH_CHECK_VALUE(real.has_value() && real->defined(), "real_logits is required by this loss, got None");
    check_floating("real_logits", *real);
    check_floating("fake_logits", fake);
    check_same_dtype("real_logits", *real, "fake_logits", fake);
    check_same_device("real_logits", *real, "fake_logits", fake);
    if (reduction == kNone) check_same_shape("real_logits", *real, "fake_logits", fake);
  } else {
    check_floating("fake_logits", fake);
  }
  const bool with_real = loss.has_real && real_grad;
  return {empty_scalar_loss(fake, reduction), empty_gradient(with_real ? *real : fake, with_real),
          empty_gradient(fake, fake_grad)};
}

}  // namespace gankernels
