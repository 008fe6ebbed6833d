// JSD(p, q) = beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q: two divergences from one mixture.
#include "../operators/js_divergence.h"

#include <ATen/ops/isneginf.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <cmath>

#include "formulas.h"
#include "loss.h"

namespace gankernels {

namespace {

double log_share(double beta, size_t which) { return which == 0 ? std::log(beta) : std::log1p(-beta); }
double share(double beta, size_t which) { return which == 0 ? beta : 1 - beta; }

struct JsDivergenceAutograd {
  static constexpr const char* kNode = "JsDivergenceBackward";
  static constexpr size_t kLogits = 1;  // inputs: p_logits, q_logits
  static c10::SymInt rows(const Tensor& logits, int64_t dim) { return sym_rows(logits, dim); }

  static Evaluated evaluate(const Inputs& in, const Needed& needed, const Parameters& p) {
    return evaluated(Kernel<JsDivergence>::call(in[0], in[1], p.share, p.dim, p.reduction, needed[0], needed[1],
                                                folds_mean(in[1]), 1.0, p.temperature, p.scale),
                     needed[0], needed[1]);
  }

  static Inputs formula(const Inputs& in, const Needed& needed, const Tensor& grad_output, const Parameters& p) {
    const int64_t dim = at::maybe_wrap_dim(p.dim, in[0].dim());
    std::array<Tensor, 2> logs;
    for (size_t i = 0; i < 2; ++i) {
      const Tensor z = formulas::tempered(in[i], p.temperature);
      logs[i] = formulas::counted(z, grad_output, dim, p.reduction).log_softmax(dim);
    }
    // Where neither has mass, log m has no derivative; 0 log 0 = 0 leaves out what stands there instead.
    const Tensor neither = at::isneginf(logs[0]).logical_and(at::isneginf(logs[1]));
    const auto log_part = [&](size_t i) { return logs[i].masked_fill(neither, 0) + log_share(p.share, i); };
    // Not logaddexp, whose second derivative overflows where the two are far apart.
    const Tensor log_m = at::logsumexp(at::stack({log_part(0), log_part(1)}), 0);
    Inputs out;
    for (size_t i = 0; i < 2; ++i) {
      if (!needed[i]) continue;
      const double factor = p.scale * share(p.share, i) / p.temperature;
      const Tensor g = formulas::per_row(grad_output, in[i], dim, p.reduction, factor);
      out[i] = (g * formulas::divergence_to_logits(logs[i], log_m, dim)).to(in[i].scalar_type());
    }
    return out;
  }
};

Tensor js_divergence(const Tensor& p_logits, const Tensor& q_logits, double beta, int64_t dim, int64_t reduction,
                     double temperature, double scale) {
  return apply<JsDivergenceAutograd>(
      {p_logits, q_logits},
      {.reduction = reduction, .dim = dim, .temperature = temperature, .scale = scale, .share = beta});
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) { m.impl("js_divergence", TORCH_FN(js_divergence)); }

}  // namespace gankernels
