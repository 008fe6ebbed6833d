"""One executed launch together with the machine code of its kernel, and the facts that follow from both."""

from __future__ import annotations

import dataclasses
from functools import cached_property

from . import row_loop, sass
from .occupancy import Occupancy, occupancy
from .roofline import GPUS, Bound, Work, bound
from .simulator import Result
from .toolchain import disassemble, resource_usage

SYSTEM_SHARED = (
    1024  # bytes per block that cubins for sm_90 and later report beside the kernel's own
)


@dataclasses.dataclass
class Execution:
    """A launch that the emulator ran.

    Attributes:
        entry: the kernel's name in the machine code.
        arch: 90 for sm_90.
        cubin: the machine code.
        threads: of a block.
        dynamic_shared: bytes of dynamic shared memory of a block.
        result: the emulator's counts.
        ir: Triton's own intermediate representation of the kernel, where Triton compiled it.
        blocks: of the whole launch; 0 where not known.
        blocks_run: of them, the first ones that the emulator ran.
        traffic: bytes of the tensors that were loaded and of those that were stored, each once.
        configuration: of several that were compiled, in words.
    """

    entry: str
    arch: int
    cubin: bytes
    threads: int
    dynamic_shared: int
    result: Result
    ir: str = ""
    blocks: int = 0
    blocks_run: int = 0
    traffic: int = 0
    configuration: str = ""

    @cached_property
    def usage(self) -> dict[str, int]:
        return resource_usage(self.cubin)[self.entry]

    @property
    def registers(self) -> int:
        return self.usage["REG"]

    @property
    def spills(self) -> int:
        """Bytes of stack and local memory of a thread."""
        return self.usage["STACK"] + self.usage["LOCAL"]

    @property
    def spills_in_loops(self) -> float:
        """The largest share that accesses to local memory have in an innermost loop's instructions."""
        return max((loop.local_share for loop in self.code.innermost), default=0.0)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block, static and dynamic."""
        system = SYSTEM_SHARED if self.arch >= 90 else 0
        static = max(0, self.usage["SHARED"] - system)
        return max(static, self.dynamic_shared)

    @cached_property
    def code(self) -> sass.Sass:
        return sass.count(sass.function_text(disassemble(self.cubin), self.entry))

    @property
    def occupancy(self) -> Occupancy:
        return occupancy(self.arch, self.threads, self.registers, self.shared)

    @property
    def moved(self) -> int:
        """Bytes between the threads and global memory."""
        stats = self.result.stats
        return sum(stats[f"global_{kind}_bytes"] for kind in ("load", "store", "atomic"))

    @property
    def sectors(self) -> int:
        stats = self.result.stats
        return sum(stats[f"global_{kind}_sectors"] for kind in ("load", "store", "atomic"))

    def access_bits(self, kind: str) -> int:
        """Width in which most bytes were accessed: kind is load or store."""
        prefix, suffix = f"global_{kind}_", "b_threads"
        moved = {
            int(key.removeprefix(prefix).removesuffix(suffix)): count
            for key, count in self.result.stats.items()
            if key.startswith(prefix) and key.endswith(suffix)
        }
        return max(moved, key=lambda bits: bits * moved[bits], default=0)

    def work(self, row_bytes: float, rows_run: int, everything: bool = False) -> Work:
        """Per row, from what the loop over rows really executed.

        Args:
            row_bytes: that must cross DRAM for a row.
            rows_run: rows of the emulated launch.
            everything: count all that was executed, for a kernel without such a loop.
        """
        counts = row_loop.count(self.result, everything)
        machine = sass.pipe_work(self.code.opcodes)
        written = row_loop.pipe_work(self.result.kernel)
        # ptxas merges and expands: what it made of the kernel's instructions as a whole, it made of these.
        text = sum(row_loop.costs(ins) for ins in self.result.kernel.code)
        instructions = (self.code.total - self.code.moves) / text
        pipes = {
            pipe: 32 * executed * (machine[pipe] / written[pipe] if written[pipe] else 0)
            for pipe, executed in counts.pipes.items()
        }
        return Work(
            bytes=row_bytes,
            sectors=self.sectors / rows_run,
            instructions=counts.warp_instructions * instructions / rows_run,
            pipes={pipe: threads / rows_run for pipe, threads in pipes.items()},
            loads_in_flight=counts.load_bytes,
        )

    def bound(self, work: Work, rows: int) -> Bound:
        """The roofline bound for so many rows on the data-centre GPU of this architecture."""
        gpu = next(g for g in GPUS if g.arch == self.arch)
        return bound(gpu, work, rows, self.threads, self.occupancy)
