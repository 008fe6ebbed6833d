"""PTX types as numpy types, and the roundings that numpy does not have."""

from __future__ import annotations

import re
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


def fma32(a: Array, b: Array, c: Array) -> Array:
    """Correctly rounded float32 a*b + c.

    The product of two float32 is exact in float64. The sum is rounded to odd, with the error of Knuth's two-sum,
    so that the one rounding to float32 cannot be a double rounding.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    of_c = total - product
    error = (product - (total - of_c)) + (c - of_c)
    bits = total.view(np.int64)
    even = (bits & 1) == 0
    inexact = (error != 0) & np.isfinite(total) & np.isfinite(error) & even
    outwards = np.sign(error) == np.sign(total)
    bits = np.where(inexact, np.where(outwards, bits + 1, bits - 1), bits)
    return bits.view(np.float64).astype(np.float32)
