// The generalised Jensen-Shannon divergence of two softmaxes.
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

  static Prepared prepare(const Arguments& a) {
    const Prepared out = prepare_two_softmaxes(a.p_logits, a.q_logits, a.dim, a.request);
    check_share("beta", a.beta);
    check_temperature("temperature", a.temperature);
    return out;
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    return evaluate_two_softmaxes<Backend>(kName, prepare(a), a.request,
                                           {.logits = a.q_logits,
                                            .p_logits = &a.p_logits,
                                            .temperature = a.temperature,
                                            .p_temperature = a.temperature,
                                            .scale = a.scale,
                                            .share = a.beta});
  }
};

}  // namespace gankernels
