// The losses of one logit over any number of tensors, on CUDA: a launch for every kMostTerms of them.
#include "backend.h"
#include "device.h"

namespace gankernels {

namespace {

cuda::TermBatch batch_of(const TermOperands& given, int output) {
  cuda::TermBatch batch;
  batch.logits = given.logits.const_data_ptr();
  batch.other = readable(given.other);
  batch.weights = readable(given.weights);
  batch.grad = writable(given.grad);
  batch.other_grad = writable(given.other_grad);
  batch.weights_grad = writable(given.weights_grad);
  batch.elements = given.elements;
  batch.per_weight = given.per_weight;
  batch.term = given.term;
  batch.weight = given.weight;
  batch.loss_scale = given.loss_scale;
  batch.output = output;
  batch.dtype = kernel_dtype(given.logits.scalar_type());
  batch.other_wide = given.other.defined() && given.other.scalar_type() != given.logits.scalar_type();
  batch.wide = true;
  for (const void* pointer : {batch.logits, batch.other, batch.weights, static_cast<const void*>(batch.grad),
                              static_cast<const void*>(batch.other_grad), static_cast<const void*>(batch.weights_grad)})
    batch.wide = batch.wide && cuda::is_aligned(pointer);
  return batch;
}

// One of several launches: terms from `begin` on, whose outputs are counted from that of the first of them.
cuda::TermsLaunch launch_from(size_t begin, at::ArrayRef<Tensor> losses, int64_t reduction,
                              const std::vector<TermOperands>& terms) {
  cuda::TermsLaunch launch;
  const int64_t first = terms[begin].output;
  launch.is_double = losses[0].scalar_type() == at::kDouble;
  launch.rows = reduction == kNone;
  launch.continues = begin > 0 && terms[begin - 1].output == first;
  for (size_t i = begin; i < terms.size() && launch.count < cuda::kMostTerms; ++i) {
    const auto output = static_cast<int>(terms[i].output - first);
    cuda::TermBatch& batch = launch.terms[launch.count++];
    batch = batch_of(terms[i], output);
    launch.losses[output] = losses[static_cast<size_t>(terms[i].output)].mutable_data_ptr();
    batch.wide = batch.wide && (!launch.rows || cuda::is_aligned(launch.losses[output]));
  }
  return launch;
}

// What an output's rows are the sum of is worked on in one launch, and in runs of one width.
void keep_together(cuda::TermsLaunch& launch, bool is_last) {
  const auto begins = [&](int i) { return i == 0 || launch.terms[i].output != launch.terms[i - 1].output; };
  int last = launch.count - 1;
  while (!begins(last)) --last;
  if (!is_last && last > 0) launch.count = last;
  for (int i = launch.count - 1; i > 0; --i)
    if (!begins(i)) launch.terms[i - 1].wide = launch.terms[i - 1].wide && launch.terms[i].wide;
  for (int i = 1; i < launch.count; ++i)
    if (!begins(i)) launch.terms[i].wide = launch.terms[i - 1].wide;
}

}  // namespace

void Cuda::scalar_losses(at::ArrayRef<Tensor> losses, int64_t reduction, const std::vector<TermOperands>& terms) {
  const cuda::OnDeviceOf device(losses[0]);
  const cuda::Workspace workspace(losses[0], false);
  for (size_t begin = 0; begin < terms.size();) {
    cuda::TermsLaunch launch = launch_from(begin, losses, reduction, terms);
    if (launch.rows) keep_together(launch, begin + static_cast<size_t>(launch.count) == terms.size());
    launch.total = workspace.total;
    cuda::check_launch(cuda::launch_terms(launch, device.stream()), "scalar_loss");
    begin += static_cast<size_t>(launch.count);
  }
}

void Cuda::scale_terms(at::TensorList gradients, at::TensorList grad_outputs, at::IntArrayRef rows,
                       at::TensorList scaled) {
  if (gradients.empty()) return;
  const cuda::OnDeviceOf device(gradients[0]);
  std::vector<Tensor> kept;  // until they are read
  cuda::ScaleTermsLaunch launch;
  launch.is_double = gradients[0].scalar_type() == at::kDouble;
  const auto go = [&] {
    cuda::check_launch(cuda::launch_scale_terms(launch, device.stream()), "scale_terms");
    launch.count = 0;
  };
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor& in = gradients[i];
    if (in.numel() == 0) continue;
    Tensor out = scaled[i], factor = grad_outputs[i].to(accumulate_type(in.scalar_type()));
    const bool by_element = factor.dim() > 0 && !is_one_number(factor);
    if (by_element && !factor.strides().equals(in.strides()))
      factor = at::empty_like(in, factor.options()).copy_(factor);
    const Tensor dense = in.strides().equals(out.strides()) ? in : at::empty_like(out).copy_(in);
    kept.insert(kept.end(), {factor, dense});
    cuda::ScaledTerm& term = launch.terms[launch.count++];
    term = {};
    term.in = dense.const_data_ptr(), term.out = out.mutable_data_ptr(), term.grad_output = factor.const_data_ptr();
    term.elements = in.numel();
    term.average = rows[i] > 0 ? 1 / static_cast<double>(rows[i]) : 1;
    term.dtype = kernel_dtype(in.scalar_type());
    term.by_element = by_element;
    term.wide =
        cuda::is_aligned(term.in) && cuda::is_aligned(term.out) && (!by_element || cuda::is_aligned(term.grad_output));
    if (launch.count == cuda::kMostScaled) go();
  }
  if (launch.count > 0) go();
}

}  // namespace gankernels
