"""Seeing strided tensors as rows of classes, without copying where the kernels can walk them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

INT32_MAX = 2**31 - 1
# A tile's rows and classes that do not exist are numbered too, and must not wrap around to existing ones.
TILE_MARGIN = 2**17
# 16 bytes of 16-bit elements; of wider ones the compiler takes as many as make 16 bytes.
MOST_AT_ONCE = 8


class Strides(NamedTuple):
    """Row (o, i) and class k of a tensor lie at ``o * outer + i * inner + k * cls`` (elements)."""

    outer: int
    inner: int
    cls: int


class Rows(NamedTuple):
    """Tensors of one shape as ``rows`` rows, ``inner`` of them for each outer index."""

    rows: int
    inner: int
    strides: list[Strides]

    @property
    def adjacent(self) -> bool:
        """Whether it is rows, not classes, that lie side by side in the first tensor."""
        return self.strides[0].inner == 1 and self.strides[0].cls != 1

    def unit(self, classes: int) -> int:
        """How many elements a kernel may move at once: a power of two up to 8.

        It divides every stride but the one of what lies side by side, and the extent of that.
        """
        if self.adjacent:
            fits = all(s.inner == 1 for s in self.strides)
            sizes = [self.inner, *(x for s in self.strides for x in (s.outer, s.cls))]
        else:
            fits = all(s.cls == 1 for s in self.strides)
            sizes = [classes, *(x for s in self.strides for x in (s.outer, s.inner))]
        return math.gcd(MOST_AT_ONCE, *sizes) if fits else 1


class Walk(NamedTuple):
    """The tensors that a kernel walks: those given, or contiguous copies of them."""

    rows: Rows
    inputs: list[Tensor]
    outputs: list[Tensor]
    lent: list[Tensor]
    """The outputs asked for, where ``outputs`` are copies to be handed back."""

    def hand_back(self) -> None:
        for theirs, ours in zip(self.lent, self.outputs, strict=False):
            theirs.copy_(ours)


def wide(rows: Rows, classes: int) -> bool:
    """Whether an offset may not fit in 32 bits."""
    outer = -(-rows.rows // rows.inner) if rows.inner else 0
    reach = max(outer * s.outer + rows.inner * s.inner + classes * s.cls for s in rows.strides)
    return max(reach, rows.rows) > INT32_MAX - TILE_MARGIN


def merge(dim: int, tensors: Sequence[Tensor]) -> Rows | None:
    """The same two row dimensions for all tensors; None where the dimensions do not merge so."""
    merged: list[tuple[int, list[int]]] = []
    for d, size in enumerate(tensors[0].shape):
        if d == dim or size == 1:
            continue
        steps = [t.stride(d) for t in tensors]
        if merged and all(a == b * size for a, b in zip(merged[-1][1], steps, strict=True)):
            size *= merged.pop()[0]
        merged.append((size, steps))
    if len(merged) > 2:
        return None
    nothing = [0] * len(tensors)
    classes = [t.stride(dim) for t in tensors]
    if len(merged) == 2:
        (outer_size, outer), (inner_size, inner) = merged
    elif merged and merged[0][1][0] == 1 and classes[0] != 1:
        (outer_size, outer), (inner_size, inner) = (1, nothing), merged[0]
    else:
        outer_size, outer = merged[0] if merged else (1, nothing)
        inner_size, inner = 1, nothing
    found = [Strides(*s) for s in zip(outer, inner, classes, strict=True)]
    return Rows(outer_size * inner_size, inner_size, found)


def walk(dim: int, inputs: list[Tensor], outputs: list[Tensor]) -> Walk:
    """Walks tensors of one shape as they lie, or contiguous copies of them."""
    rows = merge(dim, [*inputs, *outputs])
    if rows is not None:
        return Walk(rows, inputs, outputs, [])
    copies = [t.contiguous() for t in inputs]
    results = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in outputs]
    rows = merge(dim, [*copies, *results])
    assert rows is not None  # all dimensions before `dim` merge, and all after it
    return Walk(rows, copies, results, outputs)


def dense(x: Tensor) -> Tensor:
    """A tensor without gaps in memory, in the order of ``x``: itself, or one that is not filled."""
    return x if x.is_contiguous() else torch.empty_like(x)


def in_order_of(like: Tensor, x: Tensor) -> Tensor:
    """``x`` with the elements in memory in the order of ``like``, which is dense."""
    if x.stride() == like.stride():
        return x
    return torch.empty_like(like, dtype=x.dtype).copy_(x)
