// Schemas and Meta kernels.
#include "operators.h"

namespace gankernels {

TORCH_LIBRARY(gankernels, m) {
  // Meta kernels live in this library: importing gankernels is enough to compile.
  m.set_python_module("gankernels");

  m.def("softmax_kl(Tensor logits, Tensor target, int dim=1, int reduction=1) -> Tensor");
  m.def("softmax_kl_logits(Tensor p_logits, Tensor q_logits, int dim=1, int reduction=1) -> Tensor");
  m.def(
      "realness_d_loss(Tensor real_logits, Tensor fake_logits, Tensor real_anchor, Tensor fake_anchor, int dim=1, "
      "int reduction=1) -> Tensor");
  m.def(
      "realness_g_loss(Tensor? real_logits, Tensor fake_logits, Tensor? real_anchor, Tensor? fake_anchor, "
      "int objective=2, int dim=1, int reduction=1) -> Tensor");
  // Losses of the generator take no real logits, and no term for them.
  m.def(
      "scalar_loss(Tensor? real_logits, Tensor fake_logits, float[] real_term, float[] fake_term, "
      "bool relativistic=False, int reduction=1) -> Tensor");

  m.def(
      "resampled_realness_d_loss(Tensor real_statistics, Tensor fake_statistics, Tensor real_anchor, "
      "Tensor fake_anchor, Tensor real_noise, Tensor fake_noise, int dim=1, int reduction=1) -> Tensor");
  m.def(
      "resampled_realness_g_loss(Tensor? real_statistics, Tensor fake_statistics, Tensor? real_anchor, "
      "Tensor? fake_anchor, Tensor? real_noise, Tensor fake_noise, int objective=2, int dim=1, int reduction=1) "
      "-> Tensor");

  // Identity; its backward multiplies by `factor` and by `scale`, one for all or one per sample.
  m.def("gradient_scale(Tensor x, Tensor? scale, float factor) -> Tensor");
  m.def("negate_(Tensor(a!) t) -> Tensor(a!)");
  m.def("resample_logits(Tensor mu_logvar, Tensor noise, int dim=1) -> Tensor");

  Losses::define(m);
  ComposedLosses::define(m);
  Layers::define(m);
}

TORCH_LIBRARY_IMPL(gankernels, Meta, m) {
  Losses::implement_meta(m);
  Layers::implement_meta(m);
}

TORCH_LIBRARY_IMPL(gankernels, CompositeExplicitAutograd, m) { ComposedLosses::compose(m); }

TORCH_LIBRARY_IMPL(gankernels, Autograd, m) {
  Losses::hide_from_autograd(m);
  ComposedLosses::hide_from_autograd(m);
}

}  // namespace gankernels
