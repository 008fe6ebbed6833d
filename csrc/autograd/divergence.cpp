// The differentiable losses over distributions: whichever backend computes, this differentiates.
#include <torch/library.h>

#include "formulas.h"
#include "loss.h"
#include "realness.h"

namespace gankernels {

namespace {

// ---- softmax_kl --------------------------------------------------------------------------------------------------

struct SoftmaxKlAutograd {
  static constexpr size_t kLogits = 0;  // inputs: logits, target
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(
        Kernel<SoftmaxKl>::call(in[0], in[1], p.dim, p.reduction, needed[0], needed[1], folds_mean(in[0]), 1.0),
        needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[0].dim());
    const Tensor g = formulas::per_row(grad_output, in[0], dim, p.reduction);
    Inputs out;
    if (needed[0]) out[0] = (g * formulas::kl_to_logits(in[1], in[0], dim)).to(in[0].scalar_type());
    if (needed[1]) out[1] = (g * formulas::kl_to_target(in[1], in[0], dim)).to(in[1].scalar_type());
    return out;
  }
};

Tensor softmax_kl(const Tensor& logits, const Tensor& target, int64_t dim, int64_t reduction) {
  if (!requires_grad(target)) return apply<SoftmaxKlAutograd>({logits, target}, {reduction, dim});
  // A learnable target: one row of it per row of logits, and autograd's own expand sums the rows' gradients.
  const int64_t d = check_logits("logits", logits, dim);
  check_target("target", target, "logits", logits, d);
  const bool own_dtype = target.scalar_type() == logits.scalar_type();
  const Tensor t = own_dtype ? target : target.to(accumulate_type(logits.scalar_type()));
  const Tensor rows = formulas::align(t, logits, d).expand_symint(logits.sym_sizes());
  return apply<SoftmaxKlAutograd>({logits, rows}, {reduction, dim});
}

// ---- softmax_kl_logits -------------------------------------------------------------------------------------------

struct SoftmaxKlLogitsAutograd {
  static constexpr size_t kLogits = 1;  // inputs: p_logits, q_logits
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(
        Kernel<SoftmaxKlLogits>::call(in[0], in[1], p.dim, p.reduction, needed[0], needed[1], folds_mean(in[1]), 1.0),
        needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[0].dim());
    const Tensor g = formulas::per_row(grad_output, in[1], dim, p.reduction);
    Inputs out;
    if (needed[0]) out[0] = (g * formulas::kl_to_p_logits(in[0], in[1], dim)).to(in[0].scalar_type());
    if (needed[1])
      out[1] = (g * (formulas::accumulate(in[1]).softmax(dim) - formulas::accumulate(in[0]).softmax(dim)))
                   .to(in[1].scalar_type());
    return out;
  }
};

Tensor softmax_kl_logits(const Tensor& p_logits, const Tensor& q_logits, int64_t dim, int64_t reduction) {
  return apply<SoftmaxKlLogitsAutograd>({p_logits, q_logits}, {reduction, dim});
}

// ---- realness_d_loss ------------------------------------------------------------------------------------------------

Tensor realness_d_loss(const Tensor& real, const Tensor& fake, const Tensor& real_anchor, const Tensor& fake_anchor,
                       int64_t dim, int64_t reduction) {
  if (requires_grad(real_anchor) || requires_grad(fake_anchor)) {
    RealnessD::prepare({real, fake, real_anchor, fake_anchor, dim, {reduction, false, false, false, 1}});
    return softmax_kl(real, real_anchor, dim, reduction) + softmax_kl(fake, fake_anchor, dim, reduction);
  }
  return apply<RealnessDAutograd>({real, fake, real_anchor, fake_anchor}, {reduction, dim});
}

// ---- realness_g_loss ------------------------------------------------------------------------------------------------

Tensor realness_g_loss(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                       const OptionalTensor& fake_anchor, int64_t objective, int64_t dim, int64_t reduction) {
  if (requires_grad(real_anchor) || requires_grad(fake_anchor)) {
    RealnessG::prepare({real, fake, real_anchor, fake_anchor, objective, dim, {reduction, false, false, false, 1}});
    // Once for both terms: their gradients must add up before they are rounded to half precision.
    const Tensor q_logits = formulas::accumulate(fake);
    const Tensor negative = softmax_kl(q_logits, *fake_anchor, dim, reduction);
    if (objective == 1) return -negative;
    if (objective == 2) return softmax_kl_logits(formulas::accumulate(*real), q_logits, dim, reduction) - negative;
    return softmax_kl(q_logits, *real_anchor, dim, reduction) - negative;
  }
  return apply<RealnessGAutograd>(
      {real.value_or(Tensor()), fake, real_anchor.value_or(Tensor()), fake_anchor.value_or(Tensor())},
      {reduction, dim, objective});
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
