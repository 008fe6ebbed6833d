"""Matrices between shared memory and registers; parameters by their address."""

from __future__ import annotations

import numpy as np
import pytest

from tools.ptxsim.simulator import KernelFault, Memory, Module

pytestmark = pytest.mark.emulated

MATRICES = """
.version 8.6
.target sm_100
.address_size 64
.visible .entry matrices(.param .u64 source, .param .u64 target)
{
  .reg .b32 %r<12>;
  .reg .b64 %d<8>;
  .shared .align 16 .b8 tile[512];
  ld.param.u64 %d1, [source];
  ld.param.u64 %d2, [target];
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 4;
  cvt.u64.u32 %d3, %r2;
  add.s64 %d4, %d1, %d3;
  add.s64 %d5, %d2, %d3;
  mov.u32 %r3, tile;
  add.s32 %r4, %r3, %r2;
  {moves}
  st.global.v4.b32 [%d5], {%r5, %r6, %r7, %r8};
  ret;
}
"""
SHARE = "ld.global.v4.b32 {%r5, %r6, %r7, %r8}, [%d4]; st.shared.v4.b32 [%r4], {%r5, %r6, %r7, %r8}; bar.sync 0;"
LOAD = "ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {%r5, %r6, %r7, %r8}, [%r4];"
STORE = "stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r4], {%r5, %r6, %r7, %r8};"
READ = "bar.sync 0; ld.shared.v4.b32 {%r5, %r6, %r7, %r8}, [%r4];"


def run(moves: str) -> np.ndarray:
    """Four 8 x 8 matrices of their own indices through a warp; lane t's 16 bytes in row t."""
    source = np.arange(4 * 8 * 8, dtype=np.uint16)
    memory = Memory()
    x, y = memory.put(source, "x", readonly=True), memory.empty((32, 8), np.uint16, "y")
    Module(MATRICES.replace("{moves}", moves)).launch("matrices", 1, 32, [x, y], memory)
    return y.get()


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_a_lane_gets_two_neighbours_of_its_row_or_column(trans: str) -> None:
    found = run(SHARE + LOAD.replace("{trans}", trans))
    for lane in range(32):
        for i in range(4):
            row, column = lane // 4, 2 * (lane % 4)
            first, second = (row, column), (row, column + 1)
            if trans:
                first, second = first[::-1], second[::-1]
            expected = [64 * i + 8 * r + c for r, c in (first, second)]
            assert found[lane, 2 * i : 2 * i + 2].tolist() == expected


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_a_store_puts_back_what_a_load_took(trans: str) -> None:
    moves = SHARE + LOAD + "bar.sync 0;" + STORE + READ
    found = run(moves.replace("{trans}", trans))
    np.testing.assert_array_equal(found.reshape(-1), np.arange(256))


def test_part_of_a_warp_is_refused() -> None:
    moves = SHARE + "{.reg .pred %q; setp.lt.u32 %q, %r1, 16; @%q " + LOAD + "}"
    with pytest.raises(KernelFault, match="part of a warp"):
        run(moves.replace("{trans}", ""))


STRADDLE = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry straddle(.param .u64 x)
{
  .reg .b64 %d<3>;
  ld.param.u64 %d1, [x];
  {access}
  ret;
}
"""


@pytest.mark.parametrize("offset", [-4, 12])
@pytest.mark.parametrize(
    "access", ["ld.global.b64 %d2, [%d1+{offset}];", "st.global.b64 [%d1+{offset}], %d1;"]
)
def test_half_an_access_outside_is_out_of_bounds(access: str, offset: int) -> None:
    """Sixteen bytes that begin 4 behind a multiple of 8: both ends lie in the middle of an aligned access."""
    memory = Memory()
    x = memory.put(np.zeros(16, np.uint8), "x", misalign=4)
    ptx = STRADDLE.replace("{access}", access.replace("{offset}", str(offset)))
    with pytest.raises(KernelFault, match="out-of-bounds global"):
        Module(ptx).launch("straddle", 1, 1, [x], memory)


PARAMETERS = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry choose(.param .u64 target, .param .u32 which, .param .f64 first, .param .f64 second)
{
  .reg .pred %p<2>;
  .reg .b32 %r<2>;
  .reg .b64 %d<8>;
  ld.param.u64 %d1, [target];
  ld.param.u32 %r1, [which];
  mov.b64 %d2, first;
  mov.b64 %d3, second;
  setp.eq.u32 %p1, %r1, 0;
  selp.b64 %d4, %d2, %d3, %p1;
  ld.param.b64 %d5, [%d4{offset}];
  st.global.b64 [%d1], %d5;
  ret;
}
"""


@pytest.mark.parametrize("which", [0, 1])
def test_a_parameter_by_its_address(which: int) -> None:
    memory = Memory()
    target = memory.empty(1, np.float64, "y")
    module = Module(PARAMETERS.replace("{offset}", ""))
    module.launch("choose", 1, 32, [target, which, 1.5, 2.5], memory)
    assert target.get()[0] == (1.5, 2.5)[which]


def test_beyond_the_parameters_is_out_of_bounds() -> None:
    memory = Memory()
    target = memory.empty(1, np.float64, "y")
    with pytest.raises(KernelFault, match="out-of-bounds parameter"):
        Module(PARAMETERS.replace("{offset}", "+8")).launch(
            "choose", 1, 32, [target, 1, 1.5, 2.5], memory
        )
