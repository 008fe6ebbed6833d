// The differentiable losses of one logit per sample or patch.
#include "../operators/scalar.h"

#include <torch/library.h>

#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "formulas.h"
#include "loss.h"

namespace gankernels {

namespace {

// d term / d x but for `slope`, as a differentiable expression; `mean` is the other batch's, where it is one more
// offset.
Tensor slope_of(const ScalarTerm& term, const Tensor& x, const Tensor& mean) {
  const Tensor u = ((mean.defined() ? x - mean : x) - term.offset) * term.sign;
  const double factor = term.weight * term.sign;
  switch (term.function) {
    case ScalarFunction::kSoftplus: return u.sigmoid() * factor;
    // 1 where max(0, 1 + u) has a slope and 0 elsewhere; a constant as far as derivatives go.
    case ScalarFunction::kHinge: return at::where(u <= -1, at::zeros_like(u), at::ones_like(u)) * factor;
    case ScalarFunction::kSquare: return u * factor;
    default: return at::ones_like(u) * factor;
  }
}

struct ScalarAutograd {
  static constexpr size_t kLogits = 1;  // inputs: real_logits, fake_logits
  static c10::SymInt rows(const Tensor& logits, int64_t) { return logits.sym_numel(); }
  static bool couples_rows(const Parameters& p) { return p.reduction == kNone && p.relativistic; }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    const bool with_real = needed[0] && !p.real_term.empty();
    return evaluated(Kernel<ScalarLossOperator>::call(optional(in[0]), in[1], p.real_term, p.fake_term, p.relativistic,
                                                      p.reduction, with_real, needed[1], folds_mean(in[1]), 1.0),
                     with_real, needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const ScalarLoss loss = scalar_loss_of(p.real_term, p.fake_term, p.relativistic);
    const auto per_element = [&](const Tensor& x) {
      return p.reduction == kMean ? grad_output / x.sym_numel() : grad_output;
    };
    const Tensor fake = formulas::accumulate(in[1]);
    Inputs out;
    if (!loss.has_real) {
      if (needed[1])
        out[1] = (per_element(fake) * (slope_of(loss.fake, fake, {}) + loss.fake.slope)).to(in[1].scalar_type());
      return out;
    }
    const Tensor real = formulas::accumulate(in[0]);
    Tensor g_real, g_fake;
    if (loss.relativistic) {
      g_real = per_element(real) * slope_of(loss.real, real, fake.mean());
      g_fake = per_element(fake) * slope_of(loss.fake, fake, real.mean());
      // Each logit also moves the other batch's terms, through the mean of its own batch.
      const Tensor through_real = g_fake.sum() / real.sym_numel(), through_fake = g_real.sum() / fake.sym_numel();
      g_real = g_real - through_real + per_element(real) * loss.real.slope;
      g_fake = g_fake - through_fake + per_element(fake) * loss.fake.slope;
    } else {
      if (needed[0]) g_real = per_element(real) * (slope_of(loss.real, real, {}) + loss.real.slope);
      if (needed[1]) g_fake = per_element(fake) * (slope_of(loss.fake, fake, {}) + loss.fake.slope);
    }
    if (needed[0]) out[0] = g_real.to(in[0].scalar_type());
    if (needed[1]) out[1] = g_fake.to(in[1].scalar_type());
    return out;
  }
};

Tensor scalar_loss(const OptionalTensor& real, const Tensor& fake, at::ArrayRef<double> real_term,
                   at::ArrayRef<double> fake_term, bool relativistic, int64_t reduction) {
  return apply<ScalarAutograd>({real.value_or(Tensor()), fake}, {reduction, 0, 0, real_term, fake_term, relativistic});
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) { m.impl("scalar_loss", TORCH_FN(scalar_loss)); }

}  // namespace gankernels
