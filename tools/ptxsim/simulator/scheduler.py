"""Which threads run next, and how they wait for each other.

All threads run in lock step; where they diverge, those with the lowest program counter go first, so that they
meet again behind the branch. A thread waits at a barrier for its block and at a warp instruction for the lanes of
the member mask; when nobody can go on, that is a deadlock.
"""

from __future__ import annotations

import numpy as np

from . import instructions
from .errors import Unsupported
from .machine import Machine, count_runs
from .parser import Instruction
from .registry import OPCODES
from .types import Array

WARP_WIDE = frozenset({"shfl", "redux", "vote", "match"})
# Instructions that decide who runs next; all others run and go on.
DECIDING = WARP_WIDE | {"bra", "ret", "exit", "bar", "barrier", "trap", "brkpt"}
assert instructions.__all__  # importing them has filled OPCODES


def run(machine: Machine) -> None:
    """Run every thread to its end."""
    Scheduler(machine).run()


class Scheduler:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.join_points = set(machine.kernel.labels.values())
        self.steps = 0
        self._selected: Array | None = None  # the mask that machine.active stands for

    def run(self) -> None:
        machine = self.machine
        while True:
            ready = machine.live & ~machine.at_barrier & ~machine.parked
            if not ready.any():
                if not machine.live.any():
                    return
                if not self._release_barriers():
                    self._deadlock()
                continue
            if machine.options.schedule != "lockstep":
                ready = self._one_warp(ready)
            pc = int(machine.pc[ready].min())
            self._straight_line(pc, ready & (machine.pc == pc))

    def _one_warp(self, ready: Array) -> Array:
        """Of every block the first (or last) warp that can go on."""
        blocks = ready.reshape(-1, self.machine.padded_threads)
        warp = np.arange(self.machine.padded_threads) // 32
        if self.machine.options.schedule == "warps":
            chosen = np.where(blocks, warp, len(warp)).min(1)
        else:
            chosen = np.where(blocks, warp, -1).max(1)
        return np.asarray((blocks & (warp == chosen[:, None])).reshape(-1))

    def _straight_line(self, pc: int, group: Array) -> None:
        """Run a group from pc to the next branch, wait or join point."""
        machine, code = self.machine, self.machine.kernel.code
        while True:
            if pc >= len(code):
                machine.live[group] = False
                return
            ins = code[pc]
            self.steps += 1
            if self.steps > machine.options.max_steps:
                thread = int(np.flatnonzero(group)[0])
                machine.fault("step limit (endless loop?)", ins, thread)
            if machine.log is not None:
                machine.log.order.tick()
            following = self._step(ins, pc, group)
            if following is None:
                return
            pc = following
            if pc in self.join_points:
                machine.pc[group] = pc
                return

    def _deadlock(self) -> None:
        machine = self.machine
        thread = int(np.flatnonzero(machine.live)[0])
        waiting = {
            "at bar": int((machine.live & machine.at_barrier).sum()),
            "at warp sync": int((machine.live & machine.parked).sum()),
            "exited": int((~machine.live & machine.exists).sum()),
        }
        kind = "deadlock (barrier or warp-sync partners never arrive)"
        machine.fault(kind, machine.kernel.code[int(machine.pc[thread])], thread, str(waiting))

    def _release_barriers(self) -> bool:
        """Let every block go on whose living threads have all arrived."""
        machine, released = self.machine, False
        for block in np.unique(machine.block[machine.at_barrier]):
            here = machine.block == block
            living = here & machine.live
            if not machine.at_barrier[living].all():
                continue
            if len(np.unique(machine.pc[living])) > 1:
                machine.stats["barrier_from_different_pcs"] += 1
            if (here & ~machine.live & machine.exists).any():
                machine.stats["exited_before_barrier"] += 1
            machine.at_barrier[living] = False
            machine.pc[living] += 1
            machine.epoch[living] += 1
            machine.warp_epoch[living] += 1
            if machine.log is not None:
                number = int(machine.block_id[np.argmax(here)])
                machine.log.order.barrier(number)
            released = True
        return released

    def _step(self, ins: Instruction, pc: int, group: Array) -> int | None:
        """Run one instruction for a group; the next pc, or None where the group may have split or waits."""
        machine = self.machine
        executing = group & self._guard(ins) if ins.pred is not None else group
        if ins.op in DECIDING:
            return self._decide(ins, pc, group, executing)
        if executing is not self._selected:
            machine.select(executing)
            self._selected = executing
        if machine.count:
            self._execute(ins)
        return pc + 1

    def _decide(self, ins: Instruction, pc: int, group: Array, executing: Array) -> int | None:
        """An instruction after which the group may have split or waits."""
        machine = self.machine
        if ins.op == "bra":
            machine.ops["bra"] += 1
            machine.executed[ins.index] += count_runs(machine.warp[group])
            machine.pc[group] = pc + 1
            machine.pc[executing] = machine.kernel.labels[ins.args[0][1]]
            return None
        if ins.op in ("ret", "exit"):
            machine.live[executing] = False
            machine.pc[group] = pc + 1
            return None
        if ins.op in WARP_WIDE or is_warp_barrier(ins):
            return self._warp_instruction(ins, pc, group, executing)
        if ins.op in ("bar", "barrier"):
            self._arrive(ins, pc, group, executing)
            return None
        if executing.any():  # trap, brkpt
            machine.fault("trap", ins, int(np.flatnonzero(executing)[0]))
        return pc + 1

    def _guard(self, ins: Instruction) -> Array:
        assert ins.pred is not None
        name, negated = ins.pred
        value = self.machine.registers.get(name)
        if value is None:
            value = np.zeros(self.machine.threads, bool)
        return ~value if negated else value

    def _execute(self, ins: Instruction) -> None:
        semantics = OPCODES.get(ins.op)
        if semantics is None:
            raise Unsupported(f"opcode: {ins.text}")
        self.machine.tally(ins)
        semantics(self.machine, ins)

    def _arrive(self, ins: Instruction, pc: int, group: Array, executing: Array) -> None:
        machine = self.machine
        if ins.mods[0] not in ("sync", "cta") or {"arrive", "red"} & set(ins.mods):
            raise Unsupported(ins.text)
        machine.pc[group] = pc + 1
        machine.pc[executing] = pc
        machine.at_barrier[executing] = True
        machine.ops["bar.sync"] += count_runs(machine.warp[executing])
        machine.executed[ins.index] += count_runs(machine.warp[executing])

    def _warp_instruction(
        self, ins: Instruction, pc: int, group: Array, executing: Array
    ) -> int | None:
        """shfl, vote, redux, match, bar.warp.sync: every live lane of the member mask must be here."""
        machine = self.machine
        machine.pc[group & ~executing] = pc + 1
        here = np.flatnonzero(executing | (machine.parked & (machine.pc == pc)))
        if not len(here):
            return pc + 1 if ins.pred is None else None
        complete = self._partners_arrived(ins, here)
        going, waiting = here[complete], here[~complete]
        machine.parked[waiting] = True
        machine.pc[waiting] = pc
        if len(going):
            machine.parked[going] = False
            self._set_active(going)
            self._execute(ins)
            machine.warp_epoch[going] += 1
        if len(waiting) or ins.pred is not None or len(going) != int(group.sum()):
            machine.pc[going] = pc + 1
            return None
        return pc + 1

    def _partners_arrived(self, ins: Instruction, here: Array) -> Array:
        """For each thread here, whether its whole warp's member masks are satisfied."""
        machine = self.machine
        self._set_active(here)
        members = machine.raw(ins.args[-1], 32).astype(np.int64)
        warp, lane = machine.warp[here], machine.lane[here].astype(np.int64)
        outside = (members >> lane) & 1 == 0
        if outside.any():
            thread = int(here[np.flatnonzero(outside)[0]])
            machine.fault("executing lane is not in the member mask", ins, thread)
        arrived = np.zeros(machine.warps, np.int64)
        np.bitwise_or.at(arrived, warp, np.int64(1) << lane)
        alive = (machine.live.reshape(-1, 32) << np.arange(32, dtype=np.int64)).sum(1)
        if ins.op not in ("bar", "barrier") and (members & ~alive[warp]).any():
            machine.stats["sync_mask_names_exited_lane"] += 1
        complete = np.ones(machine.warps, bool)
        np.logical_and.at(complete, warp, members & alive[warp] & ~arrived[warp] == 0)
        return np.asarray(complete[warp])

    def _set_active(self, threads: Array) -> None:
        machine = self.machine
        machine.count = len(threads)
        machine.active = slice(None) if machine.count == machine.threads else threads
        machine.active_warps = count_runs(machine.warp[threads])
        self._selected = None


def is_warp_barrier(ins: Instruction) -> bool:
    return ins.op in ("bar", "barrier") and ins.mods[:1] == ["warp"]
