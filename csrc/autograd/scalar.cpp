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

// d term / d x, as a differentiable expression; `offset` is a tensor where it depends on the other batch.
Tensor slope_of(const ScalarTerm& term, const Tensor& x, const Tensor& offset) {
  const Tensor u = (offset.defined() ? x - offset : x - term.offset) * term.sign;
  const double factor = term.weight * term.sign;
  switch (term.function) {
    case ScalarFunction::kSoftplus: return u.sigmoid() * factor + term.slope;
    // 1 where max(0, 1 + u) has a slope and 0 elsewhere; a constant as far as derivatives go.
    case ScalarFunction::kHinge: return at::where(u <= -1, at::zeros_like(u), at::ones_like(u)) * factor + term.slope;
    case ScalarFunction::kSquare: return u * factor + term.slope;
    default: return at::ones_like(u) * factor + term.slope;
  }
}

struct Scalar {
  static constexpr size_t kLogits = 1;  // inputs: real_logits, fake_logits
  static c10::SymInt rows(const Tensor& logits, int64_t) { return logits.sym_numel(); }
  static bool couples_rows(const Parameters& p) {
    return p.reduction == kNone && find_scalar_loss(p.name, p.label_smoothing).relativistic;
  }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    static const auto op = find<TwoGradients(const OptionalTensor&, const Tensor&, c10::string_view, double, int64_t,
                                             bool, bool, bool, double)>("gankernels::scalar_loss_value_and_grad");
    const bool with_real = needed[0] && find_scalar_loss(p.name, p.label_smoothing).has_real;
    auto [loss, g_real, g_fake] = op.call(optional(in[0]), in[1], p.name, p.label_smoothing, p.reduction, with_real,
                                          needed[1], folds_mean(in[1]), 1.0);
    return {loss, {when(with_real, g_real), when(needed[1], g_fake)}};
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const ScalarLoss loss = find_scalar_loss(p.name, p.label_smoothing);
    const auto per_element = [&](const Tensor& x) {
      return p.reduction == kMean ? grad_output / x.sym_numel() : grad_output;
    };
    const Tensor fake = formulas::accumulate(in[1]);
    Inputs out;
    if (!loss.has_real) {
      if (needed[1]) out[1] = (per_element(fake) * slope_of(loss.fake, fake, {})).to(in[1].scalar_type());
      return out;
    }
    const Tensor real = formulas::accumulate(in[0]);
    Tensor g_real, g_fake;
    if (loss.relativistic) {
      g_real = per_element(real) * slope_of(loss.real, real, fake.mean());
      g_fake = per_element(fake) * slope_of(loss.fake, fake, real.mean());
      // Each logit also moves the other batch's terms, through the mean of its own batch.
      const Tensor through_real = g_fake.sum() / real.sym_numel(), through_fake = g_real.sum() / fake.sym_numel();
      g_real = g_real - through_real;
      g_fake = g_fake - through_fake;
    } else {
      if (needed[0]) g_real = per_element(real) * slope_of(loss.real, real, {});
      if (needed[1]) g_fake = per_element(fake) * slope_of(loss.fake, fake, {});
    }
    if (needed[0]) out[0] = g_real.to(in[0].scalar_type());
    if (needed[1]) out[1] = g_fake.to(in[1].scalar_type());
    return out;
  }
};

Tensor scalar_loss(const OptionalTensor& real, const Tensor& fake, c10::string_view name, double label_smoothing,
                   int64_t reduction) {
  return apply<Scalar>({real.value_or(Tensor()), fake}, {reduction, 0, 0, std::string(name), label_smoothing});
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) { m.impl("scalar_loss", TORCH_FN(scalar_loss)); }

TORCH_LIBRARY_IMPL(gankernels, Autograd, m) {
  m.impl("scalar_loss_value_and_grad", torch::CppFunction::makeFallthrough());
}

}  // namespace gankernels
