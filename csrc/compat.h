// What torch does not promise to keep, in one place; its counterpart in Python is gankernels/_torch_internals.py.
//
//   used here                                   in other releases, or instead
//   get_current_graph_task_keep_graph           the same from 2.6 on; no public function tells backward of retain_graph
//   FuncTorchDynamicLayerFrontMode, c10::impl,
//   FuncTorchBatched, Batched                   the same from 2.6 on; torch.func has no public name in C++
//   SavedTensorDefaultHooks::get_hooks          the same from 2.6 on; no public question tells who sees what is saved
//   torch_function_mode_enabled, at::impl       the same from 2.6 on; modes have no public question
//   CppNode, specialised for its name           the same from 2.6 on; Function::apply takes no node of its caller's
//   empty_cpu, empty_strided_cpu of at::detail  the same from 2.6 on; at::empty and at::empty_strided take longer
//   isTracing of torch::jit::tracer             the same from 2.6 on; goes when TorchScript does
//
// at::_lazy_clone, copy on write, is not used: it refuses storages that torch did not allocate.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/SavedTensorHooks.h>
#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <string>

namespace gankernels {

// Whether a backward pass may ask its nodes again, so that what they have saved must stay as it is.
inline bool graph_is_kept() { return torch::autograd::get_current_graph_task_keep_graph(); }

// Whether what a node saves now goes through hooks, which may keep it: save_on_cpu, checkpointing.
inline bool saved_tensors_are_shown() { return at::SavedTensorDefaultHooks::get_hooks().has_value(); }

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

// A CPU's memory, without the dispatcher.
inline at::Tensor cpu_memory(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::detail::empty_cpu(sizes, dtype);
}
inline at::Tensor cpu_memory(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  return at::detail::empty_strided_cpu(sizes, strides, dtype);
}

// A Function that says what its node is called.
template <class T>
concept Named = requires { T::kNode; };

// The same to torch's own node.
template <class T>
struct Backward {
  static constexpr bool is_traceable = T::is_traceable;
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list& grad_outputs) {
    return T::backward(ctx, grad_outputs);
  }
};

}  // namespace gankernels

namespace torch::autograd {

// At every pass a node is asked for its name, should there be an error, and torch's works it out from its mangled type.
template <gankernels::Named T>
struct CppNode<T> : CppNode<gankernels::Backward<T>> {
  std::string name() const override { return T::kNode; }
};

}  // namespace torch::autograd
