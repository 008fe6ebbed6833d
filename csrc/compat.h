// What torch does not promise to keep, in one place; its counterpart in Python is gankernels/_torch_internals.py.
//
//   used here                                   in other releases, or instead
//   get_current_graph_task_keep_graph           the same from 2.6 on; no public function tells backward of retain_graph
//   FuncTorchDynamicLayerFrontMode, c10::impl,
//   FuncTorchBatched, Batched                   the same from 2.6 on; torch.func has no public name in C++
//   torch_function_mode_enabled, at::impl       the same from 2.6 on; modes have no public question
//   isTracing of torch::jit::tracer             the same from 2.6 on; goes when TorchScript does
//
// at::_lazy_clone, copy on write, is not used: it refuses storages that torch did not allocate.
#pragma once

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/jit/frontend/tracer.h>

namespace gankernels {

// Whether a backward pass may ask its nodes again, so that what they have saved must stay as it is.
inline bool graph_is_kept() { return torch::autograd::get_current_graph_task_keep_graph(); }

// Whether a torch.func transform is at work, which sees only what Python hands to torch.ops.
inline bool transforms_active() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// Whether vmap holds the tensor, the one of torch.func or the one of torch.autograd.grad's is_grads_batched.
inline bool is_batched(const at::Tensor& t) {
  return t.key_set().has(c10::DispatchKey::FuncTorchBatched) || t.key_set().has(c10::DispatchKey::Batched);
}

// Whether a call must go through torch.ops: a mode wants to see it, or the tracer records it.
inline bool call_is_watched() { return at::impl::torch_function_mode_enabled() || torch::jit::tracer::isTracing(); }

}  // namespace gankernels
