// Operator schemas, Meta kernels and the Python module.
#include <Python.h>
#include <c10/core/Device.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/library.h>

#include "../cpu/capability.h"
#include "layers.h"
#include "../python/binding.h"
#include "scalar.h"

#if defined(GANKERNELS_CUDA)
#include "../cuda/launches.h"
#endif

namespace gankernels {

TORCH_LIBRARY(gankernels, m) {
  // Meta kernels live in this library: importing gankernels is enough to compile.
  m.set_python_module("gankernels");

  m.def("softmax_kl(Tensor logits, Tensor target, int dim=1, int reduction=1) -> Tensor");
  m.def("softmax_kl_logits(Tensor p_logits, Tensor q_logits, int dim=1, int reduction=1) -> Tensor");
  m.def(
      "realness_d_loss(Tensor real_logits, Tensor fake_logits, Tensor real_anchor, Tensor fake_anchor, int dim=1, "
      "int reduction=1) -> Tensor");
  m.def(
      "realness_g_loss(Tensor? real_logits, Tensor fake_logits, Tensor? real_anchor, Tensor? fake_anchor, "
      "int objective=2, int dim=1, int reduction=1) -> Tensor");

  m.def(
      "softmax_kl_value_and_grad(Tensor logits, Tensor target, int dim, int reduction, bool logits_grad, "
      "bool target_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)");
  m.def(
      "softmax_kl_logits_value_and_grad(Tensor p_logits, Tensor q_logits, int dim, int reduction, bool p_grad, "
      "bool q_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)");
  m.def(
      "realness_d_loss_value_and_grad(Tensor real_logits, Tensor fake_logits, Tensor real_anchor, Tensor fake_anchor, "
      "int dim, int reduction, bool real_grad, bool fake_grad, bool fold_mean, float grad_scale) "
      "-> (Tensor, Tensor, Tensor)");
  m.def(
      "realness_g_loss_value_and_grad(Tensor? real_logits, Tensor fake_logits, Tensor? real_anchor, "
      "Tensor? fake_anchor, int objective, int dim, int reduction, bool real_grad, bool fake_grad, bool fold_mean, "
      "float grad_scale) -> (Tensor, Tensor, Tensor)");

  // `loss` is one of the names of scalar_losses.h; losses of the generator take no real logits.
  m.def(
      "scalar_loss(Tensor? real_logits, Tensor fake_logits, str loss, float label_smoothing=0., int reduction=1) "
      "-> Tensor");
  m.def(
      "scalar_loss_value_and_grad(Tensor? real_logits, Tensor fake_logits, str loss, float label_smoothing, "
      "int reduction, bool real_grad, bool fake_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)");

  // Identity; its backward multiplies by `factor` and by `scale`, one for all or one per sample.
  m.def("gradient_scale(Tensor x, Tensor? scale, float factor) -> Tensor");
  m.def("negate_(Tensor(a!) t) -> Tensor(a!)");
  m.def("resample_logits(Tensor mu_logvar, Tensor noise, int dim=1) -> Tensor");
  m.def("resample_forward(Tensor mu_logvar, Tensor noise, int dim) -> Tensor");
  // From statistics (means and log-variances) and noise to the loss, and on to the gradients of the statistics.
  m.def(
      "resampled_realness_d_loss(Tensor real_statistics, Tensor fake_statistics, Tensor real_anchor, "
      "Tensor fake_anchor, Tensor real_noise, Tensor fake_noise, int dim=1, int reduction=1) -> Tensor");
  m.def(
      "resampled_realness_d_loss_value_and_grad(Tensor real_statistics, Tensor fake_statistics, Tensor real_anchor, "
      "Tensor fake_anchor, Tensor real_noise, Tensor fake_noise, int dim, int reduction, bool real_grad, "
      "bool fake_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)");
  m.def(
      "resampled_realness_g_loss(Tensor? real_statistics, Tensor fake_statistics, Tensor? real_anchor, "
      "Tensor? fake_anchor, Tensor? real_noise, Tensor fake_noise, int objective=2, int dim=1, int reduction=1) "
      "-> Tensor");
  m.def(
      "resampled_realness_g_loss_value_and_grad(Tensor? real_statistics, Tensor fake_statistics, Tensor? real_anchor, "
      "Tensor? fake_anchor, Tensor? real_noise, Tensor fake_noise, int objective, int dim, int reduction, "
      "bool real_grad, bool fake_grad, bool fold_mean, float grad_scale) -> (Tensor, Tensor, Tensor)");

  // `saved` is the resampled tensor, or the noise for 16-bit statistics.
  m.def("resample_backward(Tensor grad, Tensor mu_logvar, Tensor saved, int dim) -> Tensor");

  // gradient * grad_output, per row along `dim` where grad_output is not a scalar; divided by `rows` where positive.
  m.def("scale_gradient(Tensor gradient, Tensor grad_output, int dim, SymInt rows) -> Tensor");
  // Both gradients of a loss at once: on a GPU, one launch for the whole backward pass.
  m.def(
      "scale_gradients(Tensor gradient, Tensor other_gradient, Tensor grad_output, int dim, SymInt rows, "
      "SymInt other_rows) -> (Tensor, Tensor)");
}

namespace {

TwoGradients softmax_kl_meta(const Tensor& logits, const Tensor& target, int64_t dim, int64_t reduction,
                             bool logits_grad, bool target_grad, bool, double) {
  return prepare_softmax_kl(logits, target, dim, reduction, logits_grad, target_grad).outputs;
}

TwoGradients softmax_kl_logits_meta(const Tensor& p_logits, const Tensor& q_logits, int64_t dim, int64_t reduction,
                                    bool p_grad, bool q_grad, bool, double) {
  return prepare_softmax_kl_logits(p_logits, q_logits, dim, reduction, p_grad, q_grad).outputs;
}

TwoGradients realness_d_loss_meta(const Tensor& real, const Tensor& fake, const Tensor& real_anchor,
                                  const Tensor& fake_anchor, int64_t dim, int64_t reduction, bool real_grad,
                                  bool fake_grad, bool, double) {
  return prepare_realness_d_loss(real, fake, real_anchor, fake_anchor, dim, reduction, real_grad, fake_grad).outputs;
}

TwoGradients realness_g_loss_meta(const OptionalTensor& real, const Tensor& fake, const OptionalTensor& real_anchor,
                                  const OptionalTensor& fake_anchor, int64_t objective, int64_t dim, int64_t reduction,
                                  bool real_grad, bool fake_grad, bool, double) {
  return prepare_realness_g_loss(real, fake, real_anchor, fake_anchor, objective, dim, reduction, real_grad, fake_grad)
      .outputs;
}

TwoGradients scalar_loss_meta(const OptionalTensor& real, const Tensor& fake, c10::string_view name,
                              double label_smoothing, int64_t reduction, bool real_grad, bool fake_grad, bool, double) {
  return prepare_scalar_loss(real, fake, find_scalar_loss(name, label_smoothing), reduction, real_grad, fake_grad);
}

Tensor resample_forward_meta(const Tensor& statistics, const Tensor& noise, int64_t) {
  return empty_resampled(statistics, noise);
}

Tensor resample_backward_meta(const Tensor&, const Tensor& statistics, const Tensor&, int64_t) {
  return empty_statistics_gradient(statistics);
}

Tensor scale_gradient_meta(const Tensor& gradient, const Tensor&, int64_t, c10::SymInt) {
  return at::empty_like(gradient);
}

std::tuple<Tensor, Tensor> scale_gradients_meta(const Tensor& gradient, const Tensor& other, const Tensor&, int64_t,
                                                c10::SymInt, c10::SymInt) {
  return {at::empty_like(gradient), at::empty_like(other)};
}

// One after the other, for backends that gain nothing from doing both at once.
std::tuple<Tensor, Tensor> scale_gradients_one_by_one(const Tensor& gradient, const Tensor& other,
                                                      const Tensor& grad_output, int64_t dim, c10::SymInt rows,
                                                      c10::SymInt other_rows) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gankernels::scale_gradient", "")
                             .typed<Tensor(const Tensor&, const Tensor&, int64_t, c10::SymInt)>();
  return {op.call(gradient, grad_output, dim, std::move(rows)),
          op.call(other, grad_output, dim, std::move(other_rows))};
}

}  // namespace

TORCH_LIBRARY_IMPL(gankernels, CompositeExplicitAutograd, m) {
  m.impl("scale_gradients", TORCH_FN(scale_gradients_one_by_one));
}

TORCH_LIBRARY_IMPL(gankernels, Meta, m) {
  m.impl("softmax_kl_value_and_grad", TORCH_FN(softmax_kl_meta));
  m.impl("softmax_kl_logits_value_and_grad", TORCH_FN(softmax_kl_logits_meta));
  m.impl("realness_d_loss_value_and_grad", TORCH_FN(realness_d_loss_meta));
  m.impl("realness_g_loss_value_and_grad", TORCH_FN(realness_g_loss_meta));
  m.impl("scalar_loss_value_and_grad", TORCH_FN(scalar_loss_meta));
  m.impl("resample_forward", TORCH_FN(resample_forward_meta));
  m.impl("resample_backward", TORCH_FN(resample_backward_meta));
  m.impl("scale_gradient", TORCH_FN(scale_gradient_meta));
  m.impl("scale_gradients", TORCH_FN(scale_gradients_meta));
}

}  // namespace gankernels

namespace {

PyObject* cpu_capability(PyObject*, PyObject*) { return PyUnicode_FromString(gankernels::cpu_kernels().name); }

PyObject* transforms_active(PyObject*, PyObject*) {
  return PyBool_FromLong(c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode));
}

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

PyObject* serve_device_type(PyObject*, PyObject* name) {
  const char* text = PyUnicode_AsUTF8(name);
  if (text == nullptr) return nullptr;
  try {
    served[static_cast<size_t>(c10::Device(text).type())] = true;
  } catch (const c10::Error&) {
    return PyErr_Format(PyExc_ValueError, "device type must be one that PyTorch knows, got %R", name);
  }
  Py_RETURN_NONE;
}

// Whether the kernels can take these arguments: dense tensors on a device that has kernels, outside torch.func, whose
// transforms the kernels cannot see.
PyObject* kernels_serve(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode)) Py_RETURN_FALSE;
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
    {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set that the CPU kernels use."},
    {"cuda_compiled", cuda_compiled, METH_NOARGS, "Whether the CUDA kernels were compiled in."},
#if defined(GANKERNELS_CUDA)
    {"cuda_launch_error", cuda_launch_error, METH_NOARGS,
     "None, or why a CUDA kernel cannot be launched on the current device."},
#endif
    {"serve_device_type", serve_device_type, METH_O, "Lets kernels_serve accept tensors on this type of device."},
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
