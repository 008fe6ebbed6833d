// The generalised Jensen-Shannon divergence of two softmaxes, made of operators that every backend has.
#pragma once

#include "divergence.h"

namespace gankernels {

struct JsDivergence {
  static constexpr const char* kName = "js_divergence_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor p_logits, Tensor q_logits, float beta, int dim, int reduction, bool p_grad, bool q_grad, "
      "bool fold_mean, float grad_scale, float temperature=1.0, float scale=1.0) -> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const Tensor&, const Tensor&, double, int64_t, int64_t, bool, bool, bool, double,
                                 double, double);
  struct Arguments {
    const Tensor &p_logits, &q_logits;
    double beta;
    int64_t dim;
    Request request;
    double temperature, scale;
  };

  static TwoGradients compose(const Arguments& a);
};

}  // namespace gankernels
