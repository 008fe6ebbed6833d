"""A pytest plugin (``-p gpu.triton_on_cpu``): the operators' CPU kernels are the interpreted Triton ones."""

from __future__ import annotations

import warnings

import pytest


def pytest_configure(config: pytest.Config) -> None:
    from gankernels import triton as backend
    from gpu.emulation import interpreter_bf16

    interpreter_bf16.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, at overridden kernels
        backend.register("CPU")
