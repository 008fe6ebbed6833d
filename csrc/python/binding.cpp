// Calls from Python straight into the dispatcher: parsing by a schema read once, instead of at every call.
//
// torch.ops looks at each argument with pybind11 and asks whether anything overrides the call. What can be overridden
// (subclasses, modes, tracing) or does not fit goes that way still; plain tensors and numbers take this one.
#include "binding.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/csrc/utils/python_arg_parser.h>

#include <optional>
#include <vector>

namespace gankernels {

namespace {

enum class Kind { kTensor, kOptionalTensor, kInt, kFloat, kFloats, kBool, kOther };

struct Binding {
  c10::OperatorHandle op;
  std::vector<Kind> kinds;
  PyObject* overload;  // of torch.ops, which takes every call; none where only the outputs are prepared
};

Kind kind_of(const c10::Argument& argument) {
  const auto& type = *argument.type();
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::kTensor;
    case c10::TypeKind::IntType: return Kind::kInt;
    case c10::TypeKind::FloatType: return Kind::kFloat;
    case c10::TypeKind::BoolType: return Kind::kBool;
    case c10::TypeKind::ListType:
      return type.containedType(0)->kind() == c10::TypeKind::FloatType ? Kind::kFloats : Kind::kOther;
    case c10::TypeKind::OptionalType:
      return type.containedType(0)->kind() == c10::TypeKind::TensorType ? Kind::kOptionalTensor : Kind::kOther;
    default: return Kind::kOther;
  }
}

// A tuple or list of floats.
std::optional<c10::IValue> floats(PyObject* value) {
  if (!PyTuple_CheckExact(value) && !PyList_CheckExact(value)) return std::nullopt;
  std::vector<double> numbers(static_cast<size_t>(PySequence_Fast_GET_SIZE(value)));
  for (size_t i = 0; i < numbers.size(); ++i) {
    PyObject* number = PySequence_Fast_GET_ITEM(value, static_cast<Py_ssize_t>(i));
    if (!PyFloat_CheckExact(number)) return std::nullopt;
    numbers[i] = PyFloat_AS_DOUBLE(number);
  }
  return c10::IValue(std::move(numbers));
}

// The argument as the schema wants it, or nothing where torch.ops must look at it.
std::optional<c10::IValue> parse(Kind kind, PyObject* value) {
  switch (kind) {
    case Kind::kOptionalTensor:
      if (value == Py_None) return c10::IValue();
      [[fallthrough]];
    case Kind::kTensor:
      if (THPVariable_CheckExact(value)) return c10::IValue(THPVariable_Unpack(value));
      break;
    case Kind::kInt:
      if (PyLong_CheckExact(value)) {
        int overflow = 0;
        const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow == 0) return c10::IValue(static_cast<int64_t>(number));
      }
      break;
    case Kind::kFloat:
      if (PyFloat_CheckExact(value)) return c10::IValue(PyFloat_AS_DOUBLE(value));
      break;
    case Kind::kBool:
      if (PyBool_Check(value)) return c10::IValue(value == Py_True);
      break;
    case Kind::kFloats: return floats(value);
    case Kind::kOther: break;
  }
  return std::nullopt;
}

PyObject* wrap(torch::jit::Stack& results) {
  if (results.size() == 1) return THPVariable_Wrap(std::move(results[0]).toTensor());
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(results.size()));
  if (tuple == nullptr) throw python_error();
  for (size_t i = 0; i < results.size(); ++i)
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), THPVariable_Wrap(std::move(results[i]).toTensor()));
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
  if (at::impl::torch_function_mode_enabled() || torch::jit::tracer::isTracing()) return torch_ops();
  auto stack = parse_all(*binding, arguments, count);
  if (!stack.has_value() || stack->size() != binding->kinds.size()) return torch_ops();
  {
    pybind11::gil_scoped_release no_gil;
    binding->op.callBoxed(*stack);
  }
  return wrap(*stack);
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
  return wrap(*stack);
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
  PyObject* capsule = PyCapsule_New(new Binding{op, std::move(kinds), overload}, kCapsule, release);
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
