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

enum class Kind { kTensor, kOptionalTensor, kInt, kFloat, kBool, kString, kOther };

struct Binding {
  c10::OperatorHandle op;
  std::vector<Kind> kinds;
  PyObject* overload;  // of torch.ops, which takes every call
};

Kind kind_of(const c10::Argument& argument) {
  const auto& type = *argument.type();
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::kTensor;
    case c10::TypeKind::IntType: return Kind::kInt;
    case c10::TypeKind::FloatType: return Kind::kFloat;
    case c10::TypeKind::BoolType: return Kind::kBool;
    case c10::TypeKind::StringType: return Kind::kString;
    case c10::TypeKind::OptionalType:
      return type.containedType(0)->kind() == c10::TypeKind::TensorType ? Kind::kOptionalTensor : Kind::kOther;
    default: return Kind::kOther;
  }
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
    case Kind::kString: {
      Py_ssize_t size = 0;
      const char* text = PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &size) : nullptr;
      if (text != nullptr) return c10::IValue(std::string(text, static_cast<size_t>(size)));
      PyErr_Clear();
      break;
    }
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

PyObject* call(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto* binding = static_cast<const Binding*>(PyCapsule_GetPointer(self, kCapsule));
  const auto torch_ops = [&] { return PyObject_Vectorcall(binding->overload, arguments, count, nullptr); };
  if (static_cast<size_t>(count) != binding->kinds.size() || at::impl::torch_function_mode_enabled() ||
      torch::jit::tracer::isTracing())
    return torch_ops();
  torch::jit::Stack stack;
  stack.reserve(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    auto value = parse(binding->kinds[static_cast<size_t>(i)], arguments[i]);
    if (!value.has_value()) return torch_ops();
    stack.push_back(std::move(*value));
  }
  {
    pybind11::gil_scoped_release no_gil;
    binding->op.callBoxed(stack);
  }
  return wrap(stack);
  END_HANDLE_TH_ERRORS
}

PyMethodDef call_method = {"operator", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)), METH_FASTCALL,
                           "An operator of gankernels; all arguments by position."};

void release(PyObject* capsule) {
  auto* binding = static_cast<Binding*>(PyCapsule_GetPointer(capsule, kCapsule));
  Py_DECREF(binding->overload);
  delete binding;
}

}  // namespace

PyObject* bind_operator(PyObject*, PyObject* arguments) {
  HANDLE_TH_ERRORS
  const char* name = nullptr;
  PyObject* overload = nullptr;
  if (!PyArg_ParseTuple(arguments, "sO", &name, &overload)) return nullptr;
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  std::vector<Kind> kinds;
  for (const c10::Argument& argument : op.schema().arguments()) kinds.push_back(kind_of(argument));
  Py_INCREF(overload);
  PyObject* capsule = PyCapsule_New(new Binding{op, std::move(kinds), overload}, kCapsule, release);
  if (capsule == nullptr) throw python_error();
  PyObject* function = PyCFunction_New(&call_method, capsule);
  Py_DECREF(capsule);
  return function;
  END_HANDLE_TH_ERRORS
}

}  // namespace gankernels
