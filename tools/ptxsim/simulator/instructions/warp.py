"""Instructions in which the lanes of a warp exchange values. The scheduler brings the lanes together first."""

from __future__ import annotations

import numpy as np

from ..machine import Machine
from ..parser import Instruction
from ..registry import opcode
from ..types import Array


@opcode("bar", "barrier")
def warp_barrier(machine: Machine, ins: Instruction) -> None:
    """bar.warp.sync: lanes of one warp are ordered from here on."""
    if machine.log is not None:
        machine.warp_barrier_step[machine.active] = machine.log.order.tick()


@opcode("shfl")
def shuffle(machine: Machine, ins: Instruction) -> None:
    """Every lane reads the register of another, within segments that operand c gives."""
    target, lane, warp = ins.args[0], machine.lane[machine.active], machine.warp[machine.active]
    value = machine.raw(ins.args[1], 32)
    by = machine.raw(ins.args[2], 32).astype(np.int64) & 31
    control = machine.raw(ins.args[3], 32).astype(np.int64)
    clamp, segment = control & 31, (control >> 8) & 31
    last, first = (lane & segment) | (clamp & ~segment), lane & segment
    mode = ins.mods[1]
    if mode == "up":
        source = lane - by
        inside = source >= last
    else:
        source = {"bfly": lane ^ by, "down": lane + by, "idx": first | (by & ~segment)}[mode]
        inside = source <= last
    source = np.where(inside, source, lane)
    if not by_lane(machine, np.ones(machine.count, bool), False)[warp, source].all():
        machine.stats["shfl_from_inactive_lane"] += 1
    moved = by_lane(machine, value, 0)[warp, source]
    if target[0] == "pair":
        machine.put(target[1], "b32", moved)
        machine.put(target[2], "pred", inside)
    else:
        machine.put(target, "b32", moved)


def by_lane(machine: Machine, values: Array, absent: int | bool) -> Array:
    """The active threads' values as a matrix (warp, lane)."""
    every = np.full(machine.threads, absent, values.dtype)
    every[machine.active] = values
    return every.reshape(-1, 32)


REDUCTIONS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@opcode("redux")
def reduce_warp(machine: Machine, ins: Instruction) -> None:
    kind, type_ = ins.mods[1], ins.mods[-1]
    value, function = machine.get(ins.args[1], type_), REDUCTIONS[kind]
    if type_ == "f32" and "NaN" not in ins.mods:
        function = np.fmin if kind == "min" else np.fmax
    neutral = np.zeros(1, value.dtype)
    if value.dtype.kind == "f":
        neutral[:] = np.inf if kind == "min" else -np.inf
    elif kind == "and":
        neutral = ~neutral
    elif kind in ("min", "max"):
        limits = np.iinfo(value.dtype)
        neutral[:] = limits.max if kind == "min" else limits.min
    every = np.full(machine.threads, neutral[0], value.dtype)
    every[machine.active] = value
    reduced = function.reduce(every.reshape(-1, 32), 1)
    machine.put(ins.args[0], type_, reduced[machine.warp[machine.active]].astype(value.dtype))


@opcode("vote")
def vote(machine: Machine, ins: Instruction) -> None:
    mode, warp = ins.mods[1], machine.warp[machine.active]
    yes = machine.predicate(ins.args[1])
    if mode == "ballot":
        machine.put(ins.args[0], "b32", lane_bits(machine, yes)[warp])
        return
    agreeing, present = np.zeros(machine.warps, np.int64), np.zeros(machine.warps, np.int64)
    np.add.at(agreeing, warp, yes)
    np.add.at(present, warp, 1)
    found = {
        "any": agreeing > 0,
        "all": agreeing == present,
        "uni": (agreeing == 0) | (agreeing == present),
    }[mode]
    machine.put(ins.args[0], "pred", found[warp])


def lane_bits(machine: Machine, yes: Array) -> Array:
    """One word per warp with the bits of the lanes that say yes."""
    bits = yes.astype(np.uint32) << machine.lane[machine.active].astype(np.uint32)
    words = np.zeros(machine.warps, np.uint32)
    np.bitwise_or.at(words, machine.warp[machine.active], bits)
    return words


@opcode("activemask")
def active_mask(machine: Machine, ins: Instruction) -> None:
    words = lane_bits(machine, np.ones(machine.count, bool))
    machine.put(ins.args[0], "b32", words[machine.warp[machine.active]])


@opcode("elect")
def elect(machine: Machine, ins: Instruction) -> None:
    """The lowest lane is elected."""
    warp, lane = machine.warp[machine.active], machine.lane[machine.active]
    lowest = np.full(machine.warps, 32)
    np.minimum.at(lowest, warp, lane)
    machine.put(ins.args[0][1], "b32", lowest[warp].astype(np.uint32))
    machine.put(ins.args[0][2], "pred", lowest[warp] == lane)
