"""Single instructions against numbers worked out by hand: rounding, NaN, saturation, packed halves, fields."""

from __future__ import annotations

import numpy as np
import pytest

from tools.ptxsim.simulator import Memory, Module, Unsupported, fma32
from tools.ptxsim.simulator.types import fma64, fma_in_fractions

pytestmark = pytest.mark.emulated

ONE_INSTRUCTION = """
.version 8.6
.target sm_100
.address_size 64
.visible .entry one(.param .u64 source, .param .u64 target)
{
  .reg .pred %p<3>;
  .reg .b16 %h<3>;
  .reg .b32 %r<6>;
  .reg .b64 %d<6>;
  .reg .b64 %s, %t;
  ld.param.u64 %s, [source];
  ld.param.u64 %t, [target];
  ld.global.u64 %d1, [%s];
  ld.global.u64 %d2, [%s+8];
  ld.global.u64 %d3, [%s+16];
  cvt.u32.u64 %r1, %d1;
  cvt.u32.u64 %r2, %d2;
  cvt.u32.u64 %r3, %d3;
  cvt.u16.u64 %h1, %d1;
  mov.u64 %d4, 0;
  mov.u32 %r4, 0;
  {instruction};
  {widen}
  st.global.u64 [%t], %d4;
  ret;
}
"""
FROM_32 = "cvt.u64.u32 %d4, %r4;"
FROM_PREDICATES = """
  selp.u64 %d4, 1, 0, %p1;
  @%p2 add.u64 %d4, %d4, 2;
"""


def f32(*values: float) -> int:
    """Bits of one float32, or of two as a packed pair (low, high)."""
    return int.from_bytes(np.array(values, np.float32).tobytes(), "little")


def f64(value: float) -> int:
    return int.from_bytes(np.float64(value).tobytes(), "little")


def f16(*values: float) -> int:
    return int.from_bytes(np.array(values, np.float16).tobytes(), "little")


def run(instruction: str, widen: str, *inputs: int) -> int:
    ptx = ONE_INSTRUCTION.replace("{instruction}", instruction).replace("{widen}", widen)
    memory = Memory()
    source = memory.put(np.array([*inputs, 0, 0, 0][:3], np.uint64), "source", readonly=True)
    target = memory.empty(1, np.uint64, "target")
    Module(ptx).launch("one", 1, 1, [source, target], memory)
    return int(target.get()[0])


NAN32 = f32(float("nan"))
TINY = 1e-40  # subnormal in float32
ONES_BF16 = 0x3F803F80

CASES = {
    # Ties go to even: 1 + 2**-24 lies between 1 and 1 + 2**-23.
    "add.rn.f32 %r4, %r1, %r2": (FROM_32, (f32(1), f32(2**-24)), f32(1)),
    "add.rn.ftz.f32 %r4, %r1, %r2": (FROM_32, (f32(TINY), f32(1)), f32(1)),
    "mul.ftz.f32 %r4, %r1, %r2": (FROM_32, (f32(-TINY), f32(2)), f32(-0.0)),
    # The product is not rounded before the sum: (1 + 2**-12)**2 - 1 - 2**-11 = 2**-24.
    "fma.rn.f32 %r4, %r1, %r2, %r3": (
        FROM_32,
        (f32(1 + 2**-12), f32(1 + 2**-12), f32(-1 - 2**-11)),
        f32(2**-24),
    ),
    # A hair above a tie, and below one: rounding to float64 first would lose the hair.
    "fma.rn.f32 %r4, %r1, %r1, %r3": (
        FROM_32,
        (f32(1 + 2**-12), 0, f32(2**-80)),
        f32(1 + 2**-11 + 2**-23),
    ),
    "fma.rn.f32 %r4, %r2, %r1, %r3": (
        FROM_32,
        (f32(1 + 2**-12), f32(1 + 3 * 2**-12), f32(-(2**-80))),
        f32(1 + 2**-10 + 2**-23),
    ),
    "fma.rn.f64 %d4, %d1, %d2, %d3": (
        "",
        (f64(1 + 2**-30), f64(1 + 2**-30), f64(-1 - 2**-29)),
        f64(2**-60),
    ),
    "fma.rn.f64 %d4, %d1, %d1, %d3": ("", (f64(-0.0), 0, f64(0.0)), f64(0.0)),
    "add.rn.f32x2 %d4, %d1, %d2": ("", (f32(1, 2), f32(3, -4)), f32(4, -2)),
    "neg.f32x2 %d4, %d1": ("", (f32(1, -2),), f32(-1, 2)),
    # Arithmetic in float32 gives one NaN, whatever it is made of.
    "add.f32 %r4, %r1, %r2": (FROM_32, (0xFFC00000, 0x7FC00001), 0x7FFFFFFF),
    "sub.f32 %r4, %r1, %r2": (FROM_32, (f32(float("inf")), f32(float("inf"))), 0x7FFFFFFF),
    # A NaN loses against a number, unless .NaN asks for it; -0 is less than +0.
    "max.f32 %r4, %r1, %r2": (FROM_32, (NAN32, f32(-3)), f32(-3)),
    "max.NaN.f32 %r4, %r1, %r2": (FROM_32, (f32(1), 0x7FC00000), 0x7FFFFFFF),
    "min.f32 %r4, %r1, %r2": (FROM_32, (f32(0.0), f32(-0.0)), f32(-0.0)),
    "max.f32 %r4, %r1, %r2, %r3": (FROM_32, (f32(1), f32(5), f32(2)), f32(5)),
    "neg.f32 %r4, %r1": (FROM_32, (0x7FC00001,), 0xFFC00001),
    "abs.f32 %r4, %r1": (FROM_32, (f32(-0.0),), f32(0.0)),
    "copysign.f32 %r4, %r1, %r2": (FROM_32, (f32(-1), f32(3)), f32(-3)),
    "ex2.approx.ftz.f32 %r4, %r1": (FROM_32, (f32(3),), f32(8)),
    "lg2.approx.f32 %r4, %r1": (FROM_32, (f32(0.25),), f32(-2)),
    "rcp.rn.f32 %r4, %r1": (FROM_32, (f32(-0.0),), f32(float("-inf"))),
    "sqrt.rn.f32 %r4, %r1": (FROM_32, (f32(9),), f32(3)),
    # 1 + 2**-8 lies between two bf16 and goes to the even one; 1 + 3 * 2**-8 too, upwards.
    "cvt.rn.bf16x2.f32 %r4, %r1, %r2": (FROM_32, (f32(1 + 3 * 2**-8), f32(1 + 2**-8)), 0x3F823F80),
    "cvt.rn.f16x2.f32 %r4, %r1, %r2": (FROM_32, (f32(70000), f32(1)), f16(1, float("inf"))),
    "cvt.f32.bf16 %r4, %h1": (FROM_32, (0x3F80,), f32(1)),
    # Out of range saturates, NaN is 0.
    "cvt.rzi.s32.f32 %r4, %r1": (FROM_32, (f32(-1e10),), 0x80000000),
    "cvt.rzi.u32.f32 %r4, %r1": (FROM_32, (NAN32,), 0),
    "cvt.rni.s32.f32 %r4, %r1": (FROM_32, (f32(2.5),), 2),
    "cvt.sat.u8.u32 %h1, %r1; cvt.u32.u16 %r4, %h1": (FROM_32, (300,), 255),
    "cvt.rn.f32.u64 %r4, %d1": (FROM_32, (2**63,), f32(2.0**63)),
    "mul.wide.s32 %d4, %r1, %r2": ("", (2**32 - 3, 7), 2**64 - 21),
    "mul.hi.u64 %d4, %d1, %d2": ("", (2**63, 6), 3),
    "mul.hi.s32 %r4, %r1, %r2": (FROM_32, (2**32 - 1, 5), 2**32 - 1),
    "mad.lo.s32 %r4, %r1, %r2, %r3": (FROM_32, (5, 2**32 - 2, 3), 2**32 - 7),
    "div.s32 %r4, %r1, %r2": (FROM_32, (2**32 - 7, 2), 2**32 - 3),
    "rem.s32 %r4, %r1, %r2": (FROM_32, (2**32 - 7, 4), 2**32 - 3),
    "div.u64 %d4, %d1, %d2": ("", (2**64 - 1, 2**32), 2**32 - 1),
    "shl.b32 %r4, %r1, 32": (FROM_32, (0xFFFFFFFF,), 0),
    "shr.s32 %r4, %r1, 40": (FROM_32, (0x80000000,), 0xFFFFFFFF),
    "shr.u32 %r4, %r1, 4": (FROM_32, (0x80000000,), 0x08000000),
    "shf.l.wrap.b32 %r4, %r1, %r2, 8": (FROM_32, (0x12345678, 0xABCDEF01), 0xCDEF0112),
    "bfe.s32 %r4, %r1, 4, 8": (FROM_32, (0xF80,), 0xFFFFFFF8),
    "bfe.u32 %r4, %r1, 4, 8": (FROM_32, (0xF80,), 0xF8),
    "bfi.b32 %r4, %r1, %r2, 8, 4": (FROM_32, (0xA, 0xFFFFFFFF), 0xFFFFFAFF),
    "prmt.b32 %r4, %r1, %r2, 0x5410": (FROM_32, (0x22221111, 0x44443333), 0x33331111),
    "prmt.b32 %r4, %r1, %r2, 0x8888": (FROM_32, (0x80,), 0xFFFFFFFF),
    "lop3.b32 %r4, %r1, %r2, %r3, 0xE8": (FROM_32, (0b1100, 0b1010, 0b0110), 0b1110),  # majority
    "popc.b32 %r4, %r1": (FROM_32, (0xF0F,), 8),
    "clz.b32 %r4, %r1": (FROM_32, (1,), 31),
    "brev.b32 %r4, %r1": (FROM_32, (1,), 0x80000000),
    # lt is false for NaN, ltu true; p|q takes a predicate and its opposite, or one for each half.
    "setp.lt.f32 %p1|%p2, %r1, %r2": (FROM_PREDICATES, (NAN32, f32(1)), 2),
    "setp.ltu.f32 %p1|%p2, %r1, %r2": (FROM_PREDICATES, (NAN32, f32(1)), 1),
    "setp.eq.bf16x2 %p1|%p2, %r1, %r2": (FROM_PREDICATES, (ONES_BF16, 0x3F800000), 2),
    "setp.gt.s32 %p1|%p2, %r1, %r2": (FROM_PREDICATES, (2**32 - 1, 1), 2),
    "setp.hi.u32 %p1|%p2, %r1, %r2": (FROM_PREDICATES, (2**32 - 1, 1), 1),
    "set.eq.u32.f32 %r4, %r1, %r2": (FROM_32, (f32(0.0), f32(-0.0)), 0xFFFFFFFF),
    "slct.f32.s32 %r4, %r1, %r2, %r3": (FROM_32, (f32(1), f32(2), 2**32 - 1), f32(2)),
    "mov.b64 {%r4, _}, %d1": (FROM_32, ((7 << 32) | 5,), 5),
    "mov.b64 %d4, {%r1, %r2}": ("", (5, 7), (7 << 32) | 5),
}


@pytest.mark.parametrize("instruction", CASES)
def test_instruction(instruction: str) -> None:
    widen, inputs, expected = CASES[instruction]
    assert f"{run(instruction, widen, *inputs):#x}" == f"{expected:#x}"


@pytest.mark.parametrize(
    "instruction",
    ["add.cc.u32 %r4, %r1, %r2", "set.eq.u32.bf16x2 %r4, %r1, %r2", "tanhh.f32 %r4, %r1"],
)
def test_what_is_not_known_is_refused(instruction: str) -> None:
    with pytest.raises(Unsupported):
        run(instruction, FROM_32, 1, 2)


def test_fma_is_rounded_once() -> None:
    """Against exact integers: products of 24-bit numbers plus a number far below or above."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(1, 1 << 24, 4000) for _ in "ab")
    c = rng.integers(-(1 << 52), 1 << 52, 4000)
    c -= c % (1 << 29)  # 24 significant bits
    inputs = [x.astype(np.float32) for x in (a, b, c)]
    exact = [int(x) * int(y) + int(z) for x, y, z in zip(a, b, c, strict=True)]
    expected = np.array([rounded(x) for x in exact], np.float32)
    np.testing.assert_array_equal(fma32(*inputs), expected)


def test_fma_of_doubles_is_rounded_once() -> None:
    """Against fractions: any magnitudes, near cancellation, near ties, at the ends of the range."""
    rng = np.random.default_rng(0)
    n = 3000
    a, b = (rng.normal(size=n) * 2.0 ** rng.integers(-40, 40, n) for _ in "ab")
    cancelling = -(a * b) * (1 + rng.integers(-2, 3, n) * 2.0**-52)
    far = rng.normal(size=n) * 2.0 ** rng.integers(-160, 160, n)
    for c in (cancelling, far):
        expected = [fma_in_fractions(*map(float, x)) for x in zip(a, b, c, strict=True)]
        np.testing.assert_array_equal(fma64(a, b, c), expected)
    # The product is a hair less than 2**-53: with 1 + 2**-52 just below a tie, which rounding it first would hit.
    below, odd = 2.0**-53 * (1 - 2.0**-52), 1 + 2.0**-52
    a, b, c = np.full(2, odd), np.array([below, -below]), np.array([odd, -odd])
    np.testing.assert_array_equal(fma64(a, b, c), [odd, -odd])
    assert a[0] * b[0] + c[0] != odd
    with np.errstate(all="ignore"):
        a = np.array([2.0**-1000, 2.0**1000, -(2.0**1000), 2.0**-1000])
        c = np.array([2.0**-1074, 1.0, np.inf, -0.0])
        found = fma64(a, np.full(4, 2.0**100), c)
    expected = [2.0**-900 + 2.0**-1074, np.inf, np.inf, 2.0**-900]
    np.testing.assert_array_equal(found, expected)


def rounded(exact: int) -> float:
    """An integer to the nearest float32, ties to even."""
    shift = max(0, abs(exact).bit_length() - 24)
    kept, rest, half = abs(exact) >> shift, abs(exact) & ((1 << shift) - 1), (1 << shift) >> 1
    kept += rest > half or (shift > 0 and rest == half and kept % 2)
    return float((kept << shift) * (1 if exact >= 0 else -1))


RECIPROCALS = """
.version 8.6
.target sm_90
.address_size 64
.visible .entry reciprocals(.param .u64 source, .param .u64 target)
{
  .reg .b32 %r<3>;
  .reg .f32 %f<3>;
  .reg .b64 %a<6>;
  ld.param.u64 %a1, [source];
  ld.param.u64 %a2, [target];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %a3, %r1, 4;
  add.s64 %a4, %a1, %a3;
  add.s64 %a5, %a2, %a3;
  ld.global.f32 %f1, [%a4];
  rcp.approx.f32 %f2, %f1;
  st.global.f32 [%a5], %f2;
  ret;
}
"""


def reciprocals(numbers: np.ndarray, **options: float) -> np.ndarray:
    memory = Memory()
    source = memory.put(numbers, "source", readonly=True)
    target = memory.empty(len(numbers), np.float32, "target")
    Module(RECIPROCALS).launch("reciprocals", 1, len(numbers), [source, target], memory, **options)
    return target.get()


def test_an_approximation_errs_alike_for_copies_of_a_number() -> None:
    """Within the size asked for, otherwise for another number or seed, and the same in every lane that has it."""
    numbers = np.repeat(np.arange(3, 19, dtype=np.float32), 2)
    exact, noise = reciprocals(numbers), 2.0**-12
    first, second = (reciprocals(numbers, approx_noise=noise, seed=seed) for seed in (1, 2))
    errors = (first / exact.astype(np.float64) - 1) / noise
    assert (errors[::2] == errors[1::2]).all()
    assert np.abs(errors).max() <= 1 + 2.0**-10  # the result's own rounding
    assert len(np.unique(errors)) > 12
    assert errors.min() < -0.25
    assert errors.max() > 0.25
    assert (first != second).any()
    assert (reciprocals(numbers, approx_noise=noise, seed=1) == first).all()
