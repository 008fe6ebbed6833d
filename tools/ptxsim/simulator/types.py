"""PTX types as numpy types, and the roundings that numpy does not have."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UNSIGNED: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED: dict[int, Any] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT: dict[int, Any] = {16: np.float16, 32: np.float32, 64: np.float64}
INTEGER_TYPES = {f"{kind}{bits}" for kind in "bus" for bits in (8, 16, 32, 64)}
FLOAT_TYPES = {"f16", "f16x2", "bf16", "bf16x2", "f32", "f32x2", "f64", "tf32"}
TYPES = frozenset({"pred", "b1", "b128"} | INTEGER_TYPES | FLOAT_TYPES)
SMALLEST_NORMAL = np.float32(1.17549435e-38)


@cache
def width(type_: str) -> int:
    """Bits of a PTX type: ``f16x2`` has 32."""
    if type_ == "pred":
        return 1
    digits = re.search(r"\d+", type_)
    assert digits is not None, type_
    return int(digits[0]) * (2 if type_.endswith("x2") else 1)


def is_float(type_: str) -> bool:
    return type_[0] == "f" or type_.startswith("bf")


def integer(type_: str) -> Any:
    """The numpy integer of an ``s``, ``u`` or ``b`` type."""
    return (SIGNED if type_[0] == "s" else UNSIGNED)[width(type_)]


def bf16_to_f32(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(values: Array) -> Array:
    """Bits of bf16, rounded to nearest even; every NaN becomes the canonical one, as cvt.rn.bf16 does."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    to_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + to_even) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def flush_subnormals(values: Array) -> Array:
    """The ``.ftz`` modifier: a subnormal float32 becomes a zero of its sign."""
    small = np.abs(values) < SMALLEST_NORMAL
    if not small.any():
        return values
    return np.where(small, np.copysign(np.float32(0), values), values).astype(np.float32)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Knuth: the rounded sum and its exact error."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Dekker, with Veltkamp's splitting into halves of 26 bits: the rounded product and its exact error."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def halves(x: Array) -> tuple[Array, Array]:
    scaled = x * float(2**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high


def odd_sum(a: Array, b: Array) -> Array:
    """The sum rounded to odd: where it is inexact its last bit is 1, so a second rounding is no double one."""
    total, error = two_sum(a, b)
    bits = total.view(np.int64)
    even = (bits & 1) == 0
    inexact = (error != 0) & np.isfinite(total) & np.isfinite(error) & even
    outwards = np.sign(error) == np.sign(total)
    bits = np.where(inexact, np.where(outwards, bits + 1, bits - 1), bits)
    return bits.view(np.float64)


def fma32(a: Array, b: Array, c: Array) -> Array:
    """Correctly rounded float32 a*b + c: the product of two float32 is exact in float64."""
    product = a.astype(np.float64) * b.astype(np.float64)
    return odd_sum(product, c.astype(np.float64)).astype(np.float32)


def fma64(a: Array, b: Array, c: Array) -> Array:
    """Correctly rounded float64 a*b + c, after Boldo and Melquiond (2008); in fractions near the range's ends."""
    product, low = two_product(a, b)
    middle, lowest = two_sum(c, low)
    high, rest = two_sum(product, middle)
    value = high + odd_sum(lowest, rest)
    finite = np.isfinite(a) & np.isfinite(b)
    plain = np.where(finite & np.isinf(c), c, a * b + c)  # the exact product is finite
    exact = (a == 0) | (b == 0) | ~finite | ~np.isfinite(c)
    value = np.where(exact, plain, value)
    parts = np.stack([np.abs(a), np.abs(b), np.abs(product), np.abs(c)])
    out_of_range = (parts > 2.0**960) | ((parts < 2.0**-900) & (parts != 0))
    for i in np.flatnonzero(out_of_range.any(0) & ~exact):
        value[i] = fma_in_fractions(float(a[i]), float(b[i]), float(c[i]))
    return value


def fma_in_fractions(x: float, y: float, z: float) -> float:
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
