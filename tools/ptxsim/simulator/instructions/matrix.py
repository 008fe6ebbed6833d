"""ldmatrix and stmatrix: a warp moves 8 x 8 matrices of 16-bit elements between shared memory and registers.

Lane 8 i + r gives the address of row r of matrix i. Register i of lane t holds elements 2 (t mod 4) and the next
of row t div 4; with .trans, of column t div 4. A row counts as accessed by the lane that gives its address.
"""

from __future__ import annotations

import numpy as np

from ..access import address, element_bytes, locate
from ..errors import Unsupported
from ..machine import Machine
from ..parser import Instruction
from ..registry import opcode, type_of
from ..types import Array

ROW_BYTES = 16
LANES = np.arange(32)
ROW, COLUMN = LANES // 4, 2 * (LANES % 4)


def matrices(machine: Machine, ins: Instruction) -> int:
    """How many; whole warps must take part."""
    if "m8n8" not in ins.mods or type_of(ins) != "b16":
        raise Unsupported(ins.text)
    if machine.count != 32 * machine.active_warps:
        machine.fault("part of a warp at a warp-wide instruction", ins, machine.active_threads[0])
    return next(int(x[1:]) for x in ins.mods if x in ("x1", "x2", "x4"))


def addressing(machine: Machine, count: int) -> Array:
    """The active threads whose addresses count, as a mask over all threads."""
    mask = np.zeros(machine.threads, bool)
    mask[machine.active] = machine.lane[machine.active] < 8 * count
    return mask


def fragment(elements: Array, trans: bool) -> Array:
    """(warps, 8, 8) matrices to the 32-bit register of each lane, (warps, 32)."""
    if trans:
        elements = elements.transpose(0, 2, 1)
    pairs = np.stack([elements[:, ROW, COLUMN], elements[:, ROW, COLUMN + 1]], 2)
    return np.ascontiguousarray(pairs).view(np.uint32)[:, :, 0]


def unfragment(registers: Array, trans: bool) -> Array:
    """The inverse: (warps, 32) registers to (warps, 8, 8) matrices."""
    pairs = np.ascontiguousarray(registers).view(np.uint16).reshape(-1, 32, 2)
    elements = np.zeros((len(pairs), 8, 8), np.uint16)
    elements[:, ROW, COLUMN], elements[:, ROW, COLUMN + 1] = pairs[:, :, 0], pairs[:, :, 1]
    return elements.transpose(0, 2, 1) if trans else elements


@opcode("ldmatrix")
def load_matrices(machine: Machine, ins: Instruction) -> None:
    count = matrices(machine, ins)
    mask = addressing(machine, count)
    addresses = address(machine, ins.args[1])[mask[machine.active]]
    with machine.only(mask):
        place = locate(machine, ins, addresses, ROW_BYTES, "load")
        rows = element_bytes(place, 0, ROW_BYTES).view(np.uint16)
    elements = rows.reshape(-1, count, 8, 8)
    for i, target in enumerate(ins.args[0][1]):
        value = fragment(elements[:, i], "trans" in ins.mods)
        machine.put(target, "b32", value.reshape(-1))


@opcode("stmatrix")
def store_matrices(machine: Machine, ins: Instruction) -> None:
    count = matrices(machine, ins)
    mask = addressing(machine, count)
    addresses = address(machine, ins.args[0])[mask[machine.active]]
    sources = [machine.raw(source, 32).reshape(-1, 32) for source in ins.args[1][1]]
    elements = np.stack([unfragment(s, "trans" in ins.mods) for s in sources], 1)
    rows = np.ascontiguousarray(elements).view(np.uint8).reshape(-1, ROW_BYTES)
    with machine.only(mask):
        machine.stored = rows
        place = locate(machine, ins, addresses, ROW_BYTES, "store")
        place.data[place.bytes(0, ROW_BYTES)] = rows
