"""How a launch is cut into programs: tables with reasons, nothing tuned at run time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import triton

from gankernels.triton import release
from gankernels.triton.geometry import MOST_AT_ONCE

RELEASE = release(triton.__version__)
# Rows of up to this many classes stay in registers: with 16 warps, 16 elements per thread and operand
# (8 of float64); half as many where a row has several operands, as P and M each of its own, or a
# number of classes that 4 does not divide; a quarter in float64 with several operands.
RESIDENT_CLASSES = 8192
# Where rows lie side by side, a tile takes 16 of them, a whole 32-byte sector of 16-bit logits; with
# more classes than these (half of them with more than two operands) it would not fit in registers.
RESIDENT_CLASSES_OF_ADJACENT_ROWS = 512
# Elements of one operand that a thread can hold when it holds whole rows: 64 leave room, in 255
# registers, for the logits, their exponentials and an anchor. Triton before 3.9 lays a warp across the
# classes of such a tile, which takes 2 to 4 times the sectors, and spills: none there.
WHOLE_ROWS = 64 if RELEASE >= (3, 9) else 0
STREAMED_BLOCK = 4096
# Of the rows of one operand: 8 elements per thread. With 16 warps Triton 3.4 spills in the loop over the classes.
STREAMED_WARPS = 16 if RELEASE >= (3, 5) else 8
STREAMED_BLOCK_OF_ADJACENT_ROWS = 256
ADJACENT_ROWS = 16
# Classes of a part, and parts of a row, for which a second launch pays.
LEAST_CLASSES, LEAST_PARTS = 8192, 4
# 16 elements per thread with 4 warps: two 16-byte loads of 16-bit logits in flight per thread.
TILE = 2048
# Of elementwise kernels.
WARPS_PER_PROCESSOR = 48
# Where a kernel's registers are not known, as on AMD's GPUs: half of the registers of an H100 at 128 each.
WARPS_OF_ROWS = 16
# How NVIDIA's multiprocessors allocate: registers of a warp, of one of four schedulers; shared memory of a
# program, of which the system takes some; programs.
REGISTER_UNIT, SCHEDULERS, SHARED_RESERVED, MOST_PROGRAMS = 256, 4, 1024, 32
# Elements of one program of an elementwise kernel: a 16-byte load of 16-bit elements per thread.
ELEMENTS = 1024
# Both batches of a relativistic loss up to this many logits: one program, three walks in L1 and L2,
# sooner done than three launches.
RELATIVISTIC_LOGITS = 16384

# Interpreted and emulated launches run on CPU tensors: few programs, so that each takes several tiles.
EMULATED_PROCESSORS = 1


class Tile(NamedTuple):
    """Rows and classes of a tile, its warps, and whether rows are walked in several tiles."""

    rows: int
    block: int
    warps: int
    streamed: bool
    at_once: int
    """How many elements side by side a thread takes at once, at most."""


class Processor(NamedTuple):
    """Limits of a multiprocessor; a kernel's registers are allocated in REGISTER_UNITs for each warp."""

    registers: int = 65536
    warps: int = 64
    shared: int = 228 << 10  # bytes

    def holds(self, warps: int, registers: int, shared: int) -> int:
        """How many programs of so many warps, registers of a thread and bytes of shared memory."""
        of_warp = -(-max(registers, 1) * 32 // REGISTER_UNIT) * REGISTER_UNIT
        by_registers = self.registers // SCHEDULERS // of_warp * SCHEDULERS // warps
        by_shared = self.shared // (shared + SHARED_RESERVED)
        return max(1, min(self.warps // warps, by_registers, by_shared, MOST_PROGRAMS))


def next_power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


@cache
def processors(device: torch.device) -> int:
    if device.type != "cuda":
        return EMULATED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@cache
def processor(device: torch.device) -> Processor:
    if device.type != "cuda":
        return Processor()
    found = torch.cuda.get_device_properties(device)
    return Processor(
        getattr(found, "regs_per_multiprocessor", Processor().registers),
        found.max_threads_per_multi_processor // 32,
        getattr(found, "shared_memory_per_multiprocessor", Processor().shared),
    )


@cache
def tile_of(classes: int, adjacent: bool, wide: bool = False, operands: int = 1) -> Tile:
    """The tile for rows of so many classes.

    Args:
        classes: The size of the class dimension.
        adjacent: Whether rows, not classes, lie side by side.
        wide: Whether they are computed in float64.
        operands: How many values of a class a thread keeps beside its exponential: logits, and what
            does not come from a target that all rows share.
    """
    block = next_power_of_2(classes)
    registers = 2 if wide else 1  # of an element
    if adjacent:
        return _tile_of_adjacent_rows(block, registers, operands)
    # An address for each element, as where rows are not aligned, takes registers too.
    many = operands * registers >= 4 or classes % 4 != 0
    share = 4 if wide and operands > 1 else 2 if many else 1
    if block > RESIDENT_CLASSES // registers // share:
        return _tile_of_streamed_rows(classes, wide, operands)
    rows = max(1, TILE // block)
    return Tile(rows, block, warps_of(rows * block * registers), False, MOST_AT_ONCE)


def tile_of_mixture(classes: int, adjacent: bool, wide: bool) -> Tile:
    """Of two logits and what each class adds to two divergences: the longest rows side by side would spill."""
    longest = adjacent and next_power_of_2(classes) > RESIDENT_CLASSES_OF_ADJACENT_ROWS // 2
    return tile_of(classes, adjacent, wide, 4 if longest else 2)


def _tile_of_streamed_rows(classes: int, wide: bool, operands: int) -> Tile:
    """At most 8 elements per thread and operand: each carries its own maximum and sums."""
    if wide:  # what exp and log work with takes twice the registers too
        block, warps = STREAMED_BLOCK // (4 * next_power_of_2(operands)), 8
    elif operands == 1:
        block, warps = 8 * 32 * STREAMED_WARPS, STREAMED_WARPS
    else:  # two softmaxes carry five values a lane, and unaligned rows their addresses
        block, warps = STREAMED_BLOCK // 4, 4 if classes % 4 == 0 else 8
    return Tile(1, block, warps, True, MOST_AT_ONCE)


def _tile_of_adjacent_rows(block: int, registers: int, operands: int) -> Tile:
    if block > RESIDENT_CLASSES_OF_ADJACENT_ROWS // registers // (2 if operands > 2 else 1):
        carried = 4 * registers if operands > 1 else 1  # of two softmaxes five values a lane
        block = STREAMED_BLOCK_OF_ADJACENT_ROWS // registers // carried
        return Tile(ADJACENT_ROWS, block, 8, True, MOST_AT_ONCE)
    whole_rows = WHOLE_ROWS // block // registers // operands
    if whole_rows:
        # 4 warps whose threads hold whole rows, or two of them half a row: little to exchange, and what
        # is computed once per row is not computed by many threads. Two rows side by side make a 4-byte
        # access of 16-bit logits.
        return Tile(128 * min(2, whole_rows), block, 4, False, 2)
    rows = 32 if block <= 128 and operands == 1 else ADJACENT_ROWS
    return Tile(rows, block, warps_of(rows * block * registers), False, MOST_AT_ONCE)


def warps_of(elements: int) -> int:
    """16 elements per thread, in at least 4 warps: one for each scheduler of a processor."""
    return max(4, elements // (16 * 32))


def tiles_of(rows: int, tile: Tile) -> int:
    """The tiles of a batch; at least one, also where there is no row."""
    return max(1, -(-rows // tile.rows))


def parts_of(rows: int, classes: int, device: torch.device) -> int:
    """The programs that share a long row: two for every multiprocessor, where a second launch pays."""
    if not rows:
        return 1
    parts = min(2 * processors(device) // rows, -(-classes // LEAST_CLASSES))
    return parts if parts >= LEAST_PARTS else 1


def shared_out(tiles: Sequence[int], at_once: int) -> list[int]:
    """The programs of one or two batches: one for each tile, or as many as run at once.

    A program that waits for another to end would take its anchors' logarithms once more.
    """
    if sum(tiles) <= at_once:
        return list(tiles)
    if len(tiles) == 1:
        return [at_once]
    first = round(at_once * tiles[0] / sum(tiles))
    first = max(1, min(first, at_once - 1))
    return [first, max(1, at_once - first)]


def element_programs(count: int, device: torch.device) -> int:
    """Programs of an elementwise kernel that loops."""
    tiles = max(1, -(-count // ELEMENTS))
    return min(tiles, processors(device) * WARPS_PER_PROCESSOR // 4)
