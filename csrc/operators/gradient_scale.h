// Gradients times a factor: what gradient_scale and negate_ check, and the first-order backward of all losses.
#pragma once

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "checks.h"
#include "operator.h"
#include "outputs.h"

namespace gankernels {

// How many gradients of gradient_scale were scaled in place, and how many into new memory.
std::pair<int64_t, int64_t> gradient_scale_counts();

inline void check_gradient_scale(const Tensor& x, const OptionalTensor& scale) {
  check_floating("x", x);
  if (!scale.has_value() || scale->dim() == 0) return;
  check_floating("scale", *scale);
  const bool fits = scale->dim() == 1 && x.dim() > 0 && scale->sym_size(0) == x.sym_size(0);
  TORCH_CHECK_VALUE(fits, "scale must have shape [] or ", x.sym_sizes().slice(0, x.dim() > 0 ? 1 : 0), ", got ",
                    scale->sym_sizes());
}

// No element is shared when each stride steps over all that the smaller strides can reach.
inline bool may_overlap(const Tensor& t) {
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) > 1) dims.emplace_back(t.stride(d), t.size(d));
  std::sort(dims.begin(), dims.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reach) return t.numel() > 0;
    reach += stride * (size - 1);
  }
  return false;
}

inline void check_writable(const Tensor& t) {
  check_floating("t", t);
  TORCH_CHECK(!(t.is_leaf() && t.requires_grad() && at::GradMode::is_enabled()),
              "t must not be a leaf that requires grad, got one outside torch.no_grad()");
  // A traced tensor has no memory to overlap in.
  if (t.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) return;
  TORCH_CHECK(!may_overlap(t), "t must not overlap itself in memory, got shape ", t.sizes(), " with strides ",
              t.strides());
}

// One gradient as a backend scales it.
struct ScaledGradient {
  const Tensor &in, &out;
  int64_t rows;

  double average() const { return rows > 0 ? 1.0 / static_cast<double>(rows) : 1.0; }
};

// One factor for all, one for each element, or one for each row along `dim`.
inline void check_grad_output(const char* name, const Tensor& gradient, const Tensor& grad_output, int64_t dim) {
  check_floating(name, gradient);
  check_floating("grad_output", grad_output);
  check_same_device(name, gradient, "grad_output", grad_output);
  if (grad_output.dim() == 0 || grad_output.sym_sizes().equals(gradient.sym_sizes())) return;
  bool fits = 0 <= dim && dim < gradient.dim() && grad_output.dim() == gradient.dim() - 1;
  for (int64_t d = 0; fits && d < grad_output.dim(); ++d)
    fits = grad_output.sym_size(d) == gradient.sym_size(d + (d >= dim ? 1 : 0));
  TORCH_CHECK_VALUE(fits, "grad_output must have shape [], ", gradient.sym_sizes(), " or that without dim ", dim,
                    " to match ", name, ", got ", grad_output.sym_sizes());
}

// gradient * grad_output, per row along `dim` where grad_output is not a scalar; divided by `rows` where positive.
struct ScaleGradient {
  static constexpr const char* kName = "scale_gradient";
  static constexpr const char* kSchema = "(Tensor gradient, Tensor grad_output, int dim, SymInt rows) -> Tensor";
  using Signature = Tensor(const Tensor&, const Tensor&, int64_t, c10::SymInt);
  struct Arguments {
    const Tensor &gradient, &grad_output;
    int64_t dim;
    c10::SymInt rows;
  };

  static Outputs<Tensor> prepare(const Arguments& a) {
    check_grad_output("gradient", a.gradient, a.grad_output, a.dim);
    return {output_like(a.gradient)};
  }

  template <class Backend>
  static Tensor evaluate(const Arguments& a) {
    const Tensor out = prepare(a).outputs;
    Backend::scale_gradients(a.grad_output, a.dim, {{a.gradient, out, a.rows.guard_int(__FILE__, __LINE__)}});
    return out;
  }
};

// Both gradients of a loss at once: on a GPU, one launch for the whole backward pass.
struct ScaleGradients {
  static constexpr const char* kName = "scale_gradients";
  static constexpr const char* kSchema =
      "(Tensor gradient, Tensor other_gradient, Tensor grad_output, int dim, SymInt rows, SymInt other_rows) "
      "-> (Tensor, Tensor)";
  using Signature = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, int64_t, c10::SymInt,
                                               c10::SymInt);
  struct Arguments {
    const Tensor &gradient, &other, &grad_output;
    int64_t dim;
    c10::SymInt rows, other_rows;
  };

  static Outputs<std::tuple<Tensor, Tensor>> prepare(const Arguments& a) {
    check_grad_output("gradient", a.gradient, a.grad_output, a.dim);
    check_grad_output("other_gradient", a.other, a.grad_output, a.dim);
    return {{output_like(a.gradient), output_like(a.other)}};
  }

  template <class Backend>
  static std::tuple<Tensor, Tensor> evaluate(const Arguments& a) {
    const auto outputs = prepare(a).outputs;
    const auto& [first, second] = outputs;
    Backend::scale_gradients(a.grad_output, a.dim,
                             {{a.gradient, first, a.rows.guard_int(__FILE__, __LINE__)},
                              {a.other, second, a.other_rows.guard_int(__FILE__, __LINE__)}});
    return outputs;
  }
};

}  // namespace gankernels
