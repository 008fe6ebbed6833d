// RealnessGAN's losses from means and log-variances: feature resampling and loss as one operator.
#include <ATen/ops/cat.h>
#include <torch/library.h>

#include "../operators/resample.h"
#include "../operators/resampled.h"
#include "realness.h"

namespace gankernels {

namespace {

// One batch of statistics and the logits drawn from it, both in the accumulation dtype.
struct Drawn {
  Tensor statistics, logits;
  at::ScalarType dtype;
  int64_t dim;

  Drawn(const Tensor& given, const Tensor& noise, int64_t class_dim, const char* name, const char* noise_name)
      : dtype(given.scalar_type()), dim(check_resample(given, noise, class_dim, name, noise_name)) {
    statistics = formulas::accumulate(given);
    logits = Kernel<ResampleForward>::call(statistics, noise.to(statistics.scalar_type()), dim);
  }

  Tensor gradient(bool needed, const Tensor& to_logits) const {
    if (!needed) return at::empty({0}, statistics.options().dtype(dtype));
    return Kernel<ResampleBackward>::call(to_logits, statistics, logits, dim).to(dtype);
  }
};

}  // namespace

TwoGradients ResampledRealnessD::compose(const Arguments& a) {
  at::AutoDispatchBelowADInplaceOrView guard;  // plain values: the operators below must not look for derivatives
  const Request& request = a.request;
  const Drawn r(a.real, a.real_noise, a.dim, "real_statistics", "real_noise");
  const Drawn f(a.fake, a.fake_noise, a.dim, "fake_statistics", "fake_noise");
  check_same_device("real_statistics", a.real, "fake_statistics", a.fake);
  check_same_dtype("real_statistics", a.real, "fake_statistics", a.fake);
  if (request.reduction == kNone) check_same_shape("real_statistics", a.real, "fake_statistics", a.fake);
  const auto [loss, g_real, g_fake] =
      Kernel<RealnessD>::call(r.logits, f.logits, a.real_anchor, a.fake_anchor, a.dim, request.reduction,
                              request.first_grad, request.second_grad, request.fold_mean, request.grad_scale, a.scale);
  return {loss, r.gradient(request.first_grad, g_real), f.gradient(request.second_grad, g_fake)};
}

TwoGradients ResampledRealnessG::compose(const Arguments& a) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const Request& request = a.request;
  const Drawn f(a.fake, a.fake_noise, a.dim, "fake_statistics", "fake_noise");
  std::optional<Drawn> r;
  if (a.objective == 2) {
    const Tensor& statistics = required("real_statistics", a.real, a.objective);
    r.emplace(statistics, required("real_noise", a.real_noise, a.objective), a.dim, "real_statistics", "real_noise");
    check_alike("real_statistics", statistics, "fake_statistics", a.fake);
  }
  const bool real_grad = r && request.first_grad;
  const auto [loss, g_real, g_fake] = Kernel<RealnessG>::call(
      r ? OptionalTensor(r->logits) : std::nullopt, f.logits, a.real_anchor, a.fake_anchor, a.objective, a.dim,
      request.reduction, real_grad, request.second_grad, request.fold_mean, request.grad_scale, a.scale);
  return {loss, (r ? *r : f).gradient(real_grad, g_real), f.gradient(request.second_grad, g_fake)};
}

namespace {

// Autograd around either: inputs are real and fake statistics, real and fake anchor, real and fake noise.
template <class Inner>
struct Resampled {
  static constexpr const char* kNode = "ResampledRealnessBackward";

  static constexpr size_t kLogits = Inner::kLogits;
  static c10::SymInt rows(const Tensor& statistics, int64_t dim) { return sym_rows(statistics, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    const bool fold = folds_mean(in[1]);
    if constexpr (std::is_same_v<Inner, RealnessDAutograd>) {
      return evaluated(Kernel<ResampledRealnessD>::call(in[0], in[1], in[2], in[3], in[4], in[5], p.dim, p.reduction,
                                                        needed[0], needed[1], fold, 1.0, p.scale),
                       needed[0], needed[1]);
    } else {
      const bool with_real = needed[0] && p.objective == 2;
      return evaluated(Kernel<ResampledRealnessG>::call(optional(in[0]), in[1], optional(in[2]), optional(in[3]),
                                                        optional(in[4]), in[5], p.objective, p.dim, p.reduction,
                                                        with_real, needed[1], fold, 1.0, p.scale),
                       with_real, needed[1]);
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
                                 int64_t dim, int64_t reduction, double scale) {
  check_constant_anchors(real_anchor, fake_anchor);
  return apply<Resampled<RealnessDAutograd>>(
      {real, fake, real_anchor, fake_anchor, real_noise.detach(), fake_noise.detach()},
      {.reduction = reduction, .dim = dim, .scale = scale});
}

Tensor resampled_realness_g_loss(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                                 const OptionalTensor& fake_anchor, const OptionalTensor& real_noise,
                                 const Tensor& fake_noise, int64_t objective, int64_t dim, int64_t reduction,
                                 double scale) {
  check_constant_anchors(real_anchor, fake_anchor);
  const bool uses_real = objective == 2;
  const auto used = [&](const OptionalTensor& t) { return uses_real ? t.value_or(Tensor()) : Tensor(); };
  return apply<Resampled<RealnessGAutograd>>(
      {used(real), fake, real_anchor.value_or(Tensor()), fake_anchor.value_or(Tensor()), used(real_noise),
       fake_noise.detach()},
      {.reduction = reduction, .dim = dim, .objective = objective, .scale = scale});
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) {
  m.impl("resampled_realness_d_loss", TORCH_FN(resampled_realness_d_loss));
  m.impl("resampled_realness_g_loss", TORCH_FN(resampled_realness_g_loss));
}

}  // namespace gankernels
