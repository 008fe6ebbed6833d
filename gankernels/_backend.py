"""Loads the compiled operators once and decides, call by call, whether they or the reference serve.

``GANKERNELS_BACKEND`` chooses: ``reference`` for everything, or, for GPUs alone, ``cuda`` (the C++
extension's kernels), ``triton``, or ``auto``: the first of these that is there, else the reference.
"""

from __future__ import annotations

import importlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gankernels import _checks
from gankernels import triton as _triton
from gankernels._torch_internals import forward_mode_active, traced_transforms_active

BACKENDS = ("auto", "cuda", "triton", "reference")
CUDA, TRITON, REFERENCE = "CUDA C++", "Triton", "reference"
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

_METADATA = Path(__file__).with_name("_build.json")


def _minor(version: str) -> str:
    """``2.13.0+cpu`` -> ``2.13``: the C++ ABI of torch is stable within a minor release."""
    return ".".join(version.split("+")[0].split(".")[:2])


def _metadata() -> dict[str, Any]:
    try:
        return dict(json.loads(_METADATA.read_text()))
    except FileNotFoundError:
        return {"error": "the extension was not built: pip install --no-build-isolation ."}
    except (OSError, ValueError) as error:
        return {"error": f"build metadata {_METADATA.name} is unreadable: {error}"}


def _load(metadata: dict[str, Any]) -> tuple[Any, str | None]:
    """The extension module and None, or None and the reason why the reference serves."""
    backend = os.environ.get("GANKERNELS_BACKEND", "auto")
    if backend not in BACKENDS:
        raise ValueError(f"GANKERNELS_BACKEND must be one of {BACKENDS}, got {backend!r}")
    if backend == "reference":
        return None, "GANKERNELS_BACKEND=reference"
    if metadata.get("error"):
        return None, str(metadata["error"])
    if _minor(metadata["torch"]) != _minor(torch.__version__):
        return None, (
            f"the extension was built for torch {metadata['torch']}, "
            f"this is torch {torch.__version__}: rebuild it"
        )
    try:
        module = importlib.import_module("gankernels._C")
    except ModuleNotFoundError:
        return None, (
            f"the extension is not beside {_METADATA.parent}, which was built elsewhere or for another "
            "Python: pip install --no-build-isolation ."
        )
    except ImportError as error:
        return None, f"the extension does not load: {error}"
    if Path(str(module.__file__)).parent != _METADATA.parent:
        # The finder of an editable installation looks there for what this copy lacks.
        return None, f"the extension of another copy was found, {module.__file__}: rebuild this one"
    return module, None


def _backend_of_gpus() -> tuple[str, str]:
    """What serves tensors on a GPU, and why; RuntimeError where what was asked for is not there."""
    wanted = os.environ.get("GANKERNELS_BACKEND", "auto")
    chosen = f"GANKERNELS_BACKEND={wanted}"
    if wanted == "reference":
        return REFERENCE, chosen
    without_extension = "the operators are declared by the C++ extension, and it is not loaded: "
    compiled = EXTENSION is not None and EXTENSION.cuda_compiled()
    if wanted == "cuda":
        if not compiled:
            raise RuntimeError(
                f"{chosen}, but {REASON or 'the C++ extension was built without CUDA kernels'}: build "
                "it with FORCE_CUDA=1 where nvcc and a CUDA build of torch are installed, for "
                "instance FORCE_CUDA=1 pip install --no-build-isolation ."
            )
        return CUDA, chosen
    missing = without_extension + str(REASON) if EXTENSION is None else _triton.unavailable()
    if wanted == "triton":
        if missing is not None:
            raise RuntimeError(f"{chosen}, but {missing}")
        return TRITON, chosen
    if compiled:
        return CUDA, "the C++ extension was built with its CUDA kernels"
    if missing is None:
        return TRITON, "the C++ extension was built without CUDA kernels"
    return REFERENCE, missing


def _leave_gpus_to_reference(reason: str) -> None:
    """From the next call on; the first one to say why is heard."""
    global GPU_BACKEND, GPU_REASON, DEVICE_TYPES
    if GPU_BACKEND == REFERENCE:
        return
    GPU_BACKEND, GPU_REASON, DEVICE_TYPES = REFERENCE, reason, frozenset({"cpu"})
    EXTENSION.serve_device_type("cuda", False)
    warnings.warn(f"gankernels runs on its PyTorch reference on GPUs: {reason}", stacklevel=2)


METADATA = _metadata()
EXTENSION, REASON = _load(METADATA)
GPU_BACKEND, GPU_REASON = _backend_of_gpus()
if GPU_BACKEND == TRITON:
    # Who asked for Triton by name is told what fails; who did not goes on training.
    asked_for = os.environ.get("GANKERNELS_BACKEND") == "triton"
    _triton.register(on_failure=None if asked_for else _leave_gpus_to_reference)
if GPU_BACKEND != REFERENCE:
    EXTENSION.serve_device_type("cuda", True)
if EXTENSION is None and os.environ.get("GANKERNELS_BACKEND", "auto") == "auto":
    if os.environ.get("GANKERNELS_REQUIRE_EXT") == "1":
        raise ImportError(f"GANKERNELS_REQUIRE_EXT=1, but {REASON}")
    warnings.warn(f"gankernels runs on its PyTorch reference: {REASON}", stacklevel=2)

DEVICE_TYPES = frozenset(
    () if EXTENSION is None else ("cpu",) if GPU_BACKEND == REFERENCE else ("cpu", "cuda")
)


def reference_serves(*tensors: object) -> bool:
    """Whether plain PyTorch must answer: no kernel for the device, or a transform that kernels cannot see.

    Anything that is not a tensor goes to the reference too, whose checks name it.
    """
    if EXTENSION is None:
        return True
    # C++ autograd functions are invisible to torch.func transforms and to forward-mode dual numbers.
    if torch.compiler.is_compiling():
        return _traced_reference_serves(tensors)
    return not EXTENSION.kernels_serve(*tensors) or forward_mode_active()


def _traced_reference_serves(tensors: tuple[object, ...]) -> bool:
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor) or tensor.device.type not in DEVICE_TYPES:
            return True
    return traced_transforms_active()


def reduction_code(reduction: str) -> int:
    code = REDUCTIONS.get(reduction)
    if code is None:
        _checks.check_reduction(reduction)
        raise AssertionError("unreachable")
    return code


def in_kernel(reduction: str, scale: float, logits: Tensor, dim: int) -> tuple[int, float]:
    """A reduction of losses with a class dimension, and a factor, as the operators take them.

    ``"batchmean"``, the sum over the size of dimension 0, is a mean with a factor: so fp16 gradients
    are divided where those of a mean are.
    """
    if type(scale) is not float:
        scale = _checks.check_factor("scale", scale)
    code = REDUCTIONS.get(reduction)
    if code is not None:
        return code, scale
    _checks.check_divergence_reduction(reduction)
    if not -logits.ndim <= dim < logits.ndim:  # refused by the operator
        return REDUCTIONS["mean"], scale
    index, shape = dim % logits.ndim, logits.shape
    rows = 1  # of an entry of dimension 0; math.prod cannot be traced
    for d, size in enumerate(shape):
        rows *= size if d not in (0, index) else 1
    if index == 0:
        if rows == 0:
            return REDUCTIONS["sum"], scale
        return REDUCTIONS["mean"], scale * rows / shape[0]
    return REDUCTIONS["mean"], scale if rows == 1 else scale * rows


def _bind(name: str) -> Callable[..., Any]:
    """The operator's only overload, looked up once, behind a call that torch.ops need not parse."""
    overload = getattr(torch.ops.gankernels, name).default
    direct = EXTENSION.bind_operator(f"gankernels::{name}", overload)

    def operator(*arguments: Any) -> Any:
        # A graph is traced through torch.ops, which torch.compile knows.
        return overload(*arguments) if torch.compiler.is_compiling() else direct(*arguments)

    return operator


def _bound() -> dict[str, Callable[..., Any]]:
    """Every operator that the extension has registered, by its name."""
    names = [] if EXTENSION is None else EXTENSION.operator_names()
    return {name: _bind(name) for name in names}


_OPERATORS = _bound()
_SUFFIX = "_value_and_grad"

VALUE_AND_GRAD: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {
    name.removesuffix(_SUFFIX): operator
    for name, operator in _OPERATORS.items()
    if name.endswith(_SUFFIX)
}
"""By the name of the loss: what returns its value and two gradients."""


def scalar_value_and_grad(*arguments: Any) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The losses and the gradients that are asked for of any number of tensors."""
    operator: Callable[..., Any] = VALUE_AND_GRAD["scalar_loss"]
    losses, gradients = operator(*arguments)
    return losses, gradients


# The others return one tensor: _backend.softmax_kl(...).
globals().update({n: op for n, op in _OPERATORS.items() if not n.endswith(_SUFFIX)})

if TYPE_CHECKING:

    def __getattr__(operator: str) -> Callable[..., Tensor]: ...


def build_info() -> dict[str, Any]:
    """What was compiled, against what, and which backend runs on which device.

    Returns:
        A dictionary: ``extension`` (bool), ``reason`` (why the reference serves, or None), ``torch_built`` and
        ``torch_running`` (versions), ``compiler``, ``cuda_built`` (the CUDA version and architectures of its
        kernels, or None), ``cpu_capability`` (``avx512``, ``avx2`` or ``portable``: the instruction set picked
        on this machine), ``threads``, ``backends`` (device type to what serves it: ``C++ extension``, ``CUDA
        C++``, ``Triton`` or ``reference``) and ``reasons`` (device type to why).

    Example:
        >>> import gankernels as gk
        >>> sorted(gk.build_info()["backends"])
        ['cpu', 'cuda']
    """
    loaded = EXTENSION is not None
    return {
        "extension": loaded,
        "reason": REASON,
        "torch_built": METADATA.get("torch"),
        "torch_running": torch.__version__,
        "compiler": METADATA.get("compiler"),
        "cuda_built": METADATA.get("cuda"),
        "debug": METADATA.get("debug"),
        "cpu_capability": EXTENSION.cpu_capability() if loaded else None,
        "threads": torch.get_num_threads(),
        "backends": {"cpu": "C++ extension" if loaded else REFERENCE, "cuda": GPU_BACKEND},
        "reasons": {"cpu": REASON or "the C++ extension is loaded", "cuda": GPU_REASON},
    }
