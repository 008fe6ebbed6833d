"""The count at the end of a run, and that the self-tests are not in it."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from tools.ptxsim import census
from tools.ptxsim.simulator import Memory, Module

pytestmark = pytest.mark.emulated

COPY = """
.version 8.0
.target sm_90a
.address_size 64
.visible .entry {name}(.param .u64 x)
{{
  ret;
}}
"""


def launch(name: str, types: tuple[str, ...] = ()) -> None:
    module, memory = Module(COPY.format(name=name)), Memory()
    module.element_types = types
    module.launch(name, 2, 32, [memory.put(np.zeros(1), "x")], memory)


def test_every_launch_counts() -> None:
    census.LAUNCHES.clear()  # the fixture of this folder puts it back
    launch("triton_kernel", ("bf16", "fp32"))
    launch("triton_kernel", ("bf16", "fp32"))
    launch("_Z4copyIfEvPKT_", ())
    launch("_Z4copyI6__halfEvPKT_", ())
    assert sorted(census.LAUNCHES.values()) == [1, 1, 2]
    assert {execution.arch for execution in census.LAUNCHES} == {90}
    assert census.summary(census.LAUNCHES) == (
        "2 kernels x 1 architectures (sm_90) x 3 dtypes (bf16, fp16, fp32): "
        "3 combinations in 3 compiled variants, 4 launches executed from real PTX"
    )


def test_types_of_a_template() -> None:
    assert census.template_types("void f<float, 4, Rows<double>>(int)") == ("fp32", "fp64")
    assert census.template_types("void f(float)") == ()


def test_nothing_executed() -> None:
    assert census.summary(collections.Counter()).startswith("0 kernels")
