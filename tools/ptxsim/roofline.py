"""A bound on a kernel's speed, from its instructions and bytes and the data sheets. Never a measurement.

Time is at least what each of these alone takes: DRAM bytes, sectors between L2 and the multiprocessors, issue
slots, the lanes of each pipe. By Little's law the DRAM rate also needs latency x rate bytes in flight.
Caches, launch overhead, the tail of the grid and the DRAM's own efficiency (about 92 %) are not in it: the truth
is slower.
"""

from __future__ import annotations

import dataclasses

from .occupancy import Occupancy

L2_BYTES_PER_CLOCK = 64  # per multiprocessor
SECTOR = 32


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Data-sheet rates; ``ghz`` is a clock sustained under load, ``latency_ns`` of a DRAM access under load."""

    name: str
    arch: int
    multiprocessors: int
    ghz: float
    dram_gbs: float
    fp32_lanes: int
    fp64_lanes: int
    latency_ns: float
    mufu_lanes: int = 16
    alu_lanes: int = 64  # integers, logic, comparisons, minima
    issue: int = 4

    @property
    def lanes(self) -> dict[str, int]:
        """Per multiprocessor and clock: CUDA programming guide, "throughput of native arithmetic"."""
        return {
            "fp32": self.fp32_lanes,
            "fp64": self.fp64_lanes,
            "mufu": self.mufu_lanes,
            "alu": self.alu_lanes,
        }

    def seconds(self, work: float, per_clock: int) -> float:
        return work / (self.multiprocessors * per_clock * self.ghz * 1e9)


GPUS = (
    Gpu("A100-SXM-80GB", 80, 108, 1.41, 2039, 64, 32, 500),
    Gpu("H100-SXM", 90, 132, 1.75, 3350, 128, 64, 600),
    Gpu("B200", 100, 148, 1.85, 8000, 128, 64, 750),
)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one row (or program) costs.

    Attributes:
        bytes: that must cross DRAM.
        sectors: 32-byte sectors between L2 and the multiprocessor.
        instructions: warp instructions.
        pipes: work of the pipes fp32, fp64, mufu and alu, in threads.
        loads_in_flight: bytes that one thread asks for before it needs the first.
    """

    bytes: float
    sectors: float
    instructions: float
    pipes: dict[str, float]
    loads_in_flight: float


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds of each resource, the slowest, and the share of the DRAM rate that can be reached."""

    seconds: dict[str, float]
    limiter: str
    in_flight: float
    needed_in_flight: float

    @property
    def reachable(self) -> float:
        """Share of the DRAM rate that the bytes in flight allow."""
        return min(1.0, self.in_flight / self.needed_in_flight)

    @property
    def dram_share(self) -> float:
        """Upper bound on achieved / data-sheet DRAM rate."""
        return min(self.seconds["dram"] / self.seconds[self.limiter], self.reachable)

    @property
    def limited_by(self) -> str:
        if self.seconds["dram"] / self.seconds[self.limiter] > self.reachable:
            return "bytes in flight"
        return self.limiter


def bound(gpu: Gpu, work: Work, rows: int, threads: int, fits: Occupancy) -> Bound:
    """The bound for ``rows`` times some work, in blocks of ``threads``."""
    seconds = {
        "dram": rows * work.bytes / (gpu.dram_gbs * 1e9),
        "issue": gpu.seconds(rows * work.instructions, gpu.issue),
        **{p: gpu.seconds(rows * n, gpu.lanes[p]) for p, n in work.pipes.items()},
        "l2": gpu.seconds(rows * work.sectors * SECTOR, L2_BYTES_PER_CLOCK),
    }
    limiter = max(seconds, key=lambda name: seconds[name])
    needed = gpu.dram_gbs * gpu.latency_ns / gpu.multiprocessors
    return Bound(seconds, limiter, fits.blocks * threads * work.loads_in_flight, needed)
