"""CPU tensors as a GPU's memory: only the bytes that a view reaches are mapped, and results are copied back."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Iterable

import numpy as np
import torch

from .simulator import Memory
from .simulator.memory import INITIALISED, MAPPED
from .simulator.types import Array

# A storage beyond this is laid out sparsely: a view with huge strides reaches little of it.
DENSE_BYTES = 64 << 20
RUN_LIMIT = 1 << 16  # pieces of one sparse view
Span = tuple[int, int]


def reached(tensor: torch.Tensor) -> list[Span]:
    """The byte ranges of its storage that a view reaches; nearby elements share one range."""
    if not tensor.numel():
        return []
    size = tensor.element_size()
    dims = sorted(
        ((stride * size, n) for n, stride in zip(tensor.shape, tensor.stride(), strict=True)),
        reverse=True,
    )
    if tensor.untyped_storage().nbytes() > DENSE_BYTES:
        far = [(step, n) for step, n in dims if step > 2 * Memory.GUARD and n > 1]
    else:
        far = []
    near = [d for d in dims if d not in far]
    length = sum(step * (n - 1) for step, n in near) + size
    if math.prod(n for _, n in far) > RUN_LIMIT:
        raise ValueError(f"a view of {tuple(tensor.shape)} in more than {RUN_LIMIT} pieces")
    start = tensor.storage_offset() * size
    steps = itertools.product(*(range(0, step * n, step) for step, n in far))
    starts = sorted(start + sum(offsets) for offsets in steps)
    return [(begin, begin + length) for begin in starts]


def pieces(spans: Iterable[Span]) -> list[Span]:
    """Ranges merged until guard zones fit between them."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1] + 2 * Memory.GUARD:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


class Image:
    """The storages of a launch's tensors in simulated memory.

    Args:
        memory: where to put them.
        tensors: the arguments; those of one storage share it here too.
        unwritten: for storages with bytes that nobody has written, by address: True for each such byte.
    """

    def __init__(
        self, memory: Memory, tensors: Iterable[torch.Tensor], unwritten: dict[int, Array]
    ) -> None:
        self.memory, self.unwritten = memory, unwritten
        self.base: dict[int, int] = {}
        self.raw: dict[int, Array] = {}
        self.spans: dict[int, list[Span]] = {}
        for tensor in tensors:
            if tensor.device.type != "cpu":
                raise TypeError(f"the emulator runs on CPU tensors, got {tensor.device}")
            storage = tensor.untyped_storage()
            key = storage.data_ptr()
            self.spans.setdefault(key, []).extend(reached(tensor))
            if key not in self.raw:
                # Not through a tensor: an operator on the storage would count as writing to it.
                memory_of = (ctypes.c_uint8 * storage.nbytes()).from_address(key)
                self.raw[key] = np.ctypeslib.as_array(memory_of)
        for key in self.raw:
            self._map(key)

    def address(self, tensor: torch.Tensor) -> int:
        key = tensor.untyped_storage().data_ptr()
        return self.base[key] + tensor.storage_offset() * tensor.element_size()

    def copy_back(self) -> None:
        for key, raw in self.raw.items():
            unwritten = self.unwritten.get(key)
            for begin, end in self._pieces(key):
                start = self._heap(key, begin)
                raw[begin:end] = self.memory.heap[start : start + end - begin]
                if unwritten is not None:
                    flags = self.memory.flags[start : start + end - begin]
                    unwritten[begin:end] &= flags & INITIALISED == 0

    def _pieces(self, key: int) -> list[Span]:
        raw = self.raw[key]
        return pieces(self.spans[key]) if raw.size > DENSE_BYTES else [(0, raw.size)]

    def _heap(self, key: int, at: int) -> int:
        return int(self.memory.offsets(np.array([self.base[key] + at]))[0])

    def _map(self, key: int) -> None:
        raw, name = self.raw[key], f"arg storage {self.spans[key][:4]}"
        misalign = key % 256  # as aligned as the tensor really is
        if raw.size > DENSE_BYTES:
            parts = {begin: raw[begin:end] for begin, end in self._pieces(key)}
            self.base[key] = self.memory.put_far(parts, name, misalign)
        else:
            self.base[key] = self.memory.put(raw, name, misalign=misalign).addr
        flags, unwritten = self.memory.flags, self.unwritten.get(key)
        for begin, end in self._pieces(key):
            start = self._heap(key, begin)
            flags[start : start + end - begin] = 0
        for begin, end in self.spans[key]:
            start = self._heap(key, begin)
            known = MAPPED | INITIALISED
            if unwritten is not None:
                known = np.where(unwritten[begin:end], MAPPED, MAPPED | INITIALISED)
            flags[start : start + end - begin] = known
