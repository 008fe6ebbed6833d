"""Which accesses to global memory are ordered although no barrier lies between them.

Between blocks PTX orders memory by release and acquire: what a thread did before it released a location is
visible to whoever acquired that location later. Release is an atomic (or st) with ``.release`` or ``.acq_rel``,
or any atomic behind a fence; acquire is an atomic (or ld) with ``.acquire`` or ``.acq_rel``, or any atomic
before a fence. A barrier hands what one thread knows to its whole block. Every instruction has a step, counted
over the launch; knowing a block up to step s means that every access of it before s is visible.
"""

from __future__ import annotations

import dataclasses

# Between blocks only these scopes synchronise. An instruction without a scope has .gpu; membar's .gl is gpu.
WIDE_SCOPES = frozenset({"gpu", "sys", "gl"})
NARROW_SCOPES = frozenset({"cta", "cluster"})


@dataclasses.dataclass
class Knowledge:
    """Steps before which all accesses of a block, of a thread, or all atomics on a location are visible."""

    blocks: dict[int, int] = dataclasses.field(default_factory=dict)
    threads: dict[int, int] = dataclasses.field(default_factory=dict)
    locations: dict[int, int] = dataclasses.field(default_factory=dict)

    def learn(self, other: Knowledge | None) -> None:
        if other is None:
            return
        for mine, theirs in (
            (self.blocks, other.blocks),
            (self.threads, other.threads),
            (self.locations, other.locations),
        ):
            for key, step in theirs.items():
                if mine.get(key, -1) < step:
                    mine[key] = step

    def knows(self, thread: int, block: int, step: int) -> bool:
        return self.blocks.get(block, -1) > step or self.threads.get(thread, -1) > step


class Ordering:
    """Knowledge of every thread and block of one launch."""

    def __init__(self, block_threads: int) -> None:
        self.block_threads = block_threads
        self.step = 0
        self._barrier: dict[int, int] = {}  # step of a block's last barrier
        self._block: dict[int, Knowledge] = {}
        self._acquired: dict[int, Knowledge] = {}  # by a thread since its block's last barrier
        self._released: dict[int, Knowledge] = {}  # what a thread's last fence covers
        self._observed: dict[int, Knowledge] = {}  # read by relaxed atomics, for a later fence
        self._location: dict[int, Knowledge] = {}  # what the atomics on an address carry

    def tick(self) -> int:
        self.step += 1
        return self.step

    def visible(self, to: int, thread: int, step: int, location: int | None = None) -> bool:
        """Whether thread ``to`` is ordered behind what ``thread`` did at ``step`` (an atomic on ``location``)."""
        block = thread // self.block_threads
        for known in (self._acquired.get(to), self._block.get(to // self.block_threads)):
            if known is None:
                continue
            if known.knows(thread, block, step):
                return True
            if location is not None and known.locations.get(location, -1) > step:
                return True
        return False

    def barrier(self, block: int) -> None:
        """A block passed a barrier: every thread knows what each of them knew."""
        self._barrier[block] = self.tick()
        here = [t for t in self._acquired if t // self.block_threads == block]
        for thread in here:
            self._block.setdefault(block, Knowledge()).learn(self._acquired.pop(thread))

    def fence(self, thread: int) -> None:
        """A fence releases what came before, and completes the acquisition of relaxed atomics before it."""
        observed = self._observed.pop(thread, None)
        if observed is not None:
            self._acquired.setdefault(thread, Knowledge()).learn(observed)
        self._released[thread] = self._past(thread, self.tick())

    def atomic(self, thread: int, locations: range, *, acquire: bool, release: bool) -> int:
        """One thread's read-modify-write of some words; returns its step."""
        step = self.tick()
        carried = self._location.setdefault(locations[0], Knowledge())
        carried.locations.update(dict.fromkeys(locations, step + 1))
        seen = self._acquired if acquire else self._observed
        seen.setdefault(thread, Knowledge()).learn(carried)
        carried.learn(self._past(thread, step) if release else self._released.get(thread))
        return step

    def load(self, thread: int, location: int) -> None:
        """``ld.acquire`` of a location."""
        self._acquired.setdefault(thread, Knowledge()).learn(self._location.get(location))

    def store(self, thread: int, locations: range) -> None:
        """``st.release`` to some words begins a new chain."""
        step = self.tick()
        carried = self._past(thread, step)
        carried.locations.update(dict.fromkeys(locations, step + 1))
        self._location[locations[0]] = carried

    def _past(self, thread: int, step: int) -> Knowledge:
        """What happened before a thread's step: its own past, its block's up to the barrier, what they know."""
        block = thread // self.block_threads
        past = Knowledge({block: self._barrier.get(block, -1)}, {thread: step})
        past.learn(self._block.get(block))
        past.learn(self._acquired.get(thread))
        return past


def wide(mods: list[str]) -> bool:
    """Whether the scope of an instruction reaches other blocks."""
    return not NARROW_SCOPES.intersection(mods)
