"""cvt: between floats, between integers, and between the two."""

from __future__ import annotations

import numpy as np

from ..machine import Machine
from ..parser import Instruction
from ..registry import opcode, types
from ..types import FLOAT, Array, flush_subnormals, integer, is_float, width
from .arithmetic import finish

TO_INTEGRAL = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@opcode("cvt")
def convert(machine: Machine, ins: Instruction) -> None:
    to, from_ = types(ins)[-2:]
    if to in ("bf16x2", "f16x2") and from_ == "f32":
        pack_two(machine, ins, to)
        return
    value = machine.get(ins.args[1], from_)
    if "ftz" in ins.mods and from_ == "f32":
        value = flush_subnormals(value)
    if is_float(from_) and is_float(to):
        machine.put(ins.args[0], to, finish(ins, between_floats(ins, value, to), to))
    elif is_float(from_):
        machine.put(ins.args[0], to, float_to_integer(ins, value, to))
    elif is_float(to):
        machine.put(ins.args[0], to, integer_to_float(value, to, from_))
    else:
        signed = to if to[0] == "s" else f"b{width(to)}"
        machine.put(ins.args[0], signed, between_integers(ins, value, to))


def pack_two(machine: Machine, ins: Instruction, to: str) -> None:
    """The first source becomes the upper half."""
    high, low = machine.get(ins.args[1], "f32"), machine.get(ins.args[2], "f32")
    value = np.stack([low, high], 1)
    if "relu" in ins.mods:
        value = np.maximum(value, 0)
    machine.put(ins.args[0], to, value.astype(np.float16) if to == "f16x2" else value)


def between_floats(ins: Instruction, value: Array, to: str) -> Array:
    integral = next((TO_INTEGRAL[x] for x in ins.mods if x in TO_INTEGRAL), None)
    if integral:
        value = integral(value)
    if to == "bf16" and "rz" in ins.mods:
        bits = np.ascontiguousarray(value, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
        value = bits.view(np.float32)
    return value.astype(np.float32 if to == "bf16" else FLOAT[width(to)])


def float_to_integer(ins: Instruction, value: Array, to: str) -> Array:
    """Out of range saturates, NaN becomes 0."""
    limits = np.iinfo(integer(to))
    integral = next((TO_INTEGRAL[x] for x in ins.mods if x in TO_INTEGRAL), np.trunc)
    whole = integral(value.astype(np.float64))
    whole = np.where(np.isnan(whole), 0, np.clip(whole, float(limits.min), float(limits.max)))
    # float(2**63 - 1) is 2**63: one too many for the integer.
    return np.array([min(int(x), int(limits.max)) for x in whole], integer(to))


def integer_to_float(value: Array, to: str, from_: str) -> Array:
    if to == "bf16":
        return value.astype(np.float32)
    if to == "f32" and width(from_) <= 32:
        return value.astype(np.float64).astype(np.float32)
    return value.astype(FLOAT[width(to)])


def between_integers(ins: Instruction, value: Array, to: str) -> Array:
    if "sat" in ins.mods:
        limits = np.iinfo(integer(to))
        value = np.clip(value.astype(object), limits.min, limits.max)
        value = value.astype(np.int64 if to[0] == "s" else np.uint64)
    return value.astype(integer(to))
