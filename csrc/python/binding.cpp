// Calls from Python straight into the dispatcher: parsing by a schema read once, instead of at every call.
//
// torch.ops looks at each argument with pybind11 and asks whether anything overrides the call. What can be overridden
// (subclasses, modes, tracing) or does not fit goes that way still; plain tensors and numbers take this one.
#include "binding.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>
#include <vector>

#include "../compat.h"
#include "../operators/relativistic.h"
#include "../operators/scalar.h"
#include "typed.h"

namespace gankernels {

namespace {

enum class Kind { kTensor, kOptionalTensor, kTensors, kInt, kInts, kFloat, kFloats, kBool, kString, kOther };

struct Binding {
  c10::OperatorHandle op;
  std::vector<Kind> kinds;
  PyObject* overload;  // of torch.ops, which takes every call; none where only the outputs are prepared
  std::optional<PyObject*> (*typed)(PyObject* const*, Py_ssize_t) = nullptr;  // where there is one: nothing is boxed
};

// Operators with lists among their arguments, the differentiable ones by their schemas in operators.cpp.
struct PublicScalarLoss {
  static constexpr const char* kName = "scalar_loss";
  using Signature = std::vector<Tensor>(at::TensorList, c10::string_view, at::IntArrayRef, at::ArrayRef<double>, double,
                                        int64_t);
};
struct PublicRelativisticLoss {
  static constexpr const char* kName = "relativistic_loss";
  using Signature = Tensor(const Tensor&, const Tensor&, at::ArrayRef<double>, at::ArrayRef<double>, int64_t);
};

template <class... Ops>
auto typed_call(const std::string& name) -> decltype(Binding::typed) {
  decltype(Binding::typed) found = nullptr;
  ((name == std::string("gankernels::") + Ops::kName ? void(found = TypedCall<Ops>::run) : void()), ...);
  return found;
}

Kind kind_of(const c10::Argument& argument) {
  const auto& type = *argument.type();
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::kTensor;
    case c10::TypeKind::IntType: return Kind::kInt;
    case c10::TypeKind::FloatType: return Kind::kFloat;
    case c10::TypeKind::BoolType: return Kind::kBool;
    case c10::TypeKind::StringType: return Kind::kString;
    case c10::TypeKind::ListType:
      switch (type.containedType(0)->kind()) {
        case c10::TypeKind::FloatType: return Kind::kFloats;
        case c10::TypeKind::IntType: return Kind::kInts;
        case c10::TypeKind::TensorType: return Kind::kTensors;
        default: return Kind::kOther;
      }
    case c10::TypeKind::OptionalType:
      return type.containedType(0)->kind() == c10::TypeKind::TensorType ? Kind::kOptionalTensor : Kind::kOther;
    default: return Kind::kOther;
  }
}

// A tuple or list of what `parse` takes.
template <class Parse>
auto list_of(PyObject* value, Parse&& parse) -> std::optional<c10::IValue> {
  std::vector<std::decay_t<decltype(*parse(value))>> items;
  if (!append_all(items, value, parse)) return std::nullopt;
  return c10::IValue(std::move(items));
}

template <class T>
std::optional<c10::IValue> wrapped(std::optional<T> value) {
  return value.has_value() ? std::optional<c10::IValue>(std::move(*value)) : std::nullopt;
}

// The argument as the schema wants it, or nothing where torch.ops must look at it.
std::optional<c10::IValue> parse(Kind kind, PyObject* value) {
  switch (kind) {
    case Kind::kOptionalTensor:
      if (value == Py_None) return c10::IValue();
      return wrapped(tensor(value));
    case Kind::kTensor: return wrapped(tensor(value));
    case Kind::kTensors: return list_of(value, tensor);
    case Kind::kInt: return wrapped(integer(value));
    case Kind::kInts: return list_of(value, integer);
    case Kind::kFloat: return wrapped(real(value));
    case Kind::kFloats: return list_of(value, real);
    case Kind::kBool: return wrapped(boolean(value));
    case Kind::kString:
      if (const auto found = text(value)) return c10::IValue(std::string(found->data(), found->size()));
      break;
    case Kind::kOther: break;
  }
  return std::nullopt;
}

PyObject* wrap_boxed(c10::IValue&& value) {
  if (value.isTensor()) return wrap(std::move(value).toTensor());
  return wrap(std::move(value).toTensorVector());
}

PyObject* wrap_all(torch::jit::Stack& results) {
  if (results.size() == 1) return wrap_boxed(std::move(results[0]));
  PyObject* tuple = new_tuple(results.size());
  for (size_t i = 0; i < results.size(); ++i)
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), wrap_boxed(std::move(results[i])));
  return tuple;
}

constexpr const char* kCapsule = "gankernels.Binding";

// The arguments by the schema, as many as there are; or nothing where torch.ops must look at them.
std::optional<torch::jit::Stack> parse_all(const Binding& binding, PyObject* const* arguments, Py_ssize_t count) {
  if (static_cast<size_t>(count) > binding.kinds.size()) return std::nullopt;
  torch::jit::Stack stack;
  stack.reserve(binding.kinds.size());
  for (Py_ssize_t i = 0; i < count; ++i) {
    auto value = parse(binding.kinds[static_cast<size_t>(i)], arguments[i]);
    if (!value.has_value()) return std::nullopt;
    stack.push_back(std::move(*value));
  }
  return stack;
}

PyObject* call(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto* binding = static_cast<const Binding*>(PyCapsule_GetPointer(self, kCapsule));
  const auto torch_ops = [&] { return PyObject_Vectorcall(binding->overload, arguments, count, nullptr); };
  if (call_is_watched()) return torch_ops();
  if (binding->typed != nullptr) {
    const auto result = binding->typed(arguments, count);
    return result.has_value() ? *result : torch_ops();
  }
  auto stack = parse_all(*binding, arguments, count);
  if (!stack.has_value() || stack->size() != binding->kinds.size()) return torch_ops();
  {
    pybind11::gil_scoped_release no_gil;
    binding->op.callBoxed(*stack);
  }
  return wrap_all(*stack);
  END_HANDLE_TH_ERRORS
}

// The Meta kernel on tensors of any device: arguments checked, outputs allocated.
PyObject* prepare(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto* binding = static_cast<const Binding*>(PyCapsule_GetPointer(self, kCapsule));
  auto stack = parse_all(*binding, arguments, count);
  // The dispatcher leaves out what has its default.
  const auto& schema = binding->op.schema().arguments();
  while (stack.has_value() && stack->size() < schema.size()) {
    const auto& value = schema[stack->size()].default_value();
    if (value.has_value()) stack->push_back(*value);
    else stack.reset();
  }
  TORCH_CHECK_TYPE(stack.has_value(), binding->op.schema().name(), " takes the arguments ", binding->op.schema());
  binding->op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::Meta), &*stack);
  return wrap_all(*stack);
  END_HANDLE_TH_ERRORS
}

PyMethodDef prepare_method = {"prepare", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(prepare)),
                              METH_FASTCALL, "The outputs of an operator of gankernels, not filled."};

PyMethodDef call_method = {"operator", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)), METH_FASTCALL,
                           "An operator of gankernels; all arguments by position."};

void release(PyObject* capsule) {
  auto* binding = static_cast<Binding*>(PyCapsule_GetPointer(capsule, kCapsule));
  Py_XDECREF(binding->overload);
  delete binding;
}

PyObject* bind(const char* name, PyObject* overload, PyMethodDef& method) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  std::vector<Kind> kinds;
  for (const c10::Argument& argument : op.schema().arguments()) kinds.push_back(kind_of(argument));
  Py_XINCREF(overload);
  const auto typed = typed_call<PublicScalarLoss, PublicRelativisticLoss, ScalarLosses, RelativisticLoss>(name);
  PyObject* capsule = PyCapsule_New(new Binding{op, std::move(kinds), overload, typed}, kCapsule, release);
  if (capsule == nullptr) throw python_error();
  PyObject* function = PyCFunction_New(&method, capsule);
  Py_DECREF(capsule);
  return function;
}

}  // namespace

PyObject* bind_operator(PyObject*, PyObject* arguments) {
  HANDLE_TH_ERRORS
  const char* name = nullptr;
  PyObject* overload = nullptr;
  if (!PyArg_ParseTuple(arguments, "sO", &name, &overload)) return nullptr;
  return bind(name, overload, call_method);
  END_HANDLE_TH_ERRORS
}

PyObject* bind_outputs(PyObject*, PyObject* name) {
  HANDLE_TH_ERRORS
  const char* text = PyUnicode_AsUTF8(name);
  return text == nullptr ? nullptr : bind(text, nullptr, prepare_method);
  END_HANDLE_TH_ERRORS
}

}  // namespace gankernels
