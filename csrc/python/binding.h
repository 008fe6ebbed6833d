// Operators as Python callables that skip torch.ops where nothing can override the call.
#pragma once

#include <Python.h>

namespace gankernels {

// bind_operator(name, overload): `name` as the dispatcher knows it, `overload` what torch.ops has for it.
PyObject* bind_operator(PyObject*, PyObject* arguments);

// name -> a callable that checks an operator's arguments and allocates its outputs.
PyObject* bind_outputs(PyObject*, PyObject* name);

}  // namespace gankernels
