// Feature resampling on every backend: logits drawn from means and log-variances, stacked along the class dimension.
#pragma once

#include <ATen/WrapDimUtils.h>

#include "checks.h"
#include "operands.h"
#include "operator.h"
#include "outputs.h"

namespace gankernels {

// Returns the non-negative dimension.
inline int64_t check_resample(const Tensor& statistics, const Tensor& noise, int64_t dim,
                              const char* name = "mu_logvar", const char* noise_name = "noise") {
  const int64_t d = check_logits(name, statistics, dim);
  TORCH_CHECK_VALUE(statistics.sym_size(d) % 2 == 0, name, " must have an even number of channels along dim ", dim,
                    ", got shape ", statistics.sym_sizes());
  c10::SymDimVector shape(statistics.sym_sizes().begin(), statistics.sym_sizes().end());
  shape[static_cast<size_t>(d)] = shape[static_cast<size_t>(d)] / 2;
  check_floating(noise_name, noise);
  check_same_device(noise_name, noise, name, statistics);
  TORCH_CHECK_VALUE(noise.sym_sizes().equals(shape), noise_name, " must have shape ", c10::SymIntArrayRef(shape),
                    " to match ", name, ", got ", noise.sym_sizes());
  return d;
}

// Elements of a block of means, each followed by as many log-variances, and the number of such pairs.
struct ResampleBlocks {
  int64_t block = 1, outer = 1;

  ResampleBlocks(const Tensor& statistics, int64_t dim) {
    for (int64_t d = 0; d < statistics.dim(); ++d) (d < dim ? outer : block) *= statistics.size(d);
    block /= 2;
  }
};

struct ResampleForward {
  static constexpr const char* kName = "resample_forward";
  static constexpr const char* kSchema = "(Tensor mu_logvar, Tensor noise, int dim) -> Tensor";
  using Signature = Tensor(const Tensor&, const Tensor&, int64_t);
  struct Arguments {
    const Tensor &statistics, &noise;
    int64_t dim;
  };

  // z is dense and contiguous.
  static Outputs<Tensor> prepare(const Arguments& a) {
    check_resample(a.statistics, a.noise, a.dim);
    return {output_of(a.noise.sym_sizes(), a.statistics, a.statistics.scalar_type())};
  }

  template <class Backend>
  static Tensor evaluate(const Arguments& a) {
    const Tensor z = prepare(a).outputs;
    const Tensor statistics = a.statistics.contiguous();
    const Tensor noise = a.noise.to(accumulate_type(statistics.scalar_type())).contiguous();
    ResampleProblem problem;
    problem.statistics = statistics.const_data_ptr();
    problem.noise = noise.const_data_ptr();
    problem.out = z.mutable_data_ptr();
    Backend::resample(problem, statistics, ResampleBlocks(statistics, at::maybe_wrap_dim(a.dim, statistics.dim())));
    return z;
  }
};

struct ResampleBackward {
  static constexpr const char* kName = "resample_backward";
  // `saved` is the resampled tensor, or the noise for 16-bit statistics.
  static constexpr const char* kSchema = "(Tensor grad, Tensor mu_logvar, Tensor saved, int dim) -> Tensor";
  using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t);
  struct Arguments {
    const Tensor &grad, &statistics, &saved;
    int64_t dim;
  };

  // The gradient of the statistics is dense and contiguous.
  static Outputs<Tensor> prepare(const Arguments& a) {
    check_resample(a.statistics, a.grad, a.dim, "mu_logvar", "grad");
    check_same_dtype("grad", a.grad, "mu_logvar", a.statistics);
    check_same_device("saved", a.saved, "mu_logvar", a.statistics);
    check_same_shape("saved", a.saved, "grad", a.grad);
    TORCH_CHECK_TYPE(a.saved.scalar_type() == accumulate_type(a.grad.scalar_type()), "saved must be of ",
                     dtype_name(accumulate_type(a.grad.scalar_type())), ", got ", dtype_name(a.saved.scalar_type()));
    return {output_of(a.statistics.sym_sizes(), a.statistics, a.statistics.scalar_type())};
  }

  template <class Backend>
  static Tensor evaluate(const Arguments& a) {
    const Tensor out = prepare(a).outputs;
    const Tensor grad = a.grad.contiguous(), statistics = a.statistics.contiguous(), saved = a.saved.contiguous();
    ResampleProblem problem;
    problem.statistics = statistics.const_data_ptr();
    problem.noise = saved.const_data_ptr();
    problem.out = const_cast<void*>(saved.const_data_ptr());
    problem.grad_out = grad.const_data_ptr();
    problem.grad_statistics = out.mutable_data_ptr();
    Backend::resample(problem, statistics, ResampleBlocks(statistics, at::maybe_wrap_dim(a.dim, statistics.dim())));
    return out;
  }
};

}  // namespace gankernels
