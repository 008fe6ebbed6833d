// The Python module.
#include <Python.h>
#include <c10/core/Device.h>
#include <torch/csrc/autograd/python_variable.h>

#include "../compat.h"
#include "../cpu/capability.h"
#include "../operators/operators.h"
#include "binding.h"

#if defined(GANKERNELS_CUDA)
#include "../cuda/launches.h"
#endif

namespace {

PyObject* cpu_capability(PyObject*, PyObject*) { return PyUnicode_FromString(gankernels::cpu_kernels().name); }

PyObject* operator_names(PyObject*, PyObject*) {
  const std::vector<std::string> names = gankernels::operator_names();
  PyObject* list = PyList_New(static_cast<Py_ssize_t>(names.size()));
  if (list == nullptr) return nullptr;
  for (size_t i = 0; i < names.size(); ++i)
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), PyUnicode_FromString(names[i].c_str()));
  return list;
}

PyObject* transforms_active(PyObject*, PyObject*) { return PyBool_FromLong(gankernels::transforms_active()); }

PyObject* cuda_compiled(PyObject*, PyObject*) {
#if defined(GANKERNELS_CUDA)
  Py_RETURN_TRUE;
#else
  Py_RETURN_FALSE;
#endif
}

#if defined(GANKERNELS_CUDA)
// None, or why a kernel cannot be launched on the current device.
PyObject* cuda_launch_error(PyObject*, PyObject*) {
  const std::string error = gankernels::cuda::launch_error();
  if (error.empty()) Py_RETURN_NONE;
  return PyUnicode_FromString(error.c_str());
}
#endif

// Device types that have kernels: the CPU, and those that Python has found a backend for.
constexpr auto kDeviceTypes = static_cast<size_t>(c10::DeviceType::COMPILE_TIME_MAX_DEVICE_TYPES);
bool served[kDeviceTypes] = {true};
static_assert(static_cast<int>(c10::DeviceType::CPU) == 0);

PyObject* serve_device_type(PyObject*, PyObject* arguments) {
  const char* name = nullptr;
  int serve = 0;
  if (!PyArg_ParseTuple(arguments, "sp", &name, &serve)) return nullptr;
  try {
    served[static_cast<size_t>(c10::Device(name).type())] = serve != 0;
  } catch (const c10::Error&) {
    return PyErr_Format(PyExc_ValueError, "device type must be one that PyTorch knows, got '%s'", name);
  }
  Py_RETURN_NONE;
}

// Whether the kernels can take these arguments: dense tensors on a device that has kernels, outside torch.func, whose
// transforms the kernels cannot see.
PyObject* kernels_serve(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (gankernels::transforms_active()) Py_RETURN_FALSE;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!THPVariable_Check(arguments[i])) Py_RETURN_FALSE;
    const at::Tensor& t = THPVariable_Unpack(arguments[i]);
    if (!served[static_cast<size_t>(t.device().type())] || t.layout() != at::kStrided || t.is_nested()) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

PyObject* gradient_scale_counts(PyObject*, PyObject*) {
  const auto [in_place, allocated] = gankernels::gradient_scale_counts();
  return Py_BuildValue("(LL)", static_cast<long long>(in_place), static_cast<long long>(allocated));
}

PyMethodDef methods[] = {
    {"bind_operator", gankernels::bind_operator, METH_VARARGS,
     "An operator (its name, its torch.ops overload) as a callable with little between it and the dispatcher."},
    {"bind_outputs", gankernels::bind_outputs, METH_O,
     "An operator, by its name, as a callable that checks its arguments and allocates its outputs."},
    {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set that the CPU kernels use."},
    {"cuda_compiled", cuda_compiled, METH_NOARGS, "Whether the CUDA kernels were compiled in."},
#if defined(GANKERNELS_CUDA)
    {"cuda_launch_error", cuda_launch_error, METH_NOARGS,
     "None, or why a CUDA kernel cannot be launched on the current device."},
#endif
    {"operator_names", operator_names, METH_NOARGS, "The names of the operators that this library registers."},
    {"serve_device_type", serve_device_type, METH_VARARGS,
     "Whether kernels_serve accepts tensors on this type of device: its name, and a bool."},
    {"transforms_active", transforms_active, METH_NOARGS, "Whether a torch.func transform is on the stack."},
    {"kernels_serve", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(kernels_serve)), METH_FASTCALL,
     "Whether the compiled kernels can take these arguments."},
    {"gradient_scale_counts", gradient_scale_counts, METH_NOARGS,
     "How many gradients gradient_scale has scaled in place, and how many into new memory."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      "_C",
                      "The compiled operators of gankernels.",
                      -1,
                      methods,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
