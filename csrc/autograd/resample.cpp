// resample_logits: z = mu + noise * exp(logvar / 2).
#include "../operators/resample.h"

#include <ATen/ops/cat.h>
#include <torch/library.h>

#include "formulas.h"
#include "loss.h"

namespace gankernels {

namespace {

class Resample : public Function<Resample> {
 public:
  static constexpr const char* kNode = "ResampleBackward";

  static Tensor forward(AutogradContext* ctx, const Tensor& statistics, const Tensor& noise, int64_t dim) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor z = Kernel<ResampleForward>::call(statistics, noise, dim);
    // z - mu gives back noise * exp(logvar / 2), unless z was rounded to 16 bits.
    const bool keeps_noise = at::isReducedFloatingType(statistics.scalar_type());
    ctx->save_for_backward({statistics, keeps_noise ? noise : z});
    ctx->saved_data["dim"] = dim;
    ctx->saved_data["keeps_noise"] = keeps_noise;
    return z;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grad_outputs) {
    const variable_list saved = ctx->get_saved_variables();
    const int64_t dim = ctx->saved_data["dim"].toInt();
    const bool keeps_noise = ctx->saved_data["keeps_noise"].toBool();
    const Tensor &statistics = saved[0], &g = grad_outputs[0];
    if (at::GradMode::is_enabled()) {
      const auto halves = formulas::accumulate(statistics).chunk(2, dim);
      const Tensor spread = keeps_noise ? saved[1] * (halves[1] * 0.5).exp() : saved[1] - halves[0];
      return {at::cat({g, (g * spread * 0.5).to(g.scalar_type())}, dim), Tensor(), Tensor()};
    }
    at::AutoDispatchBelowADInplaceOrView guard;
    return {Kernel<ResampleBackward>::call(g, statistics, saved[1], dim), Tensor(), Tensor()};
  }
};

Tensor resample_logits(const Tensor& statistics, const Tensor& noise, int64_t dim) {
  const int64_t d = check_resample(statistics, noise, dim);
  const Tensor wide_noise = noise.detach().to(accumulate_type(statistics.scalar_type()));
  return Resample::apply(statistics, wide_noise, d);
}

Tensor resample_backward_autograd(const Tensor& g, const Tensor& statistics, const Tensor& saved, int64_t dim) {
  TORCH_CHECK(!requires_grad(g) && !requires_grad(statistics) && !requires_grad(saved),
              "gankernels::resample_backward has no derivative: differentiate resample_logits with create_graph=True "
              "instead");
  at::AutoDispatchBelowADInplaceOrView guard;
  return Kernel<ResampleBackward>::call(g, statistics, saved, dim);
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) { m.impl("resample_logits", TORCH_FN(resample_logits)); }

TORCH_LIBRARY_IMPL(gankernels, Autograd, m) {
  m.impl("resample_forward", torch::CppFunction::makeFallthrough());
  m.impl("resample_backward", TORCH_FN(resample_backward_autograd));
}

}  // namespace gankernels
