// RealnessGAN's losses from means and log-variances: feature resampling and loss as one operator.
#include <ATen/ops/cat.h>
#include <torch/library.h>

#include "../operators/layers.h"
#include "realness.h"

namespace gankernels {

namespace {

Tensor resample_forward(const Tensor& statistics, const Tensor& noise, int64_t dim) {
  static const auto op = find<Tensor(const Tensor&, const Tensor&, int64_t)>("gankernels::resample_forward");
  return op.call(statistics, noise, dim);
}

Tensor resample_backward(const Tensor& g, const Tensor& statistics, const Tensor& z, int64_t dim) {
  static const auto op =
      find<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t)>("gankernels::resample_backward");
  return op.call(g, statistics, z, dim);
}

// One batch of statistics and the logits drawn from it, both in the accumulation dtype.
struct Drawn {
  Tensor statistics, logits;
  at::ScalarType dtype;
  int64_t dim;

  Drawn(const Tensor& given, const Tensor& noise, int64_t class_dim, const char* name, const char* noise_name)
      : dtype(given.scalar_type()), dim(check_resample(given, noise, class_dim, name, noise_name)) {
    statistics = formulas::accumulate(given);
    logits = resample_forward(statistics, noise.to(statistics.scalar_type()), dim);
  }

  Tensor gradient(bool needed, const Tensor& to_logits) const {
    if (!needed) return at::empty({0}, statistics.options().dtype(dtype));
    return resample_backward(to_logits, statistics, logits, dim).to(dtype);
  }
};

TwoGradients d_loss(const Tensor& real, const Tensor& fake, const Tensor& real_anchor, const Tensor& fake_anchor,
                    const Tensor& real_noise, const Tensor& fake_noise, int64_t dim, int64_t reduction, bool real_grad,
                    bool fake_grad, bool fold_mean, double grad_scale) {
  at::AutoDispatchBelowADInplaceOrView guard;  // plain values: the operators below must not look for derivatives
  const Drawn r(real, real_noise, dim, "real_statistics", "real_noise");
  const Drawn f(fake, fake_noise, dim, "fake_statistics", "fake_noise");
  check_same_device("real_statistics", real, "fake_statistics", fake);
  check_same_dtype("real_statistics", real, "fake_statistics", fake);
  if (reduction == kNone) check_same_shape("real_statistics", real, "fake_statistics", fake);
  const auto [loss, g_real, g_fake] = RealnessD::call(r.logits, f.logits, real_anchor, fake_anchor, dim, reduction,
                                                      real_grad, fake_grad, fold_mean, grad_scale);
  return {loss, r.gradient(real_grad, g_real), f.gradient(fake_grad, g_fake)};
}

TwoGradients g_loss(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                    const OptionalTensor& fake_anchor, const OptionalTensor& real_noise, const Tensor& fake_noise,
                    int64_t objective, int64_t dim, int64_t reduction, bool real_grad, bool fake_grad, bool fold_mean,
                    double grad_scale) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const Drawn f(fake, fake_noise, dim, "fake_statistics", "fake_noise");
  std::optional<Drawn> r;
  if (objective == 2) {
    const Tensor& statistics = required("real_statistics", real, objective);
    r.emplace(statistics, required("real_noise", real_noise, objective), dim, "real_statistics", "real_noise");
    check_same_device("real_statistics", statistics, "fake_statistics", fake);
    check_same_dtype("real_statistics", statistics, "fake_statistics", fake);
    check_same_shape("real_statistics", statistics, "fake_statistics", fake);
  }
  const auto [loss, g_real, g_fake] =
      RealnessG::call(r ? OptionalTensor(r->logits) : std::nullopt, f.logits, real_anchor, fake_anchor, objective, dim,
                      reduction, r && real_grad, fake_grad, fold_mean, grad_scale);
  return {loss, (r ? *r : f).gradient(r && real_grad, g_real), f.gradient(fake_grad, g_fake)};
}

// Autograd around either: inputs are real and fake statistics, real and fake anchor, real and fake noise.
template <class Inner>
struct Resampled {
  static constexpr size_t kLogits = Inner::kLogits;
  static c10::SymInt rows(const Tensor& statistics, int64_t dim) { return sym_rows(statistics, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    const bool fold = folds_mean(in[1]);
    if constexpr (std::is_same_v<Inner, RealnessD>) {
      static const auto op = find<decltype(d_loss)>("gankernels::resampled_realness_d_loss_value_and_grad");
      auto [loss, g_real, g_fake] =
          op.call(in[0], in[1], in[2], in[3], in[4], in[5], p.dim, p.reduction, needed[0], needed[1], fold, 1.0);
      return {loss, {when(needed[0], g_real), when(needed[1], g_fake)}};
    } else {
      static const auto op = find<decltype(g_loss)>("gankernels::resampled_realness_g_loss_value_and_grad");
      const bool with_real = needed[0] && p.objective == 2;
      auto [loss, g_real, g_fake] = op.call(optional(in[0]), in[1], optional(in[2]), optional(in[3]), optional(in[4]),
                                            in[5], p.objective, p.dim, p.reduction, with_real, needed[1], fold, 1.0);
      return {loss, {when(with_real, g_real), when(needed[1], g_fake)}};
    }
  }

  // The inner gradient at z = mu + noise exp(logvar / 2), then g to mu and g (z - mu) / 2 to logvar.
  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[1].dim());
    Inputs inner{Tensor(), Tensor(), in[2], in[3]};
    std::array<Tensor, 2> spread;
    for (size_t i = 0; i < 2; ++i) {
      if (!in[i].defined()) continue;
      const auto halves = formulas::accumulate(in[i]).chunk(2, dim);
      spread[i] = in[4 + i].to(halves[0].scalar_type()) * (halves[1] * 0.5).exp();
      inner[i] = halves[0] + spread[i];
    }
    const Inputs g = Inner::formula(inner, needed, grad_output, p);
    Inputs out;
    for (size_t i = 0; i < 2; ++i)
      if (g[i].defined()) out[i] = at::cat({g[i], g[i] * spread[i] * 0.5}, dim).to(in[i].scalar_type());
    return out;
  }
};

void check_constant_anchors(const OptionalTensor& real_anchor, const OptionalTensor& fake_anchor) {
  TORCH_CHECK(!requires_grad(real_anchor) && !requires_grad(fake_anchor),
              "anchors that require grad need resample_logits and the plain loss, got one that does");
}

Tensor resampled_realness_d_loss(const Tensor& real, const Tensor& fake, const Tensor& real_anchor,
                                 const Tensor& fake_anchor, const Tensor& real_noise, const Tensor& fake_noise,
                                 int64_t dim, int64_t reduction) {
  check_constant_anchors(real_anchor, fake_anchor);
  return apply<Resampled<RealnessD>>({real, fake, real_anchor, fake_anchor, real_noise.detach(), fake_noise.detach()},
                                     {reduction, dim});
}

Tensor resampled_realness_g_loss(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                                 const OptionalTensor& fake_anchor, const OptionalTensor& real_noise,
                                 const Tensor& fake_noise, int64_t objective, int64_t dim, int64_t reduction) {
  check_constant_anchors(real_anchor, fake_anchor);
  const bool uses_real = objective == 2;
  const auto used = [&](const OptionalTensor& t) { return uses_real ? t.value_or(Tensor()) : Tensor(); };
  return apply<Resampled<RealnessG>>({used(real), fake, real_anchor.value_or(Tensor()), fake_anchor.value_or(Tensor()),
                                      used(real_noise), fake_noise.detach()},
                                     {reduction, dim, objective});
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) {
  m.impl("resampled_realness_d_loss", TORCH_FN(resampled_realness_d_loss));
  m.impl("resampled_realness_g_loss", TORCH_FN(resampled_realness_g_loss));
}

// Made of operators that every backend has.
TORCH_LIBRARY_IMPL(gankernels, CompositeExplicitAutograd, m) {
  m.impl("resampled_realness_d_loss_value_and_grad", TORCH_FN(d_loss));
  m.impl("resampled_realness_g_loss_value_and_grad", TORCH_FN(g_loss));
}

TORCH_LIBRARY_IMPL(gankernels, Autograd, m) {
  m.impl("resampled_realness_d_loss_value_and_grad", torch::CppFunction::makeFallthrough());
  m.impl("resampled_realness_g_loss_value_and_grad", torch::CppFunction::makeFallthrough());
}

}  // namespace gankernels
