"""The GPU kernels in Triton, registered as the kernels of the same operators that C++ declares.

Importing this package does not import Triton; the first call of an operator on a GPU does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from gankernels._torch_internals import names_of_cpu_kernels, register_kernel
from gankernels.triton.failures import guarded, name_kernel

OLDEST = (3, 4)
_libraries: dict[str, torch.library.Library] = {}


def implemented() -> tuple[str, ...]:
    """What a backend implements, by the name in ``torch.ops.gankernels``: what the C++ one of the CPU does."""
    return names_of_cpu_kernels("gankernels")


def unavailable() -> str | None:
    """Why the Triton kernels cannot serve GPUs here; None where they can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without GPU support"
    return unusable()


def unusable() -> str | None:
    """Why the Triton that is installed, if any is, cannot compile the kernels; None where it can."""
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    installed = _version()
    if installed is not None and release(installed) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return f"Triton {installed} is older than {oldest}, the oldest that the kernels are tested with"
    return None


def release(version: str) -> tuple[int, ...]:
    """``"3.9.0"`` -> ``(3, 9)``."""
    return tuple(map(int, version.split(".")[:2]))


def _version() -> str | None:
    """Triton's, from the files of its installation: an import would take a third of a second."""
    for distribution in ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm"):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return None


@lru_cache(maxsize=1)
def _launchers() -> dict[str, Callable[..., Any]]:
    try:
        from gankernels.triton import operators
    except Exception as error:  # whatever Triton's own import meets
        name_kernel(error, "any kernel")
        raise

    names = (name.removesuffix("_value_and_grad") for name in implemented())
    return {name: getattr(operators, name) for name in names}


def _on_first_call(name: str) -> Callable[..., Any]:
    """The operator's launcher, imported with Triton when it is first called."""
    short = name.removesuffix("_value_and_grad")

    def operator(*args: Any) -> Any:
        return _launchers()[short](*args)

    return operator


def register(key: str = "CUDA", on_failure: Callable[[str], None] | None = None) -> None:
    """Makes the Triton launchers the operators' kernels under a dispatch key, once per process.

    Args:
        key: ``"CUDA"``, which ROCm builds of torch use too. ``"CPU"``, in place of the C++ kernels,
            is for tests under Triton's interpreter or on an emulated GPU.
        on_failure: Hears why a kernel could not be compiled, after the CPU's kernel has answered in its place.
            None lets the error pass.
    """
    if key in _libraries:
        return
    library = torch.library.Library("gankernels", "IMPL")  # type: ignore[no-untyped-call]
    for name in implemented():
        operator = _on_first_call(name)
        if on_failure is not None:
            operator = guarded(name, operator, on_failure)
        register_kernel(library, name, operator, key)
    _libraries[key] = library
