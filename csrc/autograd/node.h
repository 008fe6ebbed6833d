// Nodes that know their names.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <string>

namespace gankernels {

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
