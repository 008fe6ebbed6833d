// The relativistic average losses on CUDA: one launch, or three of many logits.
#include "backend.h"
#include "device.h"

namespace gankernels {

namespace {

cuda::ScalarBatch batch_of(const ScalarBatch& given, int64_t reduction) {
  cuda::ScalarBatch batch;
  batch.logits = given.data();
  batch.grad = given.grad_data();
  batch.elements = given.elements;
  batch.per_element = 1 / static_cast<double>(given.elements);
  batch.term = given.term;
  batch.weight = given.weight;
  batch.loss_scale = reduction == kMean ? batch.per_element : 1;
  return batch;
}

bool is_wide(const cuda::ScalarBatch& batch) { return cuda::is_aligned(batch.logits) && cuda::is_aligned(batch.grad); }

}  // namespace

void Cuda::relativistic_loss(const Tensor& loss, int64_t reduction, const ScalarBatch& real, const ScalarBatch& fake) {
  const cuda::OnDeviceOf device(loss);
  cuda::RelativisticLaunch launch;
  launch.real = batch_of(real, reduction);
  launch.fake = batch_of(fake, reduction);
  launch.dtype = kernel_dtype(fake.logits.scalar_type());
  launch.wide = is_wide(launch.real) && is_wide(launch.fake);
  launch.mean = reduction == kMean;
  const bool is_sum = reduction != kNone;
  std::optional<cuda::Workspace> workspace;
  if (is_sum || cuda::takes_several_launches(launch)) {
    workspace.emplace(loss, is_sum);
    launch.total = workspace->total;
    launch.sums = workspace->sums;
  }
  if (!is_sum) {
    launch.row_loss = loss.mutable_data_ptr();
    launch.wide = launch.wide && cuda::is_aligned(launch.row_loss);
  }
  cuda::check_launch(cuda::launch_relativistic(launch, device.stream()), "relativistic_loss");
}

}  // namespace gankernels
