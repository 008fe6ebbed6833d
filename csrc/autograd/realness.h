// RealnessGAN's two losses for autograd: how they are evaluated, and their gradients as differentiable expressions.
#pragma once

#include "formulas.h"
#include "loss.h"

namespace gankernels {

struct RealnessDAutograd {
  static constexpr const char* kNode = "RealnessDLossBackward";
  using Operator = RealnessD;
  static constexpr size_t kLogits = 0;  // inputs: real_logits, fake_logits, real_anchor, fake_anchor
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(Kernel<RealnessD>::call(in[0], in[1], in[2], in[3], p.dim, p.reduction, needed[0], needed[1],
                                             folds_mean(in[0]), 1.0, p.scale),
                     needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[0].dim());
    Inputs out;
    for (size_t i = 0; i < 2; ++i) {
      if (!needed[i]) continue;
      const Tensor g = formulas::per_row(grad_output, in[i], dim, p.reduction, p.scale);
      out[i] = (g * formulas::kl_to_logits(in[2 + i], in[i], dim)).to(in[i].scalar_type());
    }
    return out;
  }
};

struct RealnessGAutograd {
  static constexpr const char* kNode = "RealnessGLossBackward";
  using Operator = RealnessG;
  static constexpr size_t kLogits = 1;  // inputs: real_logits, fake_logits, real_anchor, fake_anchor
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    const bool with_real = needed[0] && p.objective == 2;
    return evaluated(Kernel<RealnessG>::call(optional(in[0]), in[1], optional(in[2]), optional(in[3]), p.objective,
                                             p.dim, p.reduction, with_real, needed[1], folds_mean(in[1]), 1.0, p.scale),
                     with_real, needed[1]);
  }

  // Eqs. 18, 19, 20 of the RealnessGAN paper: KL(P || q) - KL(A0 || q) with P absent, softmax(real), A1.
  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const Tensor &real = in[0], &fake = in[1];
    const int64_t dim = at::maybe_wrap_dim(p.dim, fake.dim());
    const Tensor g = formulas::per_row(grad_output, fake, dim, p.reduction, p.scale);
    Inputs out;
    if (needed[0] && p.objective == 2) out[0] = (g * formulas::kl_to_p_logits(real, fake, dim)).to(real.scalar_type());
    if (needed[1]) {
      Tensor to_fake = -formulas::kl_to_logits(in[3], fake, dim);
      if (p.objective == 2)
        to_fake = to_fake + formulas::accumulate(fake).softmax(dim) - formulas::accumulate(real).softmax(dim);
      if (p.objective == 3) to_fake = to_fake + formulas::kl_to_logits(in[2], fake, dim);
      out[1] = (g * to_fake).to(fake.scalar_type());
    }
    return out;
  }
};

}  // namespace gankernels
