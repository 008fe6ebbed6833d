"""Logic, shifts, bit fields, permutations of bytes, counts of bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import Unsupported
from ..machine import Machine
from ..parser import Instruction
from ..registry import OPCODES, Semantics, opcode, type_of
from ..types import UNSIGNED, Array, width


def logic(function: Callable[[Array, Array], Array]) -> Semantics:
    def semantics(machine: Machine, ins: Instruction) -> None:
        type_ = type_of(ins)
        a, b = machine.get(ins.args[1], type_), machine.get(ins.args[2], type_)
        machine.put(ins.args[0], type_, function(a, b))

    return semantics


OPCODES.update(
    {"and": logic(np.bitwise_and), "or": logic(np.bitwise_or), "xor": logic(np.bitwise_xor)}
)


@opcode("not")
def invert(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    machine.put(ins.args[0], type_, ~machine.get(ins.args[1], type_))


@opcode("lop3")
def any_logic(machine: Machine, ins: Instruction) -> None:
    """Logic of three inputs; bit i of the table is the result where (a, b, c) are the bits of i."""
    a, b, c = (machine.raw(ins.args[i], 32) for i in (1, 2, 3))
    table, value = ins.args[4][1], np.zeros(machine.count, np.uint32)
    for i in range(8):
        if table >> i & 1:
            value |= (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    machine.put(ins.args[0], "b32", value)


@opcode("shl", "shr")
def shift(machine: Machine, ins: Instruction) -> None:
    """A shift by the width or more gives zeros, or copies of the sign."""
    type_ = type_of(ins)
    value, by = machine.get(ins.args[1], type_), machine.raw(ins.args[2], 32)
    beyond = by >= width(type_)
    by = np.where(beyond, 0, by).astype(value.dtype)
    if ins.op == "shl":
        shifted, rest = value << by, np.zeros_like(value)
    else:
        negative = (value < 0) if type_[0] == "s" else np.zeros(machine.count, bool)
        shifted, rest = value >> by, np.where(negative, -1, 0).astype(value.dtype)
    machine.put(ins.args[0], type_, np.where(beyond, rest, shifted))


@opcode("shf")
def funnel_shift(machine: Machine, ins: Instruction) -> None:
    low, high, by = (machine.raw(ins.args[i], 32).astype(np.uint64) for i in (1, 2, 3))
    by = by & np.uint64(31) if "wrap" in ins.mods else np.minimum(by, np.uint64(32))
    both = (high << np.uint64(32)) | low
    shifted = (both << by) >> np.uint64(32) if "l" in ins.mods else both >> by
    machine.put(ins.args[0], "b32", shifted.astype(np.uint32))


@opcode("bfe")
def extract_field(machine: Machine, ins: Instruction) -> None:
    type_ = type_of(ins)
    bits, signed = width(type_), type_[0] == "s"
    values = machine.raw(ins.args[1], bits)
    starts, lengths = machine.raw(ins.args[2], 32) & 0xFF, machine.raw(ins.args[3], 32) & 0xFF
    fields = [
        field(int(v), int(s), int(n), bits, signed)
        for v, s, n in zip(values, starts, lengths, strict=True)
    ]
    machine.put(ins.args[0], f"b{bits}", np.array(fields, UNSIGNED[bits]))


def field(value: int, start: int, length: int, bits: int, signed: bool) -> int:
    if length == 0:
        return 0
    found = (value >> start) & ((1 << length) - 1) if start < bits else 0
    every = (1 << bits) - 1
    if signed and value >> min(start + length - 1, bits - 1) & 1:
        inside = min(length, max(bits - start, 0))
        found |= every & ~((1 << inside) - 1)
    return found & every


@opcode("bfi")
def insert_field(machine: Machine, ins: Instruction) -> None:
    bits = width(type_of(ins))
    sources, targets = machine.raw(ins.args[1], bits), machine.raw(ins.args[2], bits)
    starts, lengths = machine.raw(ins.args[3], 32) & 0xFF, machine.raw(ins.args[4], 32) & 0xFF
    merged = []
    for x, y, s, n in zip(sources, targets, starts, lengths, strict=True):
        mask = (((1 << int(n)) - 1) << int(s)) & ((1 << bits) - 1)
        merged.append((int(y) & ~mask) | ((int(x) << int(s)) & mask))
    machine.put(ins.args[0], f"b{bits}", np.array(merged, UNSIGNED[bits]))


@opcode("prmt")
def permute_bytes(machine: Machine, ins: Instruction) -> None:
    """Each nibble of c picks one of the eight bytes of (b, a), or its sign eight times."""
    if any(mode in ins.mods for mode in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")):
        raise Unsupported(ins.text)
    a, b, c = (machine.raw(ins.args[i], 32) for i in (1, 2, 3))
    both = (b.astype(np.uint64) << np.uint64(32)) | a
    value = np.zeros(machine.count, np.uint32)
    for i in range(4):
        pick = (c >> np.uint32(4 * i)) & 15
        by = (pick & 7).astype(np.uint64) * np.uint64(8)
        byte = ((both >> by) & np.uint64(255)).astype(np.uint32)
        sign = np.where(byte & 0x80, 255, 0).astype(np.uint32)
        value |= np.where(pick & 8, sign, byte) << np.uint32(8 * i)
    machine.put(ins.args[0], "b32", value)


def per_value(function: Callable[[int, int], int]) -> Semantics:
    def semantics(machine: Machine, ins: Instruction) -> None:
        bits = width(type_of(ins))
        values = [function(int(x), bits) for x in machine.raw(ins.args[1], bits)]
        type_ = f"b{bits}" if ins.op == "brev" else "u32"
        machine.put(ins.args[0], type_, np.array(values, UNSIGNED[width(type_)]))

    return semantics


OPCODES.update(
    {
        "popc": per_value(lambda x, bits: x.bit_count()),
        "clz": per_value(lambda x, bits: bits - x.bit_length()),
        "brev": per_value(lambda x, bits: int(format(x, f"0{bits}b")[::-1], 2)),
    }
)
