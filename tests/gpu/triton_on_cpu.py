"""The operators' CPU kernels as the Triton ones, under its interpreter; a pytest plugin too.

``-p gpu.triton_on_cpu`` runs any test of CPU tensors so.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest


def register() -> None:
    """Repairs Triton's interpreter and registers the launchers for CPU tensors."""
    from triton.language.semantic import TritonSemantic

    from gankernels import triton as backend
    from gpu.emulation import interpreter_bf16

    interpreter_bf16.install()
    # A hint to the compiler; Triton 3.9's interpreter asks it for an MLIR context, and has none.
    TritonSemantic.max_contiguous = _ignored_hint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, at overridden kernels
        backend.register("CPU")


def _ignored_hint(self: Any, x: Any, values: Any) -> Any:
    return x


def pytest_configure(config: pytest.Config) -> None:
    register()
