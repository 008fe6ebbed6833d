// Calls from Python straight into the dispatcher: parsing by a schema read once, instead of at every call.
//
// torch.ops looks at each argument with pybind11 and asks whether anything overrides the call. What can be overridden
// (subclasses, modes, tracing) or does not fit goes that way still; plain tensors and numbers take this one.
#include "binding.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <vector>

#include "../compat.h"

namespace gankernels {

namespace {

enum class Kind { kTensor, kOptionalTensor, kTensors, kInt, kInts, kFloat, kFloats, kBool, kString, kOther };

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

std::optional<int64_t> integer(PyObject* value) {
  if (!PyLong_CheckExact(value)) return std::nullopt;
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0 ? std::optional<int64_t>(number) : std::nullopt;
}

std::optional<double> real(PyObject* value) {
  return PyFloat_CheckExact(value) ? std::optional<double>(PyFloat_AS_DOUBLE(value)) : std::nullopt;
}

std::optional<at::Tensor> tensor(PyObject* value) {
  return THPVariable_CheckExact(value) ? std::optional<at::Tensor>(THPVariable_Unpack(value)) : std::nullopt;
}

// A tuple or list of what `parse` takes.
template <class Parse>
auto list_of(PyObject* value, Parse&& parse) -> std::optional<c10::IValue> {
  if (!PyTuple_CheckExact(value) && !PyList_CheckExact(value)) return std::nullopt;
  std::vector<std::decay_t<decltype(*parse(value))>> items;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(value);
  items.reserve(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    auto item = parse(PySequence_Fast_GET_ITEM(value, i));
    if (!item.has_value()) return std::nullopt;
    items.push_back(std::move(*item));
  }
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
    case Kind::kBool:
      if (PyBool_Check(value)) return c10::IValue(value == Py_True);
      break;
    case Kind::kString:
      if (PyUnicode_CheckExact(value)) {
        Py_ssize_t size = 0;
        if (const char* text = PyUnicode_AsUTF8AndSize(value, &size))
          return c10::IValue(std::string(text, static_cast<size_t>(size)));
        PyErr_Clear();
      }
      break;
    case Kind::kOther: break;
  }
  return std::nullopt;
}

// A tensor, or a list of tensors as a tuple.
PyObject* wrap(c10::IValue&& value);

template <class Values>
PyObject* wrap_all(Values& values, size_t count) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(count));
  if (tuple == nullptr) throw python_error();
  for (size_t i = 0; i < count; ++i)
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), wrap(c10::IValue(std::move(values[i]))));
  return tuple;
}

PyObject* wrap(c10::IValue&& value) {
  if (value.isTensor()) return THPVariable_Wrap(std::move(value).toTensor());
  std::vector<at::Tensor> tensors = std::move(value).toTensorVector();
  return wrap_all(tensors, tensors.size());
}

PyObject* wrap(torch::jit::Stack& results) {
  if (results.size() == 1) return wrap(std::move(results[0]));
  return wrap_all(results, results.size());
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
