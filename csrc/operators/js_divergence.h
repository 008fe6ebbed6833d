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
    check_reduction(a.request.reduction);
    const int64_t dim = check_two_softmaxes(a.p_logits, a.q_logits, a.dim);
    check_share("beta", a.beta);
    check_temperature("temperature", a.temperature);
    return {dim, empty_outputs(a.q_logits, dim, a.request, a.p_logits, a.q_logits)};
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    const Prepared out = prepare(a);
    const auto& [loss, to_p, to_q] = out.outputs;
    return evaluate_divergences<Backend>(kName, out, a.request,
                                         {{.logits = a.q_logits,
                                           .p_logits = &a.p_logits,
                                           .temperature = a.temperature,
                                           .p_temperature = a.temperature,
                                           .scale = a.scale,
                                           .share = a.beta,
                                           .grad = &to_q,
                                           .p_grad = &to_p}});
  }
};

}  // namespace gankernels
