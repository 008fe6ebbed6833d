// The differentiable relativistic average losses.
#include "../operators/relativistic.h"

#include <torch/library.h>

#include "formulas.h"
#include "loss.h"
#include "terms.h"

namespace gankernels {

namespace {

struct RelativisticAutograd {
  static constexpr const char* kNode = "RelativisticLossBackward";
  static constexpr size_t kLogits = 1;  // inputs: real_logits, fake_logits
  static c10::SymInt rows(const Tensor& logits, int64_t) { return logits.sym_numel(); }
  static bool couples_rows(const Parameters& p) { return p.reduction == kNone; }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(Kernel<RelativisticLoss>::call(in[0], in[1], p.real_term, p.fake_term, p.reduction, needed[0],
                                                    needed[1], folds_mean(in[1]), 1.0),
                     needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const ScalarTerm real_term = scalar_term("real_term", p.real_term);
    const ScalarTerm fake_term = scalar_term("fake_term", p.fake_term);
    const auto per_element = [&](const Tensor& x) {
      return p.reduction == kMean ? grad_output / x.sym_numel() : grad_output;
    };
    const Tensor real = formulas::accumulate(in[0]), fake = formulas::accumulate(in[1]);
    Tensor g_real = per_element(real) * weighted_slope_of(real_term, real - fake.mean());
    Tensor g_fake = per_element(fake) * weighted_slope_of(fake_term, fake - real.mean());
    // Each logit also moves the other batch's terms, through the mean of its own batch.
    const Tensor through_real = g_fake.sum() / real.sym_numel(), through_fake = g_real.sum() / fake.sym_numel();
    g_real = g_real - through_real;
    g_fake = g_fake - through_fake;
    if (real_term.slope != 0) g_real = g_real + per_element(real) * real_term.slope;
    if (fake_term.slope != 0) g_fake = g_fake + per_element(fake) * fake_term.slope;
    Inputs out;
    if (needed[0]) out[0] = g_real.to(in[0].scalar_type());
    if (needed[1]) out[1] = g_fake.to(in[1].scalar_type());
    return out;
  }
};

Tensor relativistic_loss(const Tensor& real, const Tensor& fake, at::ArrayRef<double> real_term,
                         at::ArrayRef<double> fake_term, int64_t reduction) {
  return apply<RelativisticAutograd>({real, fake}, {reduction, 0, 0, real_term, fake_term});
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) {
  m.impl("relativistic_loss", TORCH_FN(relativistic_loss));
}

}  // namespace gankernels
