// Gradients times grad_output on CUDA: the first-order backward of all losses.
#include "backend.h"
#include "device.h"

namespace gankernels {

namespace {

struct Scaled {
  Tensor in, out, requested;
  cuda::ScaleBatch batch;

  // Dense in any order where grad_output is one number, in that of its rows or elements where it is not.
  Scaled(const ScaledGradient& g, bool any_order) : requested(g.out) {
    const bool as_it_is = any_order ? g.in.is_non_overlapping_and_dense() : g.in.is_contiguous();
    in = as_it_is ? g.in : g.in.contiguous();
    out = as_it_is ? requested : at::empty_like(in);
    batch = {in.const_data_ptr(), out.mutable_data_ptr(), in.numel(), g.average()};
  }

  void hand_back() const {
    if (!out.is_same(requested)) requested.copy_(out);
  }
  bool is_wide() const { return cuda::is_aligned(batch.in) && cuda::is_aligned(batch.out); }
};

// Classes and what lies behind each: 16 bytes must not cross from a row into another that is not its neighbour.
void spread_over_rows(cuda::ScaleLaunch& launch, const Tensor& gradient, int64_t dim) {
  launch.classes = gradient.size(dim);
  launch.inner = 1;
  for (int64_t d = dim + 1; d < gradient.dim(); ++d) launch.inner *= gradient.size(d);
  const int64_t width = 16 / static_cast<int64_t>(gradient.element_size());
  launch.wide = (launch.inner == 1 ? launch.classes : launch.inner) % width == 0;
}

}  // namespace

void Cuda::scale_gradients(const Tensor& grad_output, int64_t dim, std::initializer_list<ScaledGradient> gradients) {
  const Tensor& gradient = gradients.begin()->in;
  // Gradients to a target may have a dtype of their own.
  if (gradients.size() == 2 && gradient.scalar_type() != gradients.begin()[1].in.scalar_type()) {
    for (const ScaledGradient& g : gradients) scale_gradients(grad_output, dim, {g});
    return;
  }
  const cuda::OnDeviceOf device(gradient);
  // Autograd gives the loss's dtype; others come from direct calls only.
  const Tensor factors = grad_output.to(accumulate_type(gradient.scalar_type())).contiguous();
  cuda::ScaleLaunch launch;
  launch.grad_output = factors.const_data_ptr();
  launch.dtype = kernel_dtype(gradient.scalar_type());
  launch.wide = true;
  if (factors.dim() > 0) {
    launch.spread = factors.dim() == gradient.dim() ? cuda::Spread::kElements : cuda::Spread::kRows;
    if (launch.spread == cuda::Spread::kRows) spread_over_rows(launch, gradient, dim);
  }
  c10::SmallVector<Scaled, 2> scaled;
  for (const ScaledGradient& g : gradients) {
    const Scaled& next = scaled.emplace_back(g, grad_output.dim() == 0);
    launch.wide = launch.wide && next.is_wide();
    (scaled.size() == 1 ? launch.first : launch.second) = next.batch;
  }
  cuda::check_launch(cuda::launch_scale(launch, device.stream()), "scale_gradients");
  for (const Scaled& s : scaled) s.hand_back();
}

}  // namespace gankernels
