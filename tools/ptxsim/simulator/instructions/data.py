"""Loads, stores, asynchronous copies, addresses, fences, and what has no effect here."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..access import address, element_bytes, locate, parameter_of, value_type
from ..errors import Unsupported
from ..machine import Machine
from ..memory import LOCAL_WINDOW, SHARED_WINDOW
from ..ordering import wide
from ..parser import Instruction
from ..races import WORD
from ..registry import opcode
from ..types import SIGNED, UNSIGNED, Array, width


@opcode("ld", "ldu")
def load(machine: Machine, ins: Instruction) -> None:
    type_, vector = value_type(ins)
    nbytes, bits = width(type_) // 8, width(type_)
    targets = ins.args[0][1] if ins.args[0][0] == "vec" else [ins.args[0]]
    name = parameter_of(machine, ins.args[1])
    if name is not None:
        load_parameter(machine, ins, targets, machine.params[name])
        return
    addresses = address(machine, ins.args[1])
    if "acquire" in ins.mods and wide(ins.mods):
        acquire(machine, addresses)
    place = locate(machine, ins, addresses, nbytes * vector, "load")
    for i, target in enumerate(targets):
        if target[0] == "sink":
            continue
        value = element_bytes(place, i, nbytes).view(UNSIGNED[bits])[:, 0]
        machine.put(target, type_, value.view(SIGNED[bits]) if type_[0] == "s" else value)


def load_parameter(
    machine: Machine, ins: Instruction, targets: list[tuple[object, ...]], raw: bytes
) -> None:
    type_, _ = value_type(ins)
    bits, nbytes, offset = width(type_), width(type_) // 8, ins.args[1][2]
    for i, target in enumerate(targets):
        start = offset + i * nbytes
        value = np.full(
            machine.count, np.frombuffer(raw[start : start + nbytes], UNSIGNED[bits])[0]
        )
        machine.put(target, type_, value.view(SIGNED[bits]) if type_[0] == "s" else value)


def acquire(machine: Machine, addresses: Array) -> None:
    if machine.log is None:
        return
    offsets = machine.memory.offsets(addresses)
    for thread, offset in zip(machine.active_threads, offsets, strict=True):
        machine.log.order.load(int(machine.gtid[thread]), int(offset) // WORD)


@opcode("st")
def store(machine: Machine, ins: Instruction) -> None:
    type_, vector = value_type(ins)
    bits, nbytes = width(type_), width(type_) // 8
    addresses = address(machine, ins.args[0])
    is_vector = ins.args[1][0] == "vec" and vector > 1
    sources = ins.args[1][1] if is_vector else [ins.args[1]]
    pieces = [np.ascontiguousarray(machine.get(s, f"b{bits}")) for s in sources]
    machine.stored = np.concatenate([p.view(np.uint8).reshape(-1, nbytes) for p in pieces], 1)
    place = locate(machine, ins, addresses, nbytes * vector, "store")
    place.data[place.bytes(0, nbytes * vector)] = machine.stored
    if "release" in ins.mods and wide(ins.mods) and machine.log is not None:
        for thread, offset in zip(machine.active_threads, place.offset, strict=True):
            words = range(int(offset) // WORD, max(int(offset + nbytes), 1) // WORD + 1)
            machine.log.order.store(int(machine.gtid[thread]), words)


@opcode("cp")
def asynchronous_copy(machine: Machine, ins: Instruction) -> None:
    """cp.async from global to shared memory: here it completes at once."""
    if ins.mods[0] != "async" or "bulk" in ins.mods:
        raise Unsupported(ins.text)
    if {"commit_group", "wait_group", "wait_all"} & set(ins.mods):
        return
    nbytes = ins.args[2][1]
    source, target = address(machine, ins.args[1]), address(machine, ins.args[0])
    given = np.full(machine.count, nbytes)
    if len(ins.args) > 3:  # fewer bytes may be read; the rest is filled with zeros
        given = machine.raw(ins.args[3], 32).astype(np.int64)
    data, reads = np.zeros((machine.count, nbytes), np.uint8), given > 0
    if reads.any():
        mask = np.zeros(machine.threads, bool)
        mask[machine.active_threads[reads]] = True
        from_global = dataclasses.replace(ins, mods=["global"])
        with machine.only(mask):
            place = locate(machine, from_global, source[reads], nbytes, "load")
            data[reads] = element_bytes(place, 0, nbytes)
    data[np.arange(nbytes)[None] >= given[:, None]] = 0
    machine.stored = data
    to_shared = dataclasses.replace(ins, mods=["shared"])
    place = locate(machine, to_shared, target, nbytes, "store")
    place.data[place.bytes(0, nbytes)] = data


@opcode("cvta")
def convert_address(machine: Machine, ins: Instruction) -> None:
    """Between a window's addresses and generic ones."""
    value = machine.raw(ins.args[1], 64)
    is_shared, is_local = "shared" in ins.mods, "local" in ins.mods
    base = np.uint64(SHARED_WINDOW if is_shared else LOCAL_WINDOW if is_local else 0)
    machine.put(ins.args[0], "b64", value - base if "to" in ins.mods else value + base)


@opcode("membar", "fence")
def fence(machine: Machine, ins: Instruction) -> None:
    if machine.log is None or not wide(ins.mods) or "proxy" in ins.text:
        return
    for thread in machine.active_threads:
        machine.log.order.fence(int(machine.gtid[thread]))


@opcode("prefetch", "prefetchu", "griddepcontrol", "nanosleep", "discard", "applypriority")
def nothing(machine: Machine, ins: Instruction) -> None:
    """Hints: they change no value."""


@opcode("createpolicy")
def create_policy(machine: Machine, ins: Instruction) -> None:
    machine.put(ins.args[0], "b64", np.zeros(machine.count, np.uint64))


@opcode("call")
def call(machine: Machine, ins: Instruction) -> None:
    if "__assertfail" in ins.text:
        machine.fault("device assert", ins, int(machine.active_threads[0]))
    raise Unsupported(ins.text)
