"""The GPU kernels in Triton, registered as the kernels of the same operators that C++ declares.

Importing this package does not import Triton; the first call of an operator on a GPU does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch

OPERATORS = (
    "softmax_kl_value_and_grad",
    "softmax_kl_logits_value_and_grad",
    "realness_d_loss_value_and_grad",
    "realness_g_loss_value_and_grad",
    "scalar_loss_value_and_grad",
    "scale_gradient",
    "scale_gradients",
    "resample_forward",
    "resample_backward",
)
"""What a backend implements, by the name in ``torch.ops.gankernels``."""

_libraries: dict[str, torch.library.Library] = {}


def unavailable() -> str | None:
    """Why the Triton kernels cannot serve GPUs here; None where they can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without GPU support"
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    return None


@lru_cache(maxsize=1)
def _launchers() -> dict[str, Callable[..., Any]]:
    from gankernels.triton import operators

    names = (name.removesuffix("_value_and_grad") for name in OPERATORS)
    return {name: getattr(operators, name) for name in names}


def _on_first_call(name: str) -> Callable[..., Any]:
    """The operator's launcher, imported with Triton when it is first called."""
    short = name.removesuffix("_value_and_grad")

    def operator(*args: Any) -> Any:
        return _launchers()[short](*args)

    return operator


def register(key: str = "CUDA") -> None:
    """Makes the Triton launchers the operators' kernels under a dispatch key, once per process.

    Args:
        key: ``"CUDA"``, which ROCm builds of torch use too. ``"CPU"``, in place of the C++ kernels,
            is for tests under Triton's interpreter or on an emulated GPU.
    """
    if key in _libraries:
        return
    library = torch.library.Library("gankernels", "IMPL")
    for name in OPERATORS:
        library.impl(name, _on_first_call(name), key, allow_override=True)
    _libraries[key] = library
