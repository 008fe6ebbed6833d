"""The table: what a kernel compiled to and did in the emulator, a line of Markdown each."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator

import torch
import triton

from tools.gpu_table import peers_page
from tools.gpu_table.cases import Case
from tools.ptxsim import toolchain
from tools.ptxsim.execution import Execution
from tools.ptxsim.roofline import GPUS, Bound

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "gpu-kernels.md"
HEAD = (
    "| operator | kernel | rows × classes | dtype | arch | registers | spilled bytes | access bits (load/store) "
    "| bytes moved / ideal | occupancy | bound, share of DRAM rate |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: Case
    arch: int
    execution: Execution
    ideal: int

    @property
    def moved(self) -> float:
        return self.execution.moved / self.ideal

    @property
    def bound(self) -> Bound:
        case = self.case
        work = self.execution.work(case.row_bytes, case.sample_rows)
        return self.execution.bound(work, case.rows)

    def markdown(self) -> str:
        run, bound = self.execution, self.bound
        cells = [
            f"`{self.case.operator}`",
            self.case.family,
            self.case.shape,
            self.case.dtype,
            f"sm_{self.arch}",
            str(run.registers),
            str(run.spills),
            f"{run.access_bits('load')} / {run.access_bits('store')}",
            f"{self.moved:.2f}",
            f"{run.occupancy.share:.0%} ({run.occupancy.limiter})",
            f"{bound.dram_share:.0%} ({bound.limited_by})",
        ]
        return "| " + " | ".join(cells) + " |"


@dataclasses.dataclass(frozen=True)
class Section:
    """The kernels of one compiler."""

    title: str
    compiler: Callable[[], str]
    cases: Callable[[], list[Case]]

    def markdown(self, rows: Iterable[Row]) -> str:
        lines = "\n".join(row.markdown() for row in rows)
        return f"## {self.title}\n\nCompiled by {self.compiler()}.\n\n{HEAD}\n{lines}\n"


def of_triton() -> list[Case]:
    from tools.gpu_table.triton_cases import triton_cases

    return triton_cases()


def of_cuda() -> list[Case]:
    from tools.gpu_table.cuda_cases import cuda_cases  # needs nvcc

    return cuda_cases()


def nvcc_version() -> str:
    text = subprocess.run(
        [str(toolchain.NVCC), "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"release ([\d.]+), (V[\d.]+)", text)
    return f"nvcc {version[1]} ({version[2]})" if version else "nvcc"


SECTIONS = {
    "triton": Section("Triton", lambda: f"Triton {triton.__version__}", of_triton),
    "cuda": Section("CUDA C++", nvcc_version, of_cuda),
}


def measure(cases: Iterable[Case], archs: Iterable[int] = toolchain.ARCHITECTURES) -> Iterator[Row]:
    for case in cases:
        for arch in archs:
            torch.manual_seed(0)
            execution, ideal = case.launch(arch)
            yield Row(case, arch, execution, ideal)


def introduction() -> str:
    gpus = "; ".join(
        f"sm_{g.arch}: {g.name}, {g.multiprocessors} multiprocessors, {g.ghz} GHz, "
        f"{g.dram_gbs:.0f} GB/s, {g.latency_ns:.0f} ns"
        for g in GPUS
    )
    return INTRODUCTION.format(gpus=gpus)


INTRODUCTION = """# The GPU kernels, compiled

Written by `python -m tools.gpu_table`; a test writes all but the last section again and compares. Nothing here
was measured on a GPU, and nothing here is a time: those are on [the performance page](performance.md#on-a-gpu).
What they taught about the bounds below is on [the page of GPUs](gpu.md#without-a-gpu).

- **registers, spilled bytes**: per thread, of the machine code (cuobjdump).
- **access bits**: the width in which most bytes were loaded and stored, per thread and instruction.
- **bytes moved / ideal**: what the threads asked of global memory in a launch in the emulator, over what a launch
  has to move: each logit once (twice where streamed), each gradient once, and what each block reads of an anchor
  (once; where rows are packed again for every row, from the cache).
- **occupancy**: resident warps over the most that a multiprocessor holds, and what limits them.
- **bound**: an estimate of the share of the DRAM rate that the kernel reaches at best for the shape given, and
  what limits it. From the bytes that must cross DRAM, the instructions that the loops executed (as PTX, in the
  ratio of machine code to PTX), what each pipe has to do of them, and by Little's law the bytes that resident
  threads keep in flight. It knows no cache, no launch overhead and no DRAM inefficiency: the truth is slower.
  Data-sheet figures and latencies used: {gpus}.
"""


def page(sections: Iterable[str]) -> str:
    """The last section is not measured again: ``python -m tools.gpu_table peers`` keeps its figures."""
    peers = f"## Beside other kernels\n\n<!-- peers -->\n{peers_page.section()}\n<!-- end of peers -->\n"
    return "\n".join([introduction(), *sections, peers])
