// Schemas and Meta kernels.
#include "operators.h"

namespace gankernels {

namespace {

// The differentiable operators, which users call.
constexpr const char* kPublic[] = {
    "softmax_kl(Tensor logits, Tensor target, int dim=1, int reduction=1, float temperature=1.0, "
    "float scale=1.0) -> Tensor",
    "softmax_kl_logits(Tensor p_logits, Tensor q_logits, int dim=1, int reduction=1, float p_temperature=1.0, "
    "float q_temperature=1.0, float scale=1.0) -> Tensor",
    "js_divergence(Tensor p_logits, Tensor q_logits, float beta=0.5, int dim=1, int reduction=1, "
    "float temperature=1.0, float scale=1.0) -> Tensor",
    "realness_d_loss(Tensor real_logits, Tensor fake_logits, Tensor real_anchor, Tensor fake_anchor, int dim=1, "
    "int reduction=1, float scale=1.0) -> Tensor",
    "realness_g_loss(Tensor? real_logits, Tensor fake_logits, Tensor? real_anchor, Tensor? fake_anchor, "
    "int objective=2, int dim=1, int reduction=1, float scale=1.0) -> Tensor",
    "relativistic_loss(Tensor real_logits, Tensor fake_logits, float[] real_term, float[] fake_term, "
    "int reduction=1) -> Tensor",
    // For each term the places of its logits, of logits to subtract, of a weight (-1: none), and its output.
    "scalar_loss(Tensor[] tensors, str names, int[] places, float[] terms, float scale=1.0, int reduction=1) -> "
    "Tensor[]",
    "resampled_realness_d_loss(Tensor real_statistics, Tensor fake_statistics, Tensor real_anchor, "
    "Tensor fake_anchor, Tensor real_noise, Tensor fake_noise, int dim=1, int reduction=1, float scale=1.0) -> Tensor",
    "resampled_realness_g_loss(Tensor? real_statistics, Tensor fake_statistics, Tensor? real_anchor, "
    "Tensor? fake_anchor, Tensor? real_noise, Tensor fake_noise, int objective=2, int dim=1, int reduction=1, "
    "float scale=1.0) -> Tensor",
    // Identity; its backward multiplies by `factor` and by `scale`, one for all or one per sample.
    "gradient_scale(Tensor x, Tensor? scale, float factor) -> Tensor",
    "negate_(Tensor(a!) t) -> Tensor(a!)",
    "resample_logits(Tensor mu_logvar, Tensor noise, int dim=1) -> Tensor",
};

}  // namespace

std::vector<std::string> operator_names() {
  std::vector<std::string> names = Losses::names();
  for (const auto& more : {ComposedLosses::names(), Layers::names()})
    names.insert(names.end(), more.begin(), more.end());
  for (const std::string schema : kPublic) names.push_back(schema.substr(0, schema.find('(')));
  return names;
}

TORCH_LIBRARY(gankernels, m) {
  // Meta kernels live in this library: importing gankernels is enough to compile.
  m.set_python_module("gankernels");

  for (const char* schema : kPublic) m.def(schema);
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
