// The losses over distributions, on every backend: what they check, what they return, which divergences they are.
//
// Each loss has two operators. `name` is the differentiable one that users call. `name_value_and_grad` is the one that
// a backend implements: the loss and the gradients that were asked for, from one pass over the logits, outside
// autograd.
#pragma once

#include <initializer_list>
#include <tuple>

#include "checks.h"
#include "operands.h"
#include "operator.h"
#include "outputs.h"

namespace gankernels {

using TwoGradients = std::tuple<Tensor, Tensor, Tensor>;  // loss, gradient, gradient

// How every operator of value and gradients ends.
struct Request {
  int64_t reduction;
  bool first_grad, second_grad;  // one not asked for comes back with no elements
  // Whether the gradients of a mean are divided by the number of rows; autograd leaves it to the backward pass for
  // fp16, where 1/rows would underflow before a GradScaler's factor is applied.
  bool fold_mean;
  double grad_scale;  // a factor on the gradients, applied before they are rounded to the logits' dtype

  double weight(int64_t rows) const {
    return fold_mean && reduction == kMean ? grad_scale / static_cast<double>(rows) : grad_scale;
  }
};

inline Tensor empty_loss(const Tensor& logits, int64_t dim, int64_t reduction) {
  c10::SymDimVector sizes;
  if (reduction == kNone) {
    for (int64_t i = 0; i < logits.dim(); ++i)
      if (i != dim) sizes.push_back(logits.sym_size(i));
  }
  return output_of(sizes, logits, accumulate_type(logits.scalar_type()));
}

inline Tensor empty_gradient(const Tensor& like, bool needed) {
  return needed ? output_like(like) : output_of({c10::SymInt(0)}, like, like.scalar_type());
}

inline c10::SymInt sym_rows(const Tensor& logits, int64_t dim) {
  c10::SymInt rows = 1;
  for (int64_t i = 0; i < logits.dim(); ++i)
    if (i != dim) rows *= logits.sym_size(i);
  return rows;
}

// scale (KL(P || q) - KL(M || q)) for each row of one batch, q = softmax(logits / temperature). P is `positive`,
// softmax(p_logits / p_temperature) or absent, M is `negative` or absent; either may be one distribution for all rows.
struct Divergence {
  const Tensor& logits;
  const Tensor* p_logits = nullptr;
  const Tensor* positive = nullptr;
  const Tensor* negative = nullptr;
  double temperature = 1, p_temperature = 1, scale = 1;
  // beta, for scale (beta KL(P || m) + (1 - beta) KL(q || m)), m = beta P + (1 - beta) q.
  std::optional<double> share = std::nullopt;
  // Outputs; one without elements was not asked for.
  const Tensor* grad = nullptr;
  const Tensor* p_grad = nullptr;
  const Tensor* positive_grad = nullptr;
};

// What the numbers of a divergence are to a kernel: d/dlogits has the inverse temperature as a factor.
template <class Problem>
void weigh(Problem& problem, const Divergence& d, const Request& request) {
  const double weight = d.scale * request.weight(problem.rows);
  problem.q_inverse = 1 / d.temperature, problem.p_inverse = 1 / d.p_temperature;
  problem.q_weight = weight * problem.q_inverse, problem.p_weight = weight * problem.p_inverse;
  problem.target_weight = weight;
  problem.loss_scale = d.scale;
  if (!d.share.has_value()) return;
  problem.share = *d.share;
  problem.p_weight *= problem.share, problem.q_weight *= 1 - problem.share;
}

// The loss of the rows of `logits`, and the gradients that are asked for.
inline TwoGradients empty_outputs(const Tensor& logits, int64_t dim, const Request& request, const Tensor& first,
                                  const Tensor& second) {
  return {empty_loss(logits, dim, request.reduction), empty_gradient(first, request.first_grad),
          empty_gradient(second, request.second_grad)};
}

struct Prepared {
  int64_t dim;
  TwoGradients outputs;
};

// A backend leaves the reduced sum of the divergences in `loss`, and the gradients where they are asked for.
template <class Backend>
TwoGradients evaluate_divergences(const char* name, const Prepared& prepared, const Request& request,
                                  std::initializer_list<Divergence> divergences) {
  Backend::divergences(name, std::get<0>(prepared.outputs), prepared.dim, request, divergences);
  return prepared.outputs;
}

struct SoftmaxKl {
  static constexpr const char* kName = "softmax_kl_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor logits, Tensor target, int dim, int reduction, bool logits_grad, bool target_grad, bool fold_mean, "
      "float grad_scale, float temperature=1.0, float scale=1.0) -> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const Tensor&, const Tensor&, int64_t, int64_t, bool, bool, bool, double, double,
                                 double);
  struct Arguments {
    const Tensor &logits, &target;
    int64_t dim;
    Request request;
    double temperature, scale;
  };

  static Prepared prepare(const Arguments& a) {
    check_reduction(a.request.reduction);
    const int64_t dim = check_logits("logits", a.logits, a.dim);
    check_target("target", a.target, "logits", a.logits, dim);
    check_temperature("temperature", a.temperature);
    if (a.request.second_grad) check_target_gradient(a.target, a.logits);
    return {dim, empty_outputs(a.logits, dim, a.request, a.logits, a.target)};
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    const Prepared out = prepare(a);
    const auto& [loss, to_logits, to_target] = out.outputs;
    return evaluate_divergences<Backend>(kName, out, a.request,
                                         {{.logits = a.logits,
                                           .positive = &a.target,
                                           .temperature = a.temperature,
                                           .scale = a.scale,
                                           .grad = &to_logits,
                                           .positive_grad = &to_target}});
  }
};

inline Prepared prepare_two_softmaxes(const Tensor& p_logits, const Tensor& q_logits, int64_t dim,
                                      const Request& request) {
  check_reduction(request.reduction);
  dim = check_logits("p_logits", p_logits, dim);
  check_floating("q_logits", q_logits);
  check_alike("p_logits", p_logits, "q_logits", q_logits);
  return {dim, empty_outputs(q_logits, dim, request, p_logits, q_logits)};
}

// `d` but for its gradients, which are the prepared ones.
template <class Backend>
TwoGradients evaluate_two_softmaxes(const char* name, const Prepared& prepared, const Request& request, Divergence d) {
  d.p_grad = &std::get<1>(prepared.outputs), d.grad = &std::get<2>(prepared.outputs);
  return evaluate_divergences<Backend>(name, prepared, request, {d});
}

struct SoftmaxKlLogits {
  static constexpr const char* kName = "softmax_kl_logits_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor p_logits, Tensor q_logits, int dim, int reduction, bool p_grad, bool q_grad, bool fold_mean, "
      "float grad_scale, float p_temperature=1.0, float q_temperature=1.0, float scale=1.0) "
      "-> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const Tensor&, const Tensor&, int64_t, int64_t, bool, bool, bool, double, double,
                                 double, double);
  struct Arguments {
    const Tensor &p_logits, &q_logits;
    int64_t dim;
    Request request;
    double p_temperature, q_temperature, scale;
  };

  static Prepared prepare(const Arguments& a) {
    const Prepared out = prepare_two_softmaxes(a.p_logits, a.q_logits, a.dim, a.request);
    check_temperature("p_temperature", a.p_temperature);
    check_temperature("q_temperature", a.q_temperature);
    return out;
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    return evaluate_two_softmaxes<Backend>(kName, prepare(a), a.request,
                                           {.logits = a.q_logits,
                                            .p_logits = &a.p_logits,
                                            .temperature = a.q_temperature,
                                            .p_temperature = a.p_temperature,
                                            .scale = a.scale});
  }
};

struct RealnessD {
  static constexpr const char* kName = "realness_d_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor real_logits, Tensor fake_logits, Tensor real_anchor, Tensor fake_anchor, int dim, int reduction, "
      "bool real_grad, bool fake_grad, bool fold_mean, float grad_scale, float scale=1.0) "
      "-> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, int64_t, bool,
                                 bool, bool, double, double);
  struct Arguments {
    const Tensor &real, &fake, &real_anchor, &fake_anchor;
    int64_t dim;
    Request request;
    double scale;
  };

  static Prepared prepare(const Arguments& a) {
    check_reduction(a.request.reduction);
    const int64_t dim = check_logits("real_logits", a.real, a.dim);
    check_floating("fake_logits", a.fake);
    check_same_device("real_logits", a.real, "fake_logits", a.fake);
    check_same_dtype("real_logits", a.real, "fake_logits", a.fake);
    check_same_classes("real_logits", a.real, "fake_logits", a.fake, dim);
    if (a.request.reduction == kNone) check_same_shape("real_logits", a.real, "fake_logits", a.fake);
    check_target("real_anchor", a.real_anchor, "real_logits", a.real, dim);
    check_target("fake_anchor", a.fake_anchor, "fake_logits", a.fake, dim);
    return {dim, empty_outputs(a.real, dim, a.request, a.real, a.fake)};
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    const Prepared out = prepare(a);
    const auto& [loss, to_real, to_fake] = out.outputs;
    return evaluate_divergences<Backend>(
        kName, out, a.request,
        {{.logits = a.real, .positive = &a.real_anchor, .scale = a.scale, .grad = &to_real},
         {.logits = a.fake, .positive = &a.fake_anchor, .scale = a.scale, .grad = &to_fake}});
  }
};

inline const Tensor& required(const char* name, const OptionalTensor& t, int64_t objective) {
  TORCH_CHECK_VALUE(t.has_value() && t->defined(), name, " is required by objective ", objective, ", got None");
  return *t;
}

// Eqs. 18, 19, 20 of the RealnessGAN paper: KL(P || q) - KL(A0 || q) with P absent, softmax(real), A1.
struct RealnessG {
  static constexpr const char* kName = "realness_g_loss_value_and_grad";
  static constexpr const char* kSchema =
      "(Tensor? real_logits, Tensor fake_logits, Tensor? real_anchor, Tensor? fake_anchor, int objective, int dim, "
      "int reduction, bool real_grad, bool fake_grad, bool fold_mean, float grad_scale, float scale=1.0) "
      "-> (Tensor, Tensor, Tensor)";
  using Signature = TwoGradients(const OptionalTensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                 int64_t, int64_t, int64_t, bool, bool, bool, double, double);
  struct Arguments {
    const OptionalTensor& real;
    const Tensor& fake;
    const OptionalTensor &real_anchor, &fake_anchor;
    int64_t objective, dim;
    Request request;
    double scale;
  };

  static Prepared prepare(const Arguments& a) {
    const int64_t objective = a.objective;
    TORCH_CHECK_VALUE(objective >= 1 && objective <= 3, "objective must be 1, 2 or 3, got ", objective);
    check_reduction(a.request.reduction);
    const int64_t dim = check_logits("fake_logits", a.fake, a.dim);
    check_target("fake_anchor", required("fake_anchor", a.fake_anchor, objective), "fake_logits", a.fake, dim);
    if (objective == 2) {
      const Tensor& real = required("real_logits", a.real, objective);
      check_floating("real_logits", real);
      check_alike("real_logits", real, "fake_logits", a.fake);
    }
    if (objective == 3)
      check_target("real_anchor", required("real_anchor", a.real_anchor, objective), "fake_logits", a.fake, dim);
    const bool with_real = a.request.first_grad && objective == 2;
    return {dim,
            {empty_loss(a.fake, dim, a.request.reduction), empty_gradient(with_real ? *a.real : a.fake, with_real),
             empty_gradient(a.fake, a.request.second_grad)}};
  }

  template <class Backend>
  static TwoGradients evaluate(const Arguments& a) {
    const Prepared out = prepare(a);
    const auto& [loss, to_real, to_fake] = out.outputs;
    return evaluate_divergences<Backend>(kName, out, a.request,
                                         {{.logits = a.fake,
                                           .p_logits = a.objective == 2 ? &*a.real : nullptr,
                                           .positive = a.objective == 3 ? &*a.real_anchor : nullptr,
                                           .negative = &*a.fake_anchor,
                                           .scale = a.scale,
                                           .grad = &to_fake,
                                           .p_grad = &to_real}});
  }
};

}  // namespace gankernels
