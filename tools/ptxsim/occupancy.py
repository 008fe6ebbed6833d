"""How many blocks of a kernel fit on a streaming multiprocessor.

Limits from the CUDA programming guide, table "technical specifications per compute capability"; results equal
those of NVIDIA's cuda_occupancy.h.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor; sizes in bytes, granularities as the hardware allocates."""

    threads: int
    blocks: int
    shared: int
    shared_per_block: int
    registers: int = 65536
    partitions: int = 4  # a warp's registers lie in one of them
    register_unit: int = 256
    shared_unit: int = 128
    shared_reserved: int = 1024  # per block, by the system


MULTIPROCESSORS = {
    80: Multiprocessor(2048, 32, 164 << 10, 163 << 10),
    86: Multiprocessor(1536, 16, 100 << 10, 99 << 10),
    89: Multiprocessor(1536, 24, 100 << 10, 99 << 10),
    90: Multiprocessor(2048, 32, 228 << 10, 227 << 10),
    100: Multiprocessor(2048, 32, 228 << 10, 227 << 10),
    120: Multiprocessor(1536, 24, 100 << 10, 99 << 10),
}


@dataclasses.dataclass(frozen=True)
class Occupancy:
    """Resident blocks and warps, their share of the maximum, and what limits them."""

    blocks: int
    warps: int
    share: float
    limiter: str


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def occupancy(arch: int, threads: int, registers: int, shared: int = 0) -> Occupancy:
    """Occupancy of blocks of so many threads, registers per thread and bytes of shared memory."""
    sm = MULTIPROCESSORS[arch]
    warps = round_up(threads, 32) // 32
    per_warp = round_up(max(registers, 1) * 32, sm.register_unit)
    resident_warps = sm.registers // sm.partitions // per_warp * sm.partitions
    limits = {
        "threads": sm.threads // (warps * 32),
        "blocks": sm.blocks,
        "registers": resident_warps // warps,
        "shared": sm.shared // round_up(shared + sm.shared_reserved, sm.shared_unit),
    }
    limiter = min(limits, key=lambda name: limits[name])
    blocks = limits[limiter]
    return Occupancy(blocks, blocks * warps, blocks * warps * 32 / sm.threads, limiter)
