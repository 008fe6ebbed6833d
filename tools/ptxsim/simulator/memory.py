"""Global memory: buffers with guard zones, and per byte whether it is mapped, initialised, read-only."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .types import Array

# Virtual addresses far apart, so that an address names its space: no real pointer is ever dereferenced.
GLOBAL_BASE, SHARED_WINDOW, LOCAL_WINDOW = 0x7F0000000000, 0x1000000000000, 0x2000000000000
PARAMETER_WINDOW = 0x3000000000000
FAR = 1 << 40  # from GLOBAL_BASE: addresses of sparse allocations

MAPPED, INITIALISED, READ_ONLY = np.uint8(1), np.uint8(2), np.uint8(4)
POISON = 0xCD  # what memory holds before anything was written


def align(offset: int, to: int) -> int:
    return -(-offset // to) * to


class Segment(NamedTuple):
    """A range of far addresses, relative to GLOBAL_BASE, and where it lies in the heap."""

    start: int
    heap: int
    size: int


class Buffer:
    """A piece of global memory; ``addr`` is its device address."""

    def __init__(
        self, memory: Memory, addr: int, shape: tuple[int, ...], dtype: Any, name: str, nbytes: int
    ) -> None:
        self.memory, self.addr, self.shape = memory, addr, shape
        self.dtype, self.name, self.nbytes = np.dtype(dtype), name, nbytes

    def get(self) -> Array:
        """A copy of the contents."""
        start = int(self.memory.offsets(np.array([self.addr]))[0])
        raw = self.memory.heap[start : start + self.nbytes]
        return raw.view(self.dtype).reshape(self.shape).copy()

    def __add__(self, nbytes: int) -> int:
        return self.addr + nbytes


class Memory:
    """Global memory: every buffer between unmapped guard bytes, ``misalign`` bytes off a multiple of 256."""

    GUARD = 512

    def __init__(self) -> None:
        self.heap = np.zeros(0, np.uint8)
        self.flags = np.zeros(0, np.uint8)
        self.buffers: list[Buffer] = []
        self._far: list[Segment] = []

    def put(
        self, array: Array, name: str = "buf", readonly: bool = False, misalign: int = 0
    ) -> Buffer:
        """A buffer with these contents."""
        array = np.ascontiguousarray(array)
        buffer = self._allocate(array.nbytes, name, array.shape, array.dtype, misalign)
        start = buffer.addr - GLOBAL_BASE
        where = slice(start, start + array.nbytes)
        self.heap[where] = array.reshape(-1).view(np.uint8)
        self.flags[where] |= INITIALISED | (READ_ONLY if readonly else np.uint8(0))
        return buffer

    def empty(
        self, shape: int | tuple[int, ...], dtype: Any, name: str = "buf", misalign: int = 0
    ) -> Buffer:
        """An uninitialised buffer: reading it before writing it is a fault."""
        shape = (int(shape),) if np.isscalar(shape) else tuple(shape)  # type: ignore[arg-type]
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._allocate(nbytes, name, shape, dtype, misalign)

    def offsets(self, addresses: Array) -> Array:
        """Heap offsets of device addresses; those of no buffer lie outside the heap."""
        found = addresses - GLOBAL_BASE
        if not self._far:
            return found
        starts = np.array([segment.start for segment in self._far])
        which = np.maximum(np.searchsorted(starts, found, "right") - 1, 0)
        heap = np.array([segment.heap for segment in self._far])[which]
        inside = found - starts[which]
        size = np.array([segment.size for segment in self._far])[which]
        moved = np.where((inside >= 0) & (inside < size), heap + inside, -1)
        return np.where(found >= FAR, moved, found)

    def address(self, offset: int) -> int:
        """The device address of a heap offset."""
        for segment in self._far:
            if segment.heap <= offset < segment.heap + segment.size:
                return GLOBAL_BASE + segment.start + offset - segment.heap
        return GLOBAL_BASE + offset

    def put_far(
        self, pieces: dict[int, Array], name: str = "far", misalign: int = 0, readonly: bool = False
    ) -> int:
        """A sparse allocation: bytes at distances of up to terabytes, with nothing mapped between them.

        Args:
            pieces: bytes by their distance from the allocation's address, ascending and disjoint.
            name: for messages.
            misalign: added to the address.
            readonly: whether writing is a fault.

        Returns:
            The address.
        """
        last = self._far[-1] if self._far else Segment(FAR, 0, 0)
        base = align(last.start + last.size + (1 << 20), 1 << 20) + misalign
        end = -self.GUARD
        for distance, data in pieces.items():
            if distance < end + self.GUARD:
                raise ValueError(f"pieces nearer than {self.GUARD} bytes: {distance} after {end}")
            end = distance + len(data)
            buffer = self.put(data, f"{name}+{distance}", readonly, (base + distance) % 256)
            # The guard bytes belong to the segment: an access next to a piece is described by its name.
            heap = buffer.addr - GLOBAL_BASE - self.GUARD // 2
            start = base + distance - self.GUARD // 2
            self._far.append(Segment(start, heap, len(data) + self.GUARD))
            buffer.addr = GLOBAL_BASE + base + distance
        return GLOBAL_BASE + base

    def describe(self, addr: int) -> str:
        """The buffer nearest to an address, for a fault's message."""

        def distance(buffer: Buffer) -> int:
            return max(buffer.addr - addr, addr - (buffer.addr + buffer.nbytes - 1), 0)

        if not self.buffers:
            return "no buffer"
        nearest = min(self.buffers, key=distance)
        return f"'{nearest.name}' [{nearest.nbytes} B] at byte offset {addr - nearest.addr}"

    def _allocate(
        self, nbytes: int, name: str, shape: tuple[int, ...], dtype: Any, misalign: int
    ) -> Buffer:
        start = align(len(self.heap) + self.GUARD, 256) + misalign  # 256 B: what cudaMalloc gives
        grow = align(start + nbytes + self.GUARD, 256) - len(self.heap)
        self.heap = np.concatenate([self.heap, np.full(grow, POISON, np.uint8)])
        self.flags = np.concatenate([self.flags, np.zeros(grow, np.uint8)])
        self.flags[start : start + nbytes] = MAPPED
        buffer = Buffer(self, GLOBAL_BASE + start, shape, dtype, name, nbytes)
        self.buffers.append(buffer)
        return buffer
