"""Writes docs/gpu-kernels.md: what every GPU kernel compiles to, and what bounds its speed.

    python tools/gpu_table.py

Every kernel of ``gankernels.triton`` and of ``csrc/cuda`` is compiled for sm_80, sm_90 and sm_100 by the
compilers themselves and launched once in the emulator on a few rows. Registers and spills are those of the
machine code, bytes and widths those of the accesses that happened. No GPU is involved, and no figure is a time.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
import triton  # noqa: E402

from tools.ptxsim import toolchain, triton_driver  # noqa: E402
from tools.ptxsim.execution import Execution  # noqa: E402
from tools.ptxsim.roofline import GPUS, Bound  # noqa: E402

PAGE = ROOT / "docs" / "gpu-kernels.md"
HEAD = (
    "| operator | kernel | rows × classes | dtype | arch | registers | spilled bytes | access bits (load/store) "
    "| bytes moved / ideal | occupancy | bound, share of DRAM rate |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel on a problem.

    Attributes:
        operator: what calls it.
        family: which of its forms: small rows, rows in registers, streamed ...
        shape: of the problem for which the bound is stated.
        dtype: of the logits.
        rows: of logits in that problem, those of both batches of a discriminator loss.
        row_bytes: that must cross DRAM for a row: its logits and gradients once.
        sample_rows: rows of the launch in the emulator, counted likewise.
        launch: runs it for an architecture; gives the launch and the bytes that it had to move.
    """

    operator: str
    family: str
    shape: str
    dtype: str
    rows: int
    row_bytes: float
    sample_rows: int
    launch: Callable[[int], tuple[Execution, int]]


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


def triton_cases() -> list[Case]:
    from gankernels.triton.catalogue import Entry, catalogue

    def case(entry: Entry) -> Case:
        def launch(arch: int) -> tuple[Execution, int]:
            triton_driver.install(arch=arch)
            with triton_driver.recorded() as launches:
                ideal = entry.run(entry.sample_rows)
            (execution,) = launches  # one launch computes the loss and all its gradients
            return execution, ideal

        return Case(
            entry.name,
            entry.family,
            entry.meaning,
            entry.dtype,
            entry.rows,
            entry.row_bytes,
            entry.sample_rows,
            launch,
        )

    return [case(entry) for entry in catalogue()]


def cuda_cases() -> list[Case]:
    from gpu.cuda.catalogue import Entry, catalogue

    def case(entry: Entry) -> Case:
        return Case(
            entry.name,
            entry.family,
            entry.meaning,
            entry.dtype,
            entry.rows,
            entry.row_bytes,
            entry.sample_rows,
            entry.launch,
        )

    return [case(entry) for entry in catalogue()]


@dataclasses.dataclass(frozen=True)
class Section:
    """The kernels of one compiler."""

    title: str
    compiler: Callable[[], str]
    cases: Callable[[], list[Case]]

    def markdown(self, rows: Iterable[Row]) -> str:
        lines = "\n".join(row.markdown() for row in rows)
        return f"## {self.title}\n\nCompiled by {self.compiler()}.\n\n{HEAD}\n{lines}\n"


def nvcc_version() -> str:
    text = subprocess.run(
        [str(toolchain.NVCC), "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"release ([\d.]+), (V[\d.]+)", text)
    return f"nvcc {version[1]} ({version[2]})" if version else "nvcc"


SECTIONS = {
    "triton": Section("Triton", lambda: f"Triton {triton.__version__}", triton_cases),
    "cuda": Section("CUDA C++", nvcc_version, cuda_cases),
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

Written by `python tools/gpu_table.py`; a test writes it again and compares. Nothing here was measured on a GPU,
and nothing here is a time.

- **registers, spilled bytes**: per thread, of the machine code (cuobjdump).
- **access bits**: the width in which most bytes were loaded and stored, per thread and instruction.
- **bytes moved / ideal**: what the threads asked of global memory in a launch in the emulator, over what a launch
  has to move: each logit once (twice where streamed), each gradient once, and what each block reads of an anchor.
- **occupancy**: resident warps over the most that a multiprocessor holds, and what limits them.
- **bound**: an estimate of the share of the DRAM rate that the kernel reaches at best for the shape given, and
  what limits it. From the bytes that must cross DRAM, the instructions that the loops executed (as PTX, in the
  ratio of machine code to PTX), what each pipe has to do of them, and by Little's law the bytes that resident
  threads keep in flight. It knows no cache, no launch overhead and no DRAM inefficiency: the truth is slower.
  Data-sheet figures and latencies used: {gpus}.
"""


def page(sections: Iterable[str]) -> str:
    return "\n".join([introduction(), *sections])


def main() -> None:
    written = []
    for section in SECTIONS.values():
        rows = []
        for row in measure(section.cases()):
            rows.append(row)
            print(row.markdown(), flush=True)
        written.append(section.markdown(rows))
    PAGE.write_text(page(written))


if __name__ == "__main__":
    main()
