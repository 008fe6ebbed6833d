"""The CUDA samples, compiled once a process and architecture."""

from __future__ import annotations

import pathlib
import re
from functools import cache

import pytest

from tools.ptxsim.simulator import Module
from tools.ptxsim.toolchain import ARCHITECTURES, NVCC, nvcc

SOURCE = pathlib.Path(__file__).with_name("softmax_kl.cu")


@cache
def sample_ptx(arch: int) -> str:
    if NVCC is None:
        pytest.skip("nvcc is not on PATH")
    return nvcc(SOURCE, arch).ptx


@cache
def sample_module(arch: int) -> Module:
    return Module(sample_ptx(arch))


def kernel_named(module: Module, pattern: str) -> str:
    return next(name for name in module.kernels if re.search(pattern, name))


__all__ = ["ARCHITECTURES", "kernel_named", "sample_module", "sample_ptx"]
