// From an operator's definition to its registrations, its lookup and its kernels.
//
// An operator is a struct:
//   kName, kSchema  its name in torch.ops.gankernels, and the rest of its schema
//   Signature       the schema as a C++ function type
//   Arguments       the schema as an aggregate, in its order
//   prepare         checks the arguments and allocates the outputs: all of a Meta kernel, the first line of every other
//   evaluate        <Backend>: fills the outputs
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace gankernels {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(("gankernels::" + name).c_str(), "").typed<Signature>();
}

// What `prepare` returns, or has among what it returns.
template <class Result>
struct Outputs {
  Result outputs;
};

template <class Op, class Signature = typename Op::Signature>
struct Kernel;

template <class Op, class Result, class... Args>
struct Kernel<Op, Result(Args...)> {
  static Result meta(Args... args) {
    if constexpr (std::is_void_v<Result>) Op::prepare({std::forward<Args>(args)...});
    else return Op::prepare({std::forward<Args>(args)...}).outputs;
  }

  template <class Backend>
  static Result on(Args... args) {
    return Op::template evaluate<Backend>({std::forward<Args>(args)...});
  }

  // For operators made of others.
  static Result compose(Args... args) { return Op::compose({std::forward<Args>(args)...}); }

  // Through the dispatcher, whichever backend that leads to.
  static Result call(Args... args) {
    static const auto op = find<Result(Args...)>(Op::kName);
    return op.call(std::forward<Args>(args)...);
  }
};

template <class... Ops>
struct Operators {
  static std::vector<std::string> names() { return {Ops::kName...}; }

  static void define(torch::Library& m) { (m.def((std::string(Ops::kName) + Ops::kSchema).c_str()), ...); }

  static void implement_meta(torch::Library& m) { (m.impl(Ops::kName, TORCH_FN(Kernel<Ops>::meta)), ...); }

  template <class Backend>
  static void implement(torch::Library& m) {
    (m.impl(Ops::kName, TORCH_FN(Kernel<Ops>::template on<Backend>)), ...);
  }

  static void compose(torch::Library& m) { (m.impl(Ops::kName, TORCH_FN(Kernel<Ops>::compose)), ...); }

  // Plain values, never part of a graph: their results do not require grad, so a backward through them raises.
  static void hide_from_autograd(torch::Library& m) {
    (m.impl(Ops::kName, torch::CppFunction::makeFallthrough()), ...);
  }
};

}  // namespace gankernels
