// The differentiable losses over distributions: whichever backend computes, this differentiates.
#include <torch/library.h>

#include "formulas.h"
#include "loss.h"
#include "realness.h"

namespace gankernels {

namespace {

// ---- softmax_kl --------------------------------------------------------------------------------------------------

struct SoftmaxKlAutograd {
  static constexpr const char* kNode = "SoftmaxKlBackward";
  static constexpr size_t kLogits = 0;  // inputs: logits, target
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(Kernel<SoftmaxKl>::call(in[0], in[1], p.dim, p.reduction, needed[0], needed[1], folds_mean(in[0]),
                                             1.0, p.temperature, p.scale),
                     needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[0].dim());
    const Tensor z = formulas::counted(formulas::tempered(in[0], p.temperature), grad_output, dim, p.reduction);
    const auto factor = [&](double inverse) {
      return formulas::per_row(grad_output, in[0], dim, p.reduction, p.scale * inverse);
    };
    Inputs out;
    if (needed[0]) out[0] = (factor(1 / p.temperature) * formulas::kl_to_logits(in[1], z, dim)).to(in[0].scalar_type());
    if (needed[1]) out[1] = (factor(1) * formulas::kl_to_target(in[1], z, dim)).to(in[1].scalar_type());
    return out;
  }
};

Tensor softmax_kl(const Tensor& logits, const Tensor& target, int64_t dim, int64_t reduction, double temperature,
                  double scale) {
  const Parameters parameters{.reduction = reduction, .dim = dim, .temperature = temperature, .scale = scale};
  if (!requires_grad(target)) return apply<SoftmaxKlAutograd>({logits, target}, parameters);
  // A learnable target: one row of it per row of logits, and autograd's own expand sums the rows' gradients.
  const int64_t d = check_logits("logits", logits, dim);
  check_target("target", target, "logits", logits, d);
  const bool own_dtype = target.scalar_type() == logits.scalar_type();
  const Tensor t = own_dtype ? target : target.to(accumulate_type(logits.scalar_type()));
  const Tensor rows = formulas::align(t, logits, d).expand_symint(logits.sym_sizes());
  return apply<SoftmaxKlAutograd>({logits, rows}, parameters);
}

// ---- softmax_kl_logits -------------------------------------------------------------------------------------------

struct SoftmaxKlLogitsAutograd {
  static constexpr const char* kNode = "SoftmaxKlLogitsBackward";
  static constexpr size_t kLogits = 1;  // inputs: p_logits, q_logits
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(Kernel<SoftmaxKlLogits>::call(in[0], in[1], p.dim, p.reduction, needed[0], needed[1],
                                                   folds_mean(in[1]), 1.0, p.p_temperature, p.temperature, p.scale),
                     needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[0].dim());
    const Tensor a = formulas::counted(formulas::tempered(in[0], p.p_temperature), grad_output, dim, p.reduction);
    const Tensor z = formulas::counted(formulas::tempered(in[1], p.temperature), grad_output, dim, p.reduction);
    const auto factor = [&](double inverse) {
      return formulas::per_row(grad_output, in[1], dim, p.reduction, p.scale * inverse);
    };
    Inputs out;
    if (needed[0]) out[0] = (factor(1 / p.p_temperature) * formulas::kl_to_p_logits(a, z, dim)).to(in[0].scalar_type());
    if (needed[1]) out[1] = (factor(1 / p.temperature) * (z.softmax(dim) - a.softmax(dim))).to(in[1].scalar_type());
    return out;
  }
};

Tensor softmax_kl_logits(const Tensor& p_logits, const Tensor& q_logits, int64_t dim, int64_t reduction,
                         double p_temperature, double q_temperature, double scale) {
  return apply<SoftmaxKlLogitsAutograd>({p_logits, q_logits}, {.reduction = reduction,
                                                               .dim = dim,
                                                               .temperature = q_temperature,
                                                               .p_temperature = p_temperature,
                                                               .scale = scale});
}

// ---- realness_d_loss ------------------------------------------------------------------------------------------------

Tensor realness_d_loss(const Tensor& real, const Tensor& fake, const Tensor& real_anchor, const Tensor& fake_anchor,
                       int64_t dim, int64_t reduction, double scale) {
  if (requires_grad(real_anchor) || requires_grad(fake_anchor)) {
    RealnessD::prepare({real, fake, real_anchor, fake_anchor, dim, {reduction, false, false, false, 1}, scale});
    return softmax_kl(real, real_anchor, dim, reduction, 1, scale) +
           softmax_kl(fake, fake_anchor, dim, reduction, 1, scale);
  }
  return apply<RealnessDAutograd>({real, fake, real_anchor, fake_anchor},
                                  {.reduction = reduction, .dim = dim, .scale = scale});
}

// ---- realness_g_loss ------------------------------------------------------------------------------------------------

Tensor realness_g_loss(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                       const OptionalTensor& fake_anchor, int64_t objective, int64_t dim, int64_t reduction,
                       double scale) {
  if (requires_grad(real_anchor) || requires_grad(fake_anchor)) {
    const Request nothing{reduction, false, false, false, 1};
    RealnessG::prepare({real, fake, real_anchor, fake_anchor, objective, dim, nothing, scale});
    // Once for both terms: their gradients must add up before they are rounded to half precision.
    const Tensor q_logits = formulas::accumulate(fake);
    const Tensor negative = softmax_kl(q_logits, *fake_anchor, dim, reduction, 1, scale);
    if (objective == 1) return -negative;
    if (objective == 2)
      return softmax_kl_logits(formulas::accumulate(*real), q_logits, dim, reduction, 1, 1, scale) - negative;
    return softmax_kl(q_logits, *real_anchor, dim, reduction, 1, scale) - negative;
  }
  return apply<RealnessGAutograd>(
      {real.value_or(Tensor()), fake, real_anchor.value_or(Tensor()), fake_anchor.value_or(Tensor())},
      {.reduction = reduction, .dim = dim, .objective = objective, .scale = scale});
}

}  // namespace

// Composite: under every key, traced graphs included, these dissolve into the operators that backends implement.
TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) {
  m.impl("softmax_kl", TORCH_FN(softmax_kl));
  m.impl("softmax_kl_logits", TORCH_FN(softmax_kl_logits));
  m.impl("realness_d_loss", TORCH_FN(realness_d_loss));
  m.impl("realness_g_loss", TORCH_FN(realness_g_loss));
}

}  // namespace gankernels
