"""Addition, multiplication, division, minimum and maximum, of integers and of floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import Unsupported
from ..machine import Machine
from ..parser import Instruction
from ..registry import opcode, type_of, types
from ..types import (
    SIGNED,
    UNSIGNED,
    Array,
    flush_subnormals,
    fma32,
    fma64,
    integer,
    is_float,
    width,
)

Binary = Callable[[Array, Array], Array]


CANONICAL = np.uint32(0x7FFFFFFF).view(np.float32)


def finish(ins: Instruction, value: Array, type_: str) -> Array:
    """The modifiers .ftz and .sat of a result; a NaN in float32 is the canonical one, whatever it came from."""
    if type_ in ("f32", "f32x2"):
        value = np.asarray(value, np.float32)
        if "ftz" in ins.mods:
            value = flush_subnormals(value)
        # A sum is a number in most calls: one pass tells.
        if np.isnan(value.sum()):
            value = np.where(np.isnan(value), CANONICAL, value)
    if "sat" in ins.mods and type_[0] in "fb":
        value = np.clip(np.nan_to_num(value, nan=0.0), 0, 1).astype(value.dtype)
    return value


def approximate(machine: Machine, value: Array) -> Array:
    """An .approx result: float32, with a relative error that is the same wherever the result is the same.

    Lanes that hold copies of one number go on holding copies, as on a GPU.
    """
    value = np.asarray(value, np.float32)
    noise = machine.options.approx_noise
    if not noise:
        return value
    # Knuth's multiplicative hash of the bits: as good as random, and a function of the number.
    mixed = (value.view(np.uint32) ^ np.uint32(machine.options.seed)) * np.uint32(2654435761)
    error = 1 + noise * ((mixed >> np.uint32(8)).astype(np.float64) / (1 << 23) - 1)
    return (value.astype(np.float64) * error).astype(np.float32)


def float_sources(machine: Machine, ins: Instruction, type_: str, *which: int) -> list[Array]:
    """Operands as floats, subnormals flushed where the instruction says so."""
    values = [machine.get(ins.args[i], type_) for i in which]
    if "ftz" in ins.mods and type_ in ("f32", "f32x2"):
        return [flush_subnormals(v) for v in values]
    return values


def binary(machine: Machine, ins: Instruction, on_integers: Binary, on_floats: Binary) -> None:
    type_, every = type_of(ins), types(ins)
    if len(every) == 2 and every[0] == "f32" and every[1] in ("bf16", "f16"):
        # sm_100's add.f32.bf16 d, a, c: a is narrow, c is float32.
        narrow = machine.get(ins.args[1], every[1]).astype(np.float32)
        sum_ = on_floats(narrow, machine.get(ins.args[2], "f32")).astype(np.float32)
        machine.put(ins.args[0], "f32", finish(ins, sum_, "f32"))
        return
    if not is_float(type_):
        a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
        machine.put(ins.args[0], type_, on_integers(a, b))
        return
    a, b = float_sources(machine, ins, type_, 1, 2)
    value = finish(ins, on_floats(a, b), type_)
    if type_ != "f64":
        value = value.astype(np.float16 if type_.startswith("f16") else np.float32)
    machine.put(ins.args[0], type_, value)


@opcode("add")
def add(machine: Machine, ins: Instruction) -> None:
    if "cc" in ins.mods:
        raise Unsupported(ins.text)
    binary(machine, ins, np.add, np.add)


@opcode("sub")
def subtract(machine: Machine, ins: Instruction) -> None:
    if "cc" in ins.mods:
        raise Unsupported(ins.text)
    binary(machine, ins, np.subtract, np.subtract)


@opcode("mul")
def multiply(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    if is_float(type_):
        binary(machine, ins, np.multiply, np.multiply)
    else:
        machine.put(ins.args[0], product_type(ins, type_), integer_product(machine, ins, type_))


def product_type(ins: Instruction, type_: str) -> str:
    return f"{type_[0]}{2 * width(type_)}" if "wide" in ins.mods else type_


def integer_product(machine: Machine, ins: Instruction, type_: str) -> Array:
    """The low half, the high half (.hi) or all of a product (.wide)."""
    a, b, bits = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_), width(type_)
    if "wide" not in ins.mods and "hi" not in ins.mods:
        return a * b
    if bits == 64:
        high = [(int(x) * int(y)) >> 64 & (2**64 - 1) for x, y in zip(a, b, strict=True)]
        return np.array(high, np.uint64)
    wider = (SIGNED if type_[0] == "s" else UNSIGNED)[2 * bits]
    whole: Array = a.astype(wider) * b.astype(wider)
    return whole if "wide" in ins.mods else (whole >> wider(bits)).astype(a.dtype)


@opcode("mad")
def multiply_add(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    if type_[0] == "f":
        fused_multiply_add(machine, ins)
        return
    wide = product_type(ins, type_)
    total = integer_product(machine, ins, type_) + machine.get(ins.args[3], wide)
    machine.put(ins.args[0], wide, total)


@opcode("fma")
def fused_multiply_add(machine: Machine, ins: Instruction) -> None:
    type_, every = type_of(ins), types(ins)
    if len(every) == 2:  # fma.f32.bf16: narrow factors, a float32 summand
        a, b = (machine.get(ins.args[i], every[1]).astype(np.float32) for i in (1, 2))
        c, type_ = machine.get(ins.args[3], "f32"), "f32"
    else:
        a, b, c = float_sources(machine, ins, type_, 1, 2, 3)
    if type_ in ("f32", "f32x2"):
        value = fma32(a, b, c)
    elif type_ == "f64":
        value = fma64(a, b, c)
    else:
        narrow = np.float16 if type_.startswith("f16") else np.float32
        value = (a.astype(np.float64) * b + c).astype(narrow)
    machine.put(ins.args[0], type_, finish(ins, value, type_))


@opcode("div")
def divide(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    if type_[0] == "f":
        a, b = float_sources(machine, ins, type_, 1, 2)
        value = a / b
        if "approx" in ins.mods or "full" in ins.mods:
            value = approximate(machine, value)
        machine.put(ins.args[0], type_, finish(ins, value, type_))
        return
    a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
    machine.put(ins.args[0], type_, truncated_quotient(a, np.where(b == 0, 1, b).astype(b.dtype)))


def truncated_quotient(a: Array, b: Array) -> Array:
    if a.dtype.itemsize <= 4:
        return np.trunc(a / b).astype(a.dtype)  # exact: both fit a float64
    quotients = [
        abs(int(x)) // abs(int(y)) * (1 if (x < 0) == (y < 0) else -1)
        for x, y in zip(a, b, strict=True)
    ]
    return np.array(quotients, a.dtype)


@opcode("rem")
def remainder(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
    machine.put(ins.args[0], type_, np.fmod(a, np.where(b == 0, 1, b).astype(b.dtype)))


def extremum(
    machine: Machine, ins: Instruction, on_integers: Binary, ignoring_nan: Binary, with_nan: Binary
) -> None:
    def on_floats(a: Array, b: Array) -> Array:
        value = (with_nan if "NaN" in ins.mods else ignoring_nan)(a, b)
        both_zero = (a == 0) & (b == 0)  # +0 is larger than -0
        join = np.logical_and if ignoring_nan is np.fmax else np.logical_or
        sign = np.where(join(np.signbit(a), np.signbit(b)), -1.0, 1.0).astype(value.dtype)
        return np.where(both_zero, np.copysign(np.zeros_like(value), sign), value)

    if len(ins.args) == 4:  # three sources, from sm_100 on
        a, b, c = float_sources(machine, ins, type_of(ins), 1, 2, 3)
        machine.put(ins.args[0], type_of(ins), on_floats(on_floats(a, b), c))
        return
    binary(machine, ins, on_integers, on_floats)


@opcode("max")
def maximum(machine: Machine, ins: Instruction) -> None:
    extremum(machine, ins, np.maximum, np.fmax, np.maximum)


@opcode("min")
def minimum(machine: Machine, ins: Instruction) -> None:
    extremum(machine, ins, np.minimum, np.fmin, np.minimum)


def change_sign_bit(machine: Machine, ins: Instruction, change: Binary) -> None:
    """neg and abs of floats touch the sign bits alone, of a NaN too."""
    type_ = type_of(ins)
    bits = width(type_)
    element = 16 if "16" in type_ else 32 if type_ == "f32x2" else bits
    signs = sum(1 << (i * element + element - 1) for i in range(bits // element))
    value = change(machine.raw(ins.args[1], bits), UNSIGNED[bits](signs))
    machine.put(ins.args[0], f"b{bits}", value)


@opcode("neg")
def negate(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    if type_[0] == "s":
        machine.put(ins.args[0], type_, -machine.get(ins.args[1], type_))
    else:
        change_sign_bit(machine, ins, np.bitwise_xor)


@opcode("abs")
def absolute(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    if type_[0] == "s":
        machine.put(ins.args[0], type_, np.abs(machine.get(ins.args[1], type_)))
    else:
        change_sign_bit(machine, ins, lambda value, signs: value & ~signs)


@opcode("copysign")
def copysign(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    sign, magnitude = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
    machine.put(ins.args[0], type_, np.copysign(magnitude, sign))


@opcode("sad")
def absolute_difference(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    a, b, c = (machine.get(ins.args[i], type_) for i in (1, 2, 3))
    difference = np.where(a > b, a - b, b - a).astype(integer(type_))
    machine.put(ins.args[0], type_, c + difference)
