// RealnessGAN's losses from statistics (means and log-variances) and noise: feature resampling and loss as one
// operator, made of operators that every backend has.
#pragma once

#include "divergence.h"

namespace gankernels {

struct ResampledRealnessD {
  static constexpr const char* kName = "resampled_realness_d_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor real_statistics, Tensor fake_statistics, Tensor real_anchor, Tensor fake_anchor, Tensor real_noise, "
      "Tensor fake_noise, int dim, int reduction, bool real_grad, bool fake_grad, bool fold_mean, float grad_scale, "
      "float scale=1.0) -> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                 const Tensor&, int64_t, int64_t, bool, bool, bool, double, double);
  struct Arguments {
    const Tensor &real, &fake, &real_anchor, &fake_anchor, &real_noise, &fake_noise;
    int64_t dim;
    Request request;
    double scale;
  };

  static TwoGradients compose(const Arguments& a);
};

struct ResampledRealnessG {
  static constexpr const char* kName = "resampled_realness_g_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor? real_statistics, Tensor fake_statistics, Tensor? real_anchor, Tensor? fake_anchor, "
      "Tensor? real_noise, Tensor fake_noise, int objective, int dim, int reduction, bool real_grad, bool fake_grad, "
      "bool fold_mean, float grad_scale, float scale=1.0) -> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const OptionalTensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                 const OptionalTensor&, const Tensor&, int64_t, int64_t, int64_t, bool, bool, bool,
                                 double, double);
  struct Arguments {
    const OptionalTensor& real;
    const Tensor& fake;
    const OptionalTensor &real_anchor, &fake_anchor, &real_noise;
    const Tensor& fake_noise;
    int64_t objective, dim;
    Request request;
    double scale;
  };

  static TwoGradients compose(const Arguments& a);
};

}  // namespace gankernels
