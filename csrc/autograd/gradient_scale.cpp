// gradient_scale and negate_; and no derivative of what scales the gradients of losses.
#include "../operators/gradient_scale.h"

#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <atomic>

#include "../operators/scalar.h"
#include "loss.h"

namespace gankernels {

namespace {

std::atomic<int64_t> scaled_in_place{0}, scaled_by_allocation{0};

// ---- gradient_scale: identity forward, g * scale * factor backward -------------------------------------------------

// Whether overwriting `g` can be noticed by anyone: the engine handed over the only reference to the only tensor on it.
bool is_sole_owner(const Tensor& g) {
  return g.defined() && g.layout() == at::kStrided && !at::isTensorSubclassLike(g) && g.use_count() == 1 &&
         g.has_storage() && g.storage().use_count() == 1 && g.is_non_overlapping_and_dense();
}

Tensor scaled_gradient(Tensor g, const Tensor& scale, double factor) {
  if (!g.defined()) return g;
  // One factor per sample: (N,) against (N, ...).
  Tensor by = scale;
  if (by.defined() && by.dim() == 1 && g.dim() > 1) {
    c10::SymDimVector sizes(static_cast<size_t>(g.dim()), 1);
    sizes[0] = by.sym_size(0);
    by = by.reshape_symint(sizes);
  }
  if (!at::GradMode::is_enabled() && is_sole_owner(g)) {
    ++scaled_in_place;
    if (by.defined()) g.mul_(by);
    if (factor == -1) return g.neg_();
    return factor == 1 ? g : g.mul_(factor);
  }
  ++scaled_by_allocation;
  if (!by.defined()) return factor == -1 ? g.neg() : g * factor;
  // A factor of wider dtype must not widen the gradient.
  return (g * (by * factor)).to(g.scalar_type());
}

class GradientScale : public Function<GradientScale> {
 public:
  static constexpr const char* kNode = "GradientScaleBackward";

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& scale, double factor) {
    at::AutoDispatchBelowADInplaceOrView guard;
    if (scale.has_value()) ctx->save_for_backward({*scale});
    ctx->saved_data["factor"] = factor;
    // Memory of its own: an in-place layer may follow, and through shared memory it would change x behind the back of
    // whoever else reads x, without a trace in the autograd graph.
    return x.clone();
  }

  // By reference: the gradient is taken out of the engine's list, so that its reference count tells who else holds it.
  static variable_list backward(AutogradContext* ctx, variable_list& grad_outputs) {
    const variable_list saved = ctx->get_saved_variables();
    Tensor g = std::move(grad_outputs[0]);
    return {scaled_gradient(std::move(g), saved.empty() ? Tensor() : saved[0], ctx->saved_data["factor"].toDouble()),
            Tensor(), Tensor()};
  }
};

Tensor gradient_scale(const Tensor& x, const OptionalTensor& scale, double factor) {
  check_gradient_scale(x, scale);
  const OptionalTensor constant = scale.has_value() ? OptionalTensor(scale->detach()) : std::nullopt;
  return GradientScale::apply(x, constant, factor);
}

// ---- negate_ -----------------------------------------------------------------------------------------------------

Tensor& negate_(Tensor& t) {
  check_writable(t);
  return t.neg_();
}

// The gradient that it returns does not depend on the logits any more: differentiating it would silently lose a term.
Tensor scale_gradient_autograd(const Tensor& gradient, const Tensor& grad_output, int64_t dim, c10::SymInt rows) {
  TORCH_CHECK(!requires_grad(gradient) && !requires_grad(grad_output),
              "gankernels::scale_gradient has no derivative: it is the first-order backward of a loss; "
              "differentiate the loss with create_graph=True instead");
  at::AutoDispatchBelowADInplaceOrView guard;
  return Kernel<ScaleGradient>::call(gradient, grad_output, dim, std::move(rows));
}

std::tuple<Tensor, Tensor> scale_gradients_autograd(const Tensor& gradient, const Tensor& other_gradient,
                                                    const Tensor& grad_output, int64_t dim, c10::SymInt rows,
                                                    c10::SymInt other_rows) {
  TORCH_CHECK(!requires_grad(gradient) && !requires_grad(other_gradient) && !requires_grad(grad_output),
              "gankernels::scale_gradients has no derivative: it is the first-order backward of a loss; "
              "differentiate the loss with create_graph=True instead");
  at::AutoDispatchBelowADInplaceOrView guard;
  return Kernel<ScaleGradients>::call(gradient, other_gradient, grad_output, dim, std::move(rows),
                                      std::move(other_rows));
}

template <class Op>
auto scale_terms_autograd(at::TensorList gradients, at::TensorList grad_outputs, c10::SymIntArrayRef rows) {
  const auto any = [](at::TensorList list) {
    return std::any_of(list.begin(), list.end(), [](const Tensor& t) { return requires_grad(t); });
  };
  TORCH_CHECK(!any(gradients) && !any(grad_outputs), "gankernels::", Op::kName,
              " has no derivative: it is the first-order backward of a loss; "
              "differentiate the loss with create_graph=True instead");
  at::AutoDispatchBelowADInplaceOrView guard;
  return Kernel<Op>::call(gradients, grad_outputs, rows);
}

}  // namespace

std::pair<int64_t, int64_t> gradient_scale_counts() { return {scaled_in_place.load(), scaled_by_allocation.load()}; }

TORCH_LIBRARY_IMPL(gankernels, CompositeImplicitAutograd, m) {
  m.impl("gradient_scale", TORCH_FN(gradient_scale));
  m.impl("negate_", TORCH_FN(negate_));
}

TORCH_LIBRARY_IMPL(gankernels, Autograd, m) {
  m.impl("scale_gradient", TORCH_FN(scale_gradient_autograd));
  m.impl("scale_gradients", TORCH_FN(scale_gradients_autograd));
  m.impl("scale_terms", TORCH_FN(scale_terms_autograd<ScaleTerms>));
  m.impl("scale_terms_", TORCH_FN(scale_terms_autograd<ScaleTermsInPlace>));
}

}  // namespace gankernels
