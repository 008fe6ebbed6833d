"""What a kernel executed again and again, told from what it did once."""

from __future__ import annotations

import numpy as np
import pytest

from tools.ptxsim import row_loop
from tools.ptxsim.simulator import Memory, Module, Result

pytestmark = pytest.mark.emulated

# Two warps; each thread takes ten elements, 64 apart, with one special function each.
LOOP = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry loop(.param .u64 x, .param .u64 y)
{
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .reg .f32 %f<4>;
  .reg .b64 %d<8>;
  ld.param.u64 %d1, [x];
  ld.param.u64 %d2, [y];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d3, %r1, 4;
  add.s64 %d4, %d1, %d3;
  add.s64 %d5, %d2, %d3;
  mov.u32 %r2, 0;
AGAIN:
  ld.global.f32 %f1, [%d4];
  ex2.approx.f32 %f2, %f1;
  add.f32 %f3, %f2, %f1;
  st.global.f32 [%d5], %f3;
  add.s64 %d4, %d4, 256;
  add.s64 %d5, %d5, 256;
  add.s32 %r2, %r2, 1;
  setp.lt.s32 %p1, %r2, 10;
  @%p1 bra AGAIN;
  ret;
}
"""


def run(blocks: int = 1) -> Result:
    memory = Memory()
    x = memory.put(np.ones(640 * blocks, np.float32), "x")
    y = memory.empty(640 * blocks, np.float32, "y")
    return Module(LOOP).launch("loop", 1, 64, [x, y], memory)


def test_each_instruction_is_counted_by_warps() -> None:
    result = run()
    ran = {
        ins.name: int(result.executed[ins.index]) for ins in result.kernel.code if ins.op != "add"
    }
    assert ran["ld.global.f32"] == ran["ex2.approx.f32"] == ran["bra"] == 2 * 10
    assert ran["mul.wide.u32"] == 2


def test_the_loop_counts_and_what_stands_before_it_does_not() -> None:
    counts = row_loop.count(run())
    assert counts.warp_instructions == 2 * 10 * 9
    assert counts.pipes == {"fp32": 20.0, "fp64": 0.0, "mufu": 20.0, "alu": 2 * 10 * 4.0}
    assert counts.load_bytes == 4


def test_without_a_loop_everything_counts() -> None:
    straight = LOOP.replace("@%p1 bra AGAIN;", "")
    memory = Memory()
    x, y = memory.put(np.ones(64, np.float32), "x"), memory.empty(64, np.float32, "y")
    result = Module(straight).launch("loop", 1, 64, [x, y], memory)
    counts = row_loop.count(result)
    # Neither the loads of parameters nor the moves: mul, seven adds and comparisons, ld, ex2, add, st, ret.
    assert counts.pipes["mufu"] == 2
    assert counts.warp_instructions == 2 * 11


def test_everything_counts_on_request() -> None:
    once = 2 * 3  # the product and two sums; loads of parameters and moves cost nothing
    assert row_loop.count(run(), everything=True).warp_instructions == 2 * 10 * 9 + once


def test_the_text_counts_each_instruction_once() -> None:
    assert row_loop.pipe_work(run().kernel) == {"fp32": 1.0, "fp64": 0.0, "mufu": 1.0, "alu": 6.0}
