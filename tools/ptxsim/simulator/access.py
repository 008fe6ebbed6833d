"""Addresses: their space, the checks that every access passes, and the traffic it causes."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from .errors import Unsupported
from .machine import Machine, count_runs, run_starts
from .memory import (
    INITIALISED,
    LOCAL_WINDOW,
    MAPPED,
    PARAMETER_WINDOW,
    READ_ONLY,
    SHARED_WINDOW,
)
from .parser import Instruction, Operand
from .types import TYPES, Array

SECTOR = 32  # bytes: what DRAM and L2 move at once
BANKS, BANK_BYTES = 32, 4
SPACES = ("global", "shared", "local", "const", "param")


class Place(NamedTuple):
    """Where an access goes: a row of ``data`` (None: data has no rows) and a byte offset, per active thread."""

    data: Array
    row: Array | None
    offset: Array

    def bytes(self, start: int, count: int) -> tuple[Array, ...]:
        """The index of some bytes of every thread, shape (threads, count)."""
        column = self.offset[:, None] + np.arange(start, start + count)
        return (column,) if self.row is None else (self.row[:, None], column)


def value_type(ins: Instruction) -> tuple[str, int]:
    """Element type and vector length: ``ld.v4.f32`` has (f32, 4)."""
    vector = next((int(x[1:]) for x in ins.mods if re.fullmatch(r"v[248]", x)), 1)
    return [x for x in ins.mods if x in TYPES][-1], vector


def parameter_of(machine: Machine, operand: Operand) -> str | None:
    """The kernel parameter that an address operand names, if it names one."""
    name = str(operand[1])
    is_register = name in machine.kernel.regs or name in machine.special
    return name if not is_register and name in machine.params else None


def address(machine: Machine, operand: Operand) -> Array:
    _, name, offset = operand
    if name in machine.kernel.regs or name in machine.special:
        base = machine.raw(("reg", name), 64)
    else:
        base = np.full(machine.count, machine.symbol(name), np.uint64)
    return base.astype(np.int64) + offset


def locate(machine: Machine, ins: Instruction, addresses: Array, nbytes: int, kind: str) -> Place:
    """Check an access of the active threads, count it, and say where it goes. ``kind``: load, store, atomic."""
    space = next(
        (s for s in SPACES if any(x == s or x.startswith(s + "::") for x in ins.mods)), None
    )
    if space is None:  # a generic address: the window says
        if (addresses >= PARAMETER_WINDOW).all():
            space = "param"
        elif (addresses >= LOCAL_WINDOW).all():
            space, addresses = "local", addresses - LOCAL_WINDOW
        elif (addresses >= SHARED_WINDOW).all():
            space, addresses = "shared", addresses - SHARED_WINDOW
        else:
            space = "global"
    misaligned = addresses % nbytes != 0
    if misaligned.any():
        i = int(np.flatnonzero(misaligned)[0])
        near = " " + machine.memory.describe(int(addresses[i])) if space == "global" else ""
        detail = f"0x{int(addresses[i]):x} not {nbytes}-byte aligned{near}"
        machine.fault("misaligned address", ins, int(machine.active_threads[i]), detail)
    if space in ("global", "const"):
        return global_place(machine, ins, addresses, nbytes, kind)
    if space == "shared":
        return shared_place(machine, ins, addresses, nbytes, kind)
    if space == "param" and kind == "load":
        return parameter_place(machine, ins, addresses - PARAMETER_WINDOW, nbytes)
    if space == "local":
        return local_place(machine, ins, addresses, nbytes, kind)
    raise Unsupported(f"space {space}: {ins.text}")


def global_place(
    machine: Machine, ins: Instruction, addresses: Array, nbytes: int, kind: str
) -> Place:
    memory, threads = machine.memory, machine.active_threads
    offset, flags = memory.offsets(addresses), machine.memory.flags
    outside = (offset < 0) | (offset + nbytes > len(flags))
    inside = np.where(outside, 0, offset)
    last = np.minimum(inside + nbytes - 1, len(flags) - 1)
    bad = outside | (flags[inside] & MAPPED == 0) | (flags[last] & MAPPED == 0)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        detail = (
            f"{nbytes} bytes at {memory.describe(int(addresses[i]))}; {int(bad.sum())} thread(s)"
        )
        machine.fault(f"out-of-bounds global {kind}", ins, int(threads[i]), detail)
    at = offset[:, None] + np.arange(nbytes)
    if kind == "load" and machine.options.initcheck:
        unset = (flags[at] & INITIALISED == 0).any(1)
        if unset.any():
            i = int(np.flatnonzero(unset)[0])
            where = memory.describe(int(addresses[i]))
            machine.fault("read of uninitialised global memory", ins, int(threads[i]), where)
    if kind != "load":
        fixed = flags[inside] & READ_ONLY != 0
        if fixed.any():
            i = int(np.flatnonzero(fixed)[0])
            where = memory.describe(int(addresses[i]))
            machine.fault("write to a read-only buffer", ins, int(threads[i]), where)
        flags[at] |= INITIALISED
    count_traffic(machine, offset, nbytes, kind)
    if machine.log is not None:
        machine.log.check(machine, ins, threads, at, kind)
    return Place(memory.heap, None, offset)


def count_traffic(machine: Machine, offset: Array, nbytes: int, kind: str) -> None:
    """Bytes asked for, and the different sectors of each warp: what the memory system has to move."""
    stats, warp = machine.stats, machine.warp[machine.active] * (1 << 40)
    touched = np.concatenate([offset // SECTOR + warp, (offset + nbytes - 1) // SECTOR + warp])
    touched.sort()
    stats[f"global_{kind}_sectors"] += count_runs(touched)
    stats[f"global_{kind}_bytes"] += len(offset) * nbytes
    stats[f"global_{kind}_warp_instrs"] += machine.active_warps
    stats[f"global_{kind}_{nbytes * 8}b_threads"] += len(offset)


def shared_place(
    machine: Machine, ins: Instruction, offset: Array, nbytes: int, kind: str
) -> Place:
    shared, threads = machine.shared, machine.active_threads
    bad = (offset < 0) | (offset + nbytes > shared.size)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        detail = f"offset {int(offset[i])} of {shared.size}"
        machine.fault(f"out-of-bounds shared {kind}", ins, int(threads[i]), detail)
    place = Place(shared.data, machine.block[machine.active], offset)
    block, column = place.bytes(0, nbytes)
    if kind == "load" and machine.options.initcheck:
        unset = (~shared.initialised[block, column]).any(1)
        if unset.any():
            i = int(np.flatnonzero(unset)[0])
            detail = f"offset {int(offset[i])}"
            machine.fault("read of uninitialised shared memory", ins, int(threads[i]), detail)
    if kind != "load":
        shared.initialised[block, column] = True
    machine.stats["shared_wavefronts"] += wavefronts(machine, offset, nbytes)
    machine.stats[f"shared_{kind}_warp_instrs"] += machine.active_warps
    if machine.options.races:
        shared.log.check(machine, ins, threads, (block, column), kind)
    return place


def wavefronts(machine: Machine, offset: Array, nbytes: int) -> int:
    """Passes through shared memory: per warp, the most different words in one bank; wide accesses go in parts."""
    word = offset // BANK_BYTES
    access = ((machine.warp[machine.active] * BANKS + word % BANKS) << 32) | word
    access.sort()
    bank = access[run_starts(access)] >> 32  # of every different word
    first = run_starts(bank)
    different = np.append(first[1:], len(bank)) - first
    worst = np.zeros(machine.warps, np.int64)
    np.maximum.at(worst, bank[first] // BANKS, different)
    return int(worst.sum()) * max(1, nbytes // BANK_BYTES)


def local_place(machine: Machine, ins: Instruction, offset: Array, nbytes: int, kind: str) -> Place:
    threads = machine.active_threads
    bad = (offset < 0) | (offset + nbytes > machine.local.size)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        machine.fault(f"out-of-bounds local {kind}", ins, int(threads[i]))
    machine.stats[f"local_{kind}_bytes"] += len(offset) * nbytes
    return Place(machine.local.data, threads, offset)


def parameter_place(machine: Machine, ins: Instruction, offset: Array, nbytes: int) -> Place:
    """A kernel parameter by an address in a register."""
    bad = (offset < 0) | (offset + nbytes > len(machine.param_space))
    if bad.any():
        thread = int(machine.active_threads[np.flatnonzero(bad)[0]])
        machine.fault("out-of-bounds parameter load", ins, thread)
    return Place(machine.param_space, None, offset)


def element_bytes(place: Place, element: int, nbytes: int) -> Array:
    """Element ``element`` of every thread's access, as raw bytes (threads, nbytes)."""
    return np.ascontiguousarray(place.data[place.bytes(element * nbytes, nbytes)])
