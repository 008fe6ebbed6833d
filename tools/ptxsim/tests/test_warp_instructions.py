"""Shuffles, votes and reductions of a warp, against the CUDA programming guide's description of them."""

from __future__ import annotations

import numpy as np
import pytest

from tools.ptxsim.simulator import Memory, Module

pytestmark = pytest.mark.emulated

WARP = """
.version 8.6
.target sm_100
.address_size 64
.visible .entry warp(.param .u64 source, .param .u64 target)
{
  .reg .pred %p<3>;
  .reg .b32 %r<12>;
  .reg .f32 %f<4>;
  .reg .b64 %d<8>;
  ld.param.u64 %d1, [source];
  ld.param.u64 %d2, [target];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d3, %r1, 4;
  add.s64 %d4, %d1, %d3;
  add.s64 %d5, %d2, %d3;
  ld.global.b32 %r2, [%d4];
  setp.gt.s32 %p1, %r2, 100;
  {body}
  st.global.b32 [%d5], %r3;
  ret;
}
"""
VALUES = np.random.default_rng(0).permutation(200)[:64].astype(np.int32)


def run(body: str, values: np.ndarray = VALUES) -> np.ndarray:
    memory = Memory()
    x = memory.put(values, "x", readonly=True)
    y = memory.empty(len(values), np.int32, "y")
    Module(WARP.replace("{body}", body)).launch("warp", 1, len(values), [x, y], memory)
    return y.get()


# The clamp operand that nvcc makes of a width: (32 - width) << 8 | 31, with 0 instead of 31 for up.
@pytest.mark.parametrize("width", [32, 16, 8])
@pytest.mark.parametrize("by", [1, 5, 8])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffle(mode: str, by: int, width: int) -> None:
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    found = run(f"shfl.sync.{mode}.b32 %r3|%p2, %r2, {by}, {clamp}, -1;")
    for thread, value in enumerate(found):
        first = thread - thread % width
        sources = {"up": thread - by, "down": thread + by, "bfly": thread ^ by}
        source = first + by % width if mode == "idx" else sources[mode]
        # bfly may read from segments before its own, not from those behind it.
        inside = source < first + width and (source >= first or mode == "bfly")
        assert value == VALUES[source if inside else thread]


@pytest.mark.parametrize("kind", ["add", "min", "max", "and", "or", "xor"])
def test_reduction(kind: str) -> None:
    type_ = "b32" if kind in ("and", "or", "xor") else "s32"
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum}
    functions |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    found = run(f"redux.sync.{kind}.{type_} %r3, %r2, -1;")
    expected = functions[kind].reduce(VALUES.reshape(2, 32), 1)
    np.testing.assert_array_equal(found.reshape(2, 32), np.repeat(expected[:, None], 32, 1))


def test_float_reduction_ignores_nan() -> None:
    values = np.arange(32, dtype=np.float32)
    values[7] = np.nan
    found = run("redux.sync.max.f32 %r3, %r2, -1;", values.view(np.int32))
    np.testing.assert_array_equal(found.view(np.float32), np.full(32, 31, np.float32))
    found = run("redux.sync.max.NaN.f32 %r3, %r2, -1;", values.view(np.int32))
    assert np.isnan(found.view(np.float32)).all()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("vote.sync.any.pred %p2, %p1, -1;", lambda yes: yes.any(1)),
        ("vote.sync.all.pred %p2, %p1, -1;", lambda yes: yes.all(1)),
        ("vote.sync.uni.pred %p2, %p1, -1;", lambda yes: yes.all(1) | ~yes.any(1)),
    ],
)
def test_vote(body: str, expected) -> None:
    values = np.concatenate([np.full(32, 150), VALUES[:32], np.zeros(32)]).astype(np.int32)
    yes = values.reshape(3, 32) > 100
    found = run(f"{body} selp.b32 %r3, 1, 0, %p2;", values)
    np.testing.assert_array_equal(found.reshape(3, 32)[:, 0].astype(bool), expected(yes))


def test_ballot_and_active_mask() -> None:
    yes = VALUES.reshape(2, 32) > 100
    ballot = (yes.astype(np.int64) << np.arange(32)).sum(1).astype(np.uint32)
    found = run("vote.sync.ballot.b32 %r3, %p1, -1;").view(np.uint32).reshape(2, 32)
    np.testing.assert_array_equal(found, np.repeat(ballot[:, None], 32, 1))
    found = run("mov.u32 %r3, 0; @%p1 activemask.b32 %r3;").view(np.uint32).reshape(2, 32)
    np.testing.assert_array_equal(found, np.where(yes, ballot[:, None], 0))


def test_lanes_that_come_later_are_waited_for() -> None:
    """Both sides of a branch end in one shuffle: it runs when the whole mask has arrived."""
    body = """
  mov.u32 %r4, %r2;
  @%p1 bra HIGH;
  add.s32 %r4, %r2, 1000;
  bra JOIN;
HIGH:
  add.s32 %r4, %r2, 2000;
JOIN:
  shfl.sync.bfly.b32 %r3, %r4, 1, 31, -1;
"""
    changed = VALUES + np.where(VALUES > 100, 2000, 1000)
    np.testing.assert_array_equal(run(body), changed.reshape(-1, 2)[:, ::-1].reshape(-1))
