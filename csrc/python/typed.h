// An operator's arguments from Python to C++ by its signature, and its results back.
//
// The dispatcher's boxed values would hold a list three times: parsed, boxed, and taken apart again.
#pragma once

#include <c10/util/SmallVector.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../operators/operator.h"

namespace gankernels {

inline std::optional<int64_t> integer(PyObject* value) {
  if (!PyLong_CheckExact(value)) return std::nullopt;
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
  return overflow == 0 ? std::optional<int64_t>(number) : std::nullopt;
}

inline std::optional<double> real(PyObject* value) {
  return PyFloat_CheckExact(value) ? std::optional<double>(PyFloat_AS_DOUBLE(value)) : std::nullopt;
}

inline std::optional<at::Tensor> tensor(PyObject* value) {
  return THPVariable_CheckExact(value) ? std::optional<at::Tensor>(THPVariable_Unpack(value)) : std::nullopt;
}

inline std::optional<bool> boolean(PyObject* value) {
  return PyBool_Check(value) ? std::optional<bool>(value == Py_True) : std::nullopt;
}

// Of a string, whose own memory it is.
inline std::optional<c10::string_view> text(PyObject* value) {
  if (!PyUnicode_CheckExact(value)) return std::nullopt;
  Py_ssize_t size = 0;
  if (const char* data = PyUnicode_AsUTF8AndSize(value, &size))
    return c10::string_view(data, static_cast<size_t>(size));
  PyErr_Clear();
  return std::nullopt;
}

// Appends what a tuple or list holds; false where it is neither, or `parse` does not take an item.
template <class Items, class Parse>
bool append_all(Items& items, PyObject* value, Parse&& parse) {
  if (!PyTuple_CheckExact(value) && !PyList_CheckExact(value)) return false;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(value);
  items.reserve(static_cast<size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    auto item = parse(PySequence_Fast_GET_ITEM(value, i));
    if (!item.has_value()) return false;
    items.push_back(std::move(*item));
  }
  return true;
}

// One argument: `take` says whether it is what the signature has, and nothing else.
template <class T, auto kParse>
class Parsed {
 public:
  bool take(PyObject* value) {
    parsed_ = kParse(value);
    return parsed_.has_value();
  }
  const T& get() const { return *parsed_; }

 private:
  std::optional<T> parsed_;
};

template <class T, auto kParse>
class ParsedList {
 public:
  bool take(PyObject* value) { return append_all(items_, value, kParse); }
  at::ArrayRef<T> get() const { return items_; }

 private:
  c10::SmallVector<T, 16> items_;
};

template <class Argument>
struct ParserOf;
template <>
struct ParserOf<const at::Tensor&> : Parsed<at::Tensor, tensor> {};
template <>
struct ParserOf<int64_t> : Parsed<int64_t, integer> {};
template <>
struct ParserOf<double> : Parsed<double, real> {};
template <>
struct ParserOf<bool> : Parsed<bool, boolean> {};
template <>
struct ParserOf<c10::string_view> : Parsed<c10::string_view, text> {};
template <>
struct ParserOf<at::TensorList> : ParsedList<at::Tensor, tensor> {};
template <>
struct ParserOf<at::IntArrayRef> : ParsedList<int64_t, integer> {};
template <>
struct ParserOf<at::ArrayRef<double>> : ParsedList<double, real> {};

// A tensor, and lists and tuples of what can be wrapped as tuples.
inline PyObject* wrap(at::Tensor value) { return THPVariable_Wrap(std::move(value)); }
inline PyObject* wrap(std::vector<at::Tensor> values);
template <class... Values>
PyObject* wrap(std::tuple<Values...> values);

inline PyObject* new_tuple(size_t size) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(size));
  if (tuple == nullptr) throw python_error();
  return tuple;
}

inline PyObject* wrap(std::vector<at::Tensor> values) {
  PyObject* tuple = new_tuple(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), wrap(std::move(values[i])));
  return tuple;
}

template <class... Values>
PyObject* wrap(std::tuple<Values...> values) {
  PyObject* tuple = new_tuple(sizeof...(Values));
  Py_ssize_t i = 0;
  std::apply([&](auto&... each) { (PyTuple_SET_ITEM(tuple, i++, wrap(std::move(each))), ...); }, values);
  return tuple;
}

// The operator's results; nothing where the arguments are not those of its signature.
template <class Op, class Signature = typename Op::Signature>
struct TypedCall;

template <class Op, class Result, class... Args>
struct TypedCall<Op, Result(Args...)> {
  static std::optional<PyObject*> run(PyObject* const* arguments, Py_ssize_t count) {
    if (static_cast<size_t>(count) != sizeof...(Args)) return std::nullopt;
    std::tuple<ParserOf<Args>...> parsed;
    const bool all = std::apply([&](auto&... each) { return (each.take(*arguments++) && ...); }, parsed);
    if (!all) return std::nullopt;
    auto result = [&] {
      pybind11::gil_scoped_release no_gil;
      return std::apply([](const auto&... each) { return Kernel<Op>::call(each.get()...); }, parsed);
    }();
    return wrap(std::move(result));
  }
};

}  // namespace gankernels
