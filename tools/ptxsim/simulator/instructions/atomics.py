"""atom and red: one lane after the other, in a random order, as on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..access import Place, address, locate, value_type
from ..machine import Machine
from ..ordering import wide
from ..parser import Instruction
from ..races import WORD
from ..registry import opcode
from ..types import UNSIGNED, Array, bf16_to_f32, f32_to_bf16, is_float, width

# What an atomic leaves behind: of the value in memory, the operand, and cas's second operand.
Update = Callable[[Any, Any, Any], Any]
INTEGER_UPDATES: dict[str, Update] = {
    "add": lambda old, x, _: old + x,
    "min": lambda old, x, _: min(old, x),
    "max": lambda old, x, _: max(old, x),
    "and": lambda old, x, _: old & x,
    "or": lambda old, x, _: old | x,
    "xor": lambda old, x, _: old ^ x,
    "exch": lambda old, x, _: x,
    "cas": lambda old, x, new: new if old == x else old,
    "inc": lambda old, x, _: 0 if old >= x else old + 1,
    "dec": lambda old, x, _: x if old == 0 or old > x else old - 1,
}
FLOAT_UPDATES: dict[str, Update] = {
    "add": lambda old, x, _: old + x,
    "min": lambda old, x, _: np.fmin(old, x),
    "max": lambda old, x, _: np.fmax(old, x),
    "exch": lambda old, x, _: x,
    "cas": lambda old, x, new: new if old == x else old,
}


@opcode("atom", "red")
def atomic(machine: Machine, ins: Instruction) -> None:
    type_, vector = value_type(ins)
    bits, nbytes = width(type_), width(type_) // 8
    operands = ins.args if ins.op == "red" else ins.args[1:]
    updates = FLOAT_UPDATES if is_float(type_) else INTEGER_UPDATES
    kind = next(x for x in ins.mods if x in INTEGER_UPDATES)
    place = locate(machine, ins, address(machine, operands[0]), nbytes * vector, "atomic")
    is_vector = operands[1][0] == "vec" and vector > 1
    sources = operands[1][1] if is_vector else [operands[1]]
    values = [machine.get(source, type_) for source in sources]
    swap = machine.get(operands[2], type_) if kind == "cas" else None
    before = [np.zeros(machine.count, UNSIGNED[bits]) for _ in sources]
    order = machine.rng.permutation(machine.count)
    for lane in order:
        for j, operand in enumerate(values):
            cell = memory_cell(place, lane, j, nbytes)
            before[j][lane] = cell.copy().view(UNSIGNED[bits])[0]
            new = None if swap is None else swap[lane]
            cell[:] = updated(cell, type_, updates[kind], operand[lane], new)
    machine.stats["atomic_lanes"] += machine.count
    note_order(machine, ins, place, order, nbytes * vector)
    if ins.op == "atom":
        targets = ins.args[0][1] if ins.args[0][0] == "vec" else [ins.args[0]]
        for target, old in zip(targets, before, strict=False):
            machine.put(target, f"b{bits}", old)


def memory_cell(place: Place, lane: int, element: int, nbytes: int) -> Array:
    start = place.offset[lane] + element * nbytes
    row = place.data if place.row is None else place.data[place.row[lane]]
    cell: Array = row[start : start + nbytes]
    return cell


def updated(cell: Array, type_: str, update: Update, operand: Any, new: Any) -> Array:
    """The bytes of a cell after one lane's turn."""
    raw = cell.copy()
    if type_ in ("bf16", "bf16x2"):
        old = bf16_to_f32(raw.view(np.uint16))
        value = f32_to_bf16(update(old, np.atleast_1d(operand).astype(old.dtype), new))
    elif type_ == "f16x2":
        old = raw.view(np.float16)
        value = update(old, np.atleast_1d(operand).astype(old.dtype), new).astype(np.float16)
    else:
        dtype = np.asarray(operand).dtype
        value = np.array([update(raw.view(dtype)[0], operand, new)]).astype(dtype)
    return np.ascontiguousarray(value).view(np.uint8)


def note_order(machine: Machine, ins: Instruction, place: Place, order: Array, nbytes: int) -> None:
    """Tell the log, in the order of execution, what each lane released and acquired."""
    log = machine.log
    if log is None or place.row is not None:
        return
    effective = wide(ins.mods)
    acquires = effective and ins.op == "atom" and bool({"acquire", "acq_rel"} & set(ins.mods))
    releases = effective and bool({"release", "acq_rel"} & set(ins.mods))
    threads = machine.active_threads[order]
    for thread, offset in zip(threads, place.offset[order], strict=True):
        gtid, first = int(machine.gtid[thread]), int(offset) // WORD
        words = range(first, first + max(1, nbytes // WORD))
        step = log.order.step
        if effective:
            step = log.order.atomic(gtid, words, acquire=acquires, release=releases)
        at = offset + np.arange(nbytes)
        log.note_write(at, machine.gtid[thread], machine.epoch[thread], step)
