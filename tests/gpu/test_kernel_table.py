"""The kernel table in docs/ is what the compilers give today, and every kernel meets the design's targets."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip(
    "triton", minversion="3.4", reason="needs the triton wheel: its compiler and disassemblers"
)

from tools.gpu_table import table
from tools.ptxsim import toolchain

pytestmark = pytest.mark.emulated

# The D loss at these sizes has to come within 90 % of the DRAM rate, as far as a bound can tell.
TARGET_SHAPES = ("8192 × 1024", "8192 × 4096")
TARGET_ARCHS = (80, 90)


@pytest.mark.parametrize("name", table.SECTIONS)
def test_kernels(name: str) -> None:
    """One test, for the launches take a minute: the page, and what the design asks of every kernel."""
    if name == "cuda" and toolchain.NVCC is None:
        pytest.skip("nvcc is not on PATH")
    section = table.SECTIONS[name]
    rows = list(table.measure(section.cases()))
    assert not [row.markdown() for row in rows if row.execution.spills]
    assert not [row.markdown() for row in rows if not 0.99 <= row.moved <= 1.01]
    check_bound(rows)
    page = table.PAGE.read_text()
    assert table.introduction() in page
    if f"Compiled by {section.compiler()}." not in page:
        pytest.skip(f"{table.PAGE.name} was not made with {section.compiler()}")
    assert section.markdown(rows) in page


def check_bound(rows: list[Any]) -> None:
    shares = {
        (row.case.shape, row.arch): row.bound.dram_share
        for row in rows
        if row.case.operator == "realness_d_loss"
        and row.case.dtype == "bf16"
        and row.case.shape in TARGET_SHAPES
        and row.arch in TARGET_ARCHS
    }
    assert set(shares) == {(shape, arch) for shape in TARGET_SHAPES for arch in TARGET_ARCHS}
    assert min(shares.values()) >= 0.9, shares
