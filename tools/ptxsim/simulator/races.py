"""Data races: two threads touch one byte, one of them writes, and nothing orders them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ordering import Ordering, wide
from .parser import Instruction
from .types import Array

if TYPE_CHECKING:
    from .machine import Machine

STRONG = frozenset({"relaxed", "acquire", "release", "volatile"})  # these do not race with atomics
WORD = 4  # bytes: what an atomic's location is counted in
DUPLICATE = "race (several threads write different values to one address in one instruction)"


def first(mask: Array) -> tuple[int, int]:
    """Position of the first true element of a matrix: (access, byte)."""
    row = int(np.flatnonzero(mask.any(1))[0])
    return row, int(np.flatnonzero(mask[row])[0])


def contradictory_store(machine: Machine, key: Array) -> int | None:
    """An address that several threads of this instruction write with different bytes, or None."""
    order = np.argsort(key, kind="stable")
    sorted_key, value = key[order], machine.stored.ravel()[order]
    same = sorted_key[1:] == sorted_key[:-1]
    if same.any():
        machine.stats["same_value_duplicate_stores"] += 1
    different = same & (value[1:] != value[:-1])
    return int(sorted_key[1:][different][0]) if different.any() else None


class SharedLog:
    """The last writer and the last reader of every byte of shared memory, and when they came.

    Threads of different warps are ordered by barriers, lanes of one warp also by warp instructions.
    """

    def __init__(self, blocks: int, nbytes: int) -> None:
        shape = (blocks, nbytes)
        self.writer = np.full(shape, -1, np.int64)
        self.write_epoch = np.zeros(shape, np.int64)
        self.write_warp_epoch = np.zeros(shape, np.int64)
        self.atomic = np.zeros(shape, bool)
        self.reader = np.full(shape, -1, np.int64)
        self.read_epoch = np.zeros(shape, np.int64)
        self.read_warp_epoch = np.zeros(shape, np.int64)
        self.many_readers = np.zeros(shape, bool)

    def check(
        self, machine: Machine, ins: Instruction, threads: Array, at: tuple[Array, Array], kind: str
    ) -> None:
        """Report a race of this access with an earlier one, then note the access.

        Args:
            machine: the machine; its shared memory still holds what was there before a store.
            ins: the instruction.
            threads: the accessing threads.
            at: (block, byte offset) of every byte, shapes (threads, 1) and (threads, bytes).
            kind: load, store or atomic.
        """
        thread, warp = threads[:, None], machine.warp[threads][:, None]
        epoch, warp_epoch = machine.epoch[threads][:, None], machine.warp_epoch[threads][:, None]
        changes = True
        if kind == "store":  # writing what is already there is harmless
            changes = machine.shared.data[at] != machine.stored
        writer = self.writer[at]
        conflict = (writer >= 0) & (writer != thread) & (self.write_epoch[at] == epoch) & changes
        conflict &= (writer // 32 != warp) | (self.write_warp_epoch[at] == warp_epoch)
        if kind == "atomic":
            conflict &= ~self.atomic[at]
        self._report(machine, ins, threads, at, conflict, writer, kind, "write")
        reader = self.reader[at]
        recent = (reader >= 0) & (self.read_epoch[at] == epoch)
        many = self.many_readers[at]
        if kind == "load":
            self._note_read(at, thread, epoch, warp_epoch, recent & (many | (reader != thread)))
            return
        this_step = self.read_warp_epoch[at] == warp_epoch
        other_warp = reader // 32 != warp
        conflict = (reader != thread) & (other_warp | this_step) | many & (this_step | other_warp)
        self._report(machine, ins, threads, at, recent & conflict & changes, reader, kind, "read")
        if kind == "store":
            offset = contradictory_store(machine, self._key(at))
            if offset is not None:
                detail = f"offset {offset % self.writer.shape[1]}"
                machine.fault(f"shared-memory {DUPLICATE}", ins, int(threads[0]), detail)
        self.writer[at] = thread
        self.write_epoch[at] = epoch
        self.write_warp_epoch[at] = warp_epoch
        self.atomic[at] = kind == "atomic"

    def _key(self, at: tuple[Array, Array]) -> Array:
        return (at[0] * self.writer.shape[1] + at[1]).ravel()

    def _note_read(
        self, at: tuple[Array, Array], thread: Array, epoch: Array, warp_epoch: Array, many: Array
    ) -> None:
        self.many_readers[at] = many
        self.reader[at] = thread
        self.read_epoch[at] = epoch
        self.read_warp_epoch[at] = warp_epoch
        # Several threads may read one byte in this very instruction.
        byte = self._key(at)
        byte.sort()
        self.many_readers.reshape(-1)[byte[1:][byte[1:] == byte[:-1]]] = True

    @staticmethod
    def _report(
        machine: Machine,
        ins: Instruction,
        threads: Array,
        at: tuple[Array, Array],
        conflict: Array,
        other: Array,
        kind: str,
        after: str,
    ) -> None:
        if not conflict.any():
            return
        access, byte = first(conflict)
        verb = "read" if kind == "load" else "write"
        detail = (
            f"offset {int(at[1][access, byte])}, "
            f"other thread {int(machine.tid[other[access, byte]])}"
        )
        machine.fault(
            f"shared-memory race ({verb} after {after}, no barrier between)",
            ins,
            int(threads[access]),
            detail,
        )


class GlobalLog:
    """The last writer and the last reader of every byte of global memory over one launch.

    Threads of one block are ordered by barriers; all threads by release and acquire (see ordering.py). Numbers of
    threads are stored plus one: memory of zeros costs nothing until it is touched.
    """

    def __init__(self, nbytes: int, block_threads: int) -> None:
        self.order = Ordering(block_threads)
        self.block_threads = block_threads
        self.writer = np.zeros(nbytes, np.int64)
        self.write_epoch = np.zeros(nbytes, np.int32)
        self.write_step = np.zeros(nbytes, np.int64)
        self.atomic = np.zeros(nbytes, bool)
        self.reader = np.zeros(nbytes, np.int64)
        self.read_epoch = np.zeros(nbytes, np.int32)
        self.read_step = np.zeros(nbytes, np.int64)
        self.many_readers = np.zeros(nbytes, bool)  # readers in several blocks

    def check(
        self, machine: Machine, ins: Instruction, threads: Array, at: Array, kind: str
    ) -> None:
        """Report a race of this access with an earlier one, then note the access.

        Args:
            machine: the machine; its memory still holds what was there before a store.
            ins: the instruction.
            threads: the accessing threads.
            at: heap offset of every byte, shape (threads, bytes).
            kind: load, store or atomic.
        """
        thread, epoch = machine.gtid[threads][:, None], machine.epoch[threads][:, None]
        changes = True
        if kind == "store":  # writing what is already there is harmless
            changes = machine.memory.heap[at] != machine.stored
        writer, is_atomic = self.writer[at] - 1, self.atomic[at]
        if kind == "load" and "nc" in ins.mods and (writer >= 0).any():
            self._report_noncoherent(machine, ins, threads, at, writer)
        conflict = self._unordered(writer, self.write_epoch[at], thread, epoch) & changes
        if kind == "atomic" or STRONG.intersection(ins.mods):
            # Atomics do not race with each other, unless they hold within a block and come from two.
            together = (
                is_atomic if wide(ins.mods) else is_atomic & ~self._blocks_differ(writer, thread)
            )
            conflict &= ~together
        self._report(machine, ins, threads, at, conflict, (writer, self.write_step), kind, "write")
        reader, many = self.reader[at] - 1, self.many_readers[at]
        if kind == "load":
            elsewhere = self._blocks_differ(reader, thread)
            self.many_readers[at] = many | ((reader >= 0) & (reader != thread) & elsewhere)
            self.reader[at], self.read_epoch[at] = thread + 1, epoch
            self.read_step[at] = self.order.step
            return
        conflict = self._unordered(reader, self.read_epoch[at], thread, epoch) & changes
        self._report(machine, ins, threads, at, conflict, (reader, self.read_step), kind, "read")
        if (many & changes).any():
            access, byte = first(many & changes)
            self._fault(machine, ins, threads, at, (access, byte), reader, kind, "read")
        if kind == "atomic" and not wide(ins.mods):
            self._report_narrow_atomics(machine, ins, threads, at)
        if kind == "store":
            offset = contradictory_store(machine, at.ravel())
            if offset is not None:
                where = machine.memory.describe(machine.memory.address(offset))
                machine.fault(f"global-memory {DUPLICATE}", ins, int(threads[0]), where)
        self.note_write(at, thread, epoch, self.order.step)
        self.atomic[at] = kind == "atomic"

    def note_write(self, at: Array, thread: Array, epoch: Array, step: int | Array) -> None:
        self.writer[at], self.write_epoch[at], self.write_step[at] = thread + 1, epoch, step

    def _blocks_differ(self, one: Array, other: Array) -> Array:
        return one // self.block_threads != other // self.block_threads

    def _unordered(self, other: Array, other_epoch: Array, thread: Array, epoch: Array) -> Array:
        """Accesses of another thread with no barrier between; -1 is nobody."""
        apart = self._blocks_differ(other, thread) | (other_epoch == epoch)
        return (other >= 0) & (other != thread) & apart

    def _report(
        self,
        machine: Machine,
        ins: Instruction,
        threads: Array,
        at: Array,
        conflict: Array,
        earlier: tuple[Array, Array],
        kind: str,
        after: str,
    ) -> None:
        """Fault at the first conflict that release and acquire do not order either."""
        if not conflict.any():
            return
        other, steps = earlier
        ordered: dict[tuple[int, int, int, int], bool] = {}
        for access, byte in np.argwhere(conflict):
            thread, offset = int(machine.gtid[threads[access]]), int(at[access, byte])
            location = offset // WORD if self.atomic[offset] else -1
            key = (thread, int(other[access, byte]), int(steps[offset]), location)
            if key not in ordered:
                known = self.order.visible(*key[:3], location if location >= 0 else None)
                ordered[key] = known or self._by_warp_barrier(machine, threads[access], *key[1:3])
            if not ordered[key]:
                self._fault(machine, ins, threads, at, (access, byte), other, kind, after)

    def _by_warp_barrier(self, machine: Machine, thread: int, other: int, step: int) -> bool:
        """Lanes of one warp are ordered by bar.warp.sync too."""
        gtid = int(machine.gtid[thread])
        if other // self.block_threads != gtid // self.block_threads:
            return False
        same_warp = other % self.block_threads // 32 == gtid % self.block_threads // 32
        return same_warp and step < int(machine.warp_barrier_step[thread])

    def _fault(
        self,
        machine: Machine,
        ins: Instruction,
        threads: Array,
        at: Array,
        where: tuple[int, int],
        other: Array,
        kind: str,
        after: str,
    ) -> None:
        access = where[0]
        if after == "write" and self.atomic[at[where]]:
            after = "atomic"
        gtid, memory = int(other[where]), machine.memory
        machine.fault(
            f"global-memory race ({kind} after {after} by another thread)",
            ins,
            int(threads[access]),
            f"{memory.describe(memory.address(int(at[access, 0])))}, other block "
            f"{gtid // self.block_threads} thread {gtid % self.block_threads}",
        )

    def _report_narrow_atomics(
        self, machine: Machine, ins: Instruction, threads: Array, at: Array
    ) -> None:
        """Threads of two blocks on one address in this instruction, which is atomic within a block only."""
        block_on: dict[int, int] = {}
        for thread, offset in zip(threads, at[:, 0], strict=True):
            block = int(machine.gtid[thread]) // self.block_threads
            if block_on.setdefault(int(offset), block) != block:
                machine.fault(
                    "global-memory race (atomics of block scope by two blocks)",
                    ins,
                    int(thread),
                    machine.memory.describe(machine.memory.address(int(offset))),
                )

    @staticmethod
    def _report_noncoherent(
        machine: Machine, ins: Instruction, threads: Array, at: Array, writer: Array
    ) -> None:
        access, _ = first(writer >= 0)
        machine.fault(
            "non-coherent load of memory that this launch writes",
            ins,
            int(threads[access]),
            machine.memory.describe(machine.memory.address(int(at[access, 0]))),
        )
