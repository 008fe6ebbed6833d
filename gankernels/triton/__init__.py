"""The GPU kernels in Triton, registered as the kernels of the same operators that C++ declares.

Importing this package does not import Triton; :func:`register` and :func:`catalogue` do.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

_libraries: dict[str, torch.library.Library] = {}


def unavailable() -> str | None:
    """Why the Triton kernels cannot serve GPUs here; None where they can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    if find_spec("triton") is None:
        return "triton is not installed"
    return None


def register(key: str = "CUDA") -> None:
    """Makes the Triton launchers the operators' kernels under a dispatch key, once per process.

    Args:
        key: ``"CUDA"`` (ROCm builds of torch use it too). ``"CPU"``, in place of the C++ kernels, is
            for tests under Triton's interpreter or on an emulated GPU.
    """
    if key in _libraries:
        return
    from gankernels.triton.operators import OPERATORS

    library = torch.library.Library("gankernels", "IMPL")
    for name, operator in OPERATORS.items():
        library.impl(name, operator, key, allow_override=True)
    _libraries[key] = library
