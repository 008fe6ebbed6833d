"""How a launch is cut into programs: tables with reasons, nothing tuned at run time."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

# Rows of up to this many classes stay in registers (16 per thread and operand with 16 warps).
RESIDENT_CLASSES = 8192
# Where rows lie side by side, a tile takes 16 of them, a whole 32-byte sector of 16-bit logits; with
# more classes than these the tile would not fit in registers.
RESIDENT_CLASSES_OF_ADJACENT_ROWS = 1024
STREAMED_BLOCK = 4096
STREAMED_BLOCK_OF_ADJACENT_ROWS = 256
ADJACENT_ROWS = 16
# 16 elements per thread with 4 warps: two 16-byte loads of 16-bit logits in flight per thread, which
# at 48 warps per processor is more than the product of DRAM bandwidth and latency of an H100 asks for.
TILE = 2048
WARPS_PER_PROCESSOR = 48
# Elements of one program of an elementwise kernel: a 16-byte load of 16-bit elements per thread.
ELEMENTS = 1024
# Both batches of a relativistic loss up to this many logits: one program, three walks in L1 and L2,
# sooner done than three launches.
RELATIVISTIC_LOGITS = 16384

# Interpreted and emulated launches run on CPU tensors: few programs, so that each takes several tiles.
EMULATED_PROCESSORS = 1


class Plan(NamedTuple):
    """A tile's size, the warps that share it, and the programs that share the tiles."""

    rows: int
    block: int
    warps: int
    streamed: bool
    tiles: int
    programs: int

    def with_tile_of(self, other: Plan, rows: int) -> Plan:
        tiles = max(1, -(-rows // other.rows))
        return other._replace(tiles=tiles, programs=min(tiles, other.programs))


def next_power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


@lru_cache(maxsize=None)
def processors(device: torch.device) -> int:
    if device.type != "cuda":
        return EMULATED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@lru_cache(maxsize=None)
def tile_of(classes: int, adjacent: bool) -> tuple[int, int, int, bool]:
    """Rows and classes of a tile, its warps, and whether rows are walked in several tiles."""
    block = next_power_of_2(classes)
    if adjacent:
        if block > RESIDENT_CLASSES_OF_ADJACENT_ROWS:
            return ADJACENT_ROWS, STREAMED_BLOCK_OF_ADJACENT_ROWS, 8, True
        # At least a warp of rows while they are few, so that lanes lie along the rows.
        rows = max(ADJACENT_ROWS if block > 128 else 32, TILE // block)
        return rows, block, warps_of(rows * block), False
    if block > RESIDENT_CLASSES:
        return 1, STREAMED_BLOCK, 8, True
    rows = max(1, TILE // block)
    return rows, block, warps_of(rows * block), False


def warps_of(elements: int) -> int:
    """16 elements per thread, in at least 4 warps: one for each scheduler of a processor."""
    return max(4, elements // (16 * 32))


def plan(rows: int, classes: int, adjacent: bool, device: torch.device) -> Plan:
    """How a batch's rows are shared out; at least one program, also where there is no row."""
    tile_rows, block, warps, streamed = tile_of(classes, adjacent)
    tiles = max(1, -(-rows // tile_rows))
    at_once = processors(device) * max(1, WARPS_PER_PROCESSOR // warps)
    return Plan(tile_rows, block, warps, streamed, tiles, min(tiles, at_once))


def element_programs(count: int, device: torch.device) -> int:
    """Programs of an elementwise kernel that loops."""
    tiles = max(1, -(-count // ELEMENTS))
    return min(tiles, processors(device) * WARPS_PER_PROCESSOR // 4)
