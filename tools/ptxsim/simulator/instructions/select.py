"""Comparisons, selections, moves."""

from __future__ import annotations

import numpy as np

from ..errors import Unsupported
from ..machine import Machine
from ..parser import Instruction
from ..registry import opcode, type_of, types
from ..types import UNSIGNED, Array, flush_subnormals, is_float, width

ORDERED = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
UNORDERED = {"equ": "eq", "neu": "ne", "ltu": "lt", "leu": "le", "gtu": "gt", "geu": "ge"}
JOIN = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def compare(ins: Instruction, a: Array, b: Array, type_: str) -> Array:
    kind = next(x for x in ins.mods if x in ORDERED or x in UNORDERED or x in ("num", "nan"))
    if not is_float(type_):
        return np.asarray(ORDERED[kind](a, b))
    if "ftz" in ins.mods and type_ == "f32":
        a, b = flush_subnormals(a), flush_subnormals(b)
    nan = np.isnan(a) | np.isnan(b)
    if kind == "num":
        return ~nan
    if kind == "nan":
        return nan
    if kind in UNORDERED:
        return np.asarray(ORDERED[UNORDERED[kind]](a, b) | nan)
    return np.asarray(ORDERED[kind](a, b) & ~nan)


@opcode("setp")
def set_predicate(machine: Machine, ins: Instruction) -> None:
    type_, target = type_of(ins), ins.args[0]
    a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
    found = compare(ins, a, b, type_)
    if type_.endswith("x2"):  # one predicate for each half
        if target[0] != "pair" or len(ins.args) > 3:
            raise Unsupported(ins.text)
        machine.put(target[1], "pred", found[:, 0])
        machine.put(target[2], "pred", found[:, 1])
        return
    opposite = ~found
    if len(ins.args) > 3:
        join = next(JOIN[x] for x in ins.mods if x in JOIN)
        also = machine.predicate(ins.args[3])
        found, opposite = join(found, also), join(opposite, also)
    if target[0] == "pair":
        machine.put(target[1], "pred", found)
        machine.put(target[2], "pred", opposite)
    else:
        machine.put(target, "pred", found)


@opcode("set")
def set_value(machine: Machine, ins: Instruction) -> None:
    to, type_ = types(ins)[-2:]
    if type_.endswith("x2"):
        raise Unsupported(ins.text)
    a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
    found, bits = compare(ins, a, b, type_), width(to)
    ones = UNSIGNED[bits]((1 << bits) - 1)
    value = found.astype(np.float32) if to == "f32" else np.where(found, ones, UNSIGNED[bits](0))
    machine.put(ins.args[0], to, value)


@opcode("selp")
def select(machine: Machine, ins: Instruction) -> None:
    type_ = f"b{width(type_of(ins))}"
    a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
    machine.put(ins.args[0], type_, np.where(machine.predicate(ins.args[3]), a, b))


@opcode("slct")
def select_by_sign(machine: Machine, ins: Instruction) -> None:
    type_, sign_type = types(ins)[-2:]
    bits = width(type_)
    a, b = machine.raw(ins.args[1], bits), machine.raw(ins.args[2], bits)
    chosen = np.where(machine.get(ins.args[3], sign_type) >= 0, a, b)
    machine.put(ins.args[0], f"b{bits}", chosen)


@opcode("mov")
def move(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    bits = width(type_)
    if bits == 128:
        raise Unsupported(ins.text)
    value = machine.get(ins.args[1], "pred" if type_ == "pred" else f"b{bits}").copy()
    machine.put(ins.args[0], "pred" if type_ == "pred" else f"b{bits}", value)
