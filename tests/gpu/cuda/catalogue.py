"""The CUDA kernels on problems that tell about them: what the table of docs/gpu-kernels.md is made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu.cuda import build, emulated
from gpu.emulation.execution import Execution

BF16, FP32 = torch.bfloat16, torch.float32
NAMES = {BF16: "bf16", FP32: "fp32"}
MEAN = 1
SUMS = 8 + 8 + 4  # of each block: its sum, written and read by the last one, and its ticket
WIDE = 16  # bytes of an access
VALUES = 8  # classes that a thread holds, or 16 where a row would take more than 512 threads
MAX_THREADS = 512


@dataclass(frozen=True)
class Entry:
    """A kernel on a problem.

    Attributes:
        name: The operator that launches it.
        family: Which of its forms it is.
        meaning: The shape of each batch.
        dtype: Of the logits.
        rows: Of the problem, all batches together; elements where every element is a row.
        row_bytes: What must cross DRAM for a row: its logits and gradients, once.
        sample_rows: Rows of the launch in the emulator.
        tile_rows: Rows that a block finishes in one turn of its loop.
        trips: Turns over the classes within it.
        launch: Runs it for an architecture; gives the launch and the bytes that it has to move.
    """

    name: str
    family: str
    meaning: str
    dtype: str
    rows: int
    row_bytes: float
    sample_rows: int
    tile_rows: int
    trips: int
    launch: Callable[[int], tuple[Execution, int]]


def size(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def execute(arch: int, run: Callable[[], object]) -> tuple[Execution, int]:
    """The one launch of an operator, and its blocks."""
    with emulated.launches(arch) as found:
        run()
    (launch,) = found
    cubin = build.compiled(emulated.source_of(launch.entry), arch).cubin
    execution = Execution(launch.entry, arch, cubin, math.prod(launch.block), 0, launch.result)
    return execution, math.prod(launch.grid)


def threads_per_row(classes: int) -> int:
    """The least power of two, at most MAX_THREADS, that holds a row in registers; all where it is streamed."""
    return min(MAX_THREADS, 1 << (-(-classes // VALUES) - 1).bit_length())


class Rows:
    """A problem of rows and classes, of which a few rows are run."""

    def __init__(
        self, rows: int, shape: tuple[int, ...], dtype: torch.dtype, batches: int, tensors: int
    ) -> None:
        self.shape, self.dtype, self.batches = shape, dtype, batches
        self.per_sample = math.prod(shape[1:])
        self.meaning = " × ".join(map(str, (rows, *shape)))
        self.rows = batches * rows * self.per_sample
        classes = shape[0]
        self.row_bytes = tensors * classes * torch.empty(0, dtype=dtype).element_size()
        threads = threads_per_row(classes)
        self.streamed = classes > 2 * VALUES * MAX_THREADS
        stacked = len(shape) > 1
        block = max(128, threads * (32 if stacked else 1))
        self.tile = block // threads
        self.trips = -(-classes // (VALUES * MAX_THREADS)) if self.streamed else 1
        # Several turns for each block of the small GPU that the emulator shows.
        self.samples = 2 if self.streamed else max(8, 12 * self.tile // self.per_sample)

    def logits(self) -> Tensor:
        emulated.library()  # knows the memory of tensors from now on
        return torch.randn(self.samples, *self.shape).to(self.dtype)

    def anchor(self) -> Tensor:
        return torch.softmax(torch.randn(self.shape[0]), 0).to(self.dtype)

    def anchor_bytes(self, anchor: Tensor, blocks: int) -> int:
        """Held in registers by each group of threads, or walked twice with each row."""
        if self.streamed:
            return size(anchor) * 2 * self.samples * self.batches
        return size(anchor) * blocks * self.tile

    def entry(
        self, name: str, family: str, launch: Callable[[int], tuple[Execution, int]]
    ) -> Entry:
        rows = self.batches * self.samples * self.per_sample
        return Entry(
            name,
            family,
            self.meaning,
            NAMES[self.dtype],
            self.rows,
            self.row_bytes,
            rows,
            self.tile,
            self.trips,
            launch,
        )


def walks(problem: Rows) -> int:
    return 2 if problem.streamed else 1


def of_sum(blocks: int, loss: Tensor) -> int:
    return size(loss) + (SUMS * blocks if blocks > 1 else 0)


def d_loss(rows: int, shape: tuple[int, ...], dtype: torch.dtype, family: str) -> Entry:
    problem = Rows(rows, shape, dtype, batches=2, tensors=2)

    def launch(arch: int) -> tuple[Execution, int]:
        real, fake, anchor = problem.logits(), problem.logits(), problem.anchor()
        results: list[Tensor] = []

        def run() -> None:
            results.extend(
                emulated.operator("realness_d_loss_value_and_grad")(
                    real, fake, anchor, anchor, 1, MEAN, True, True, True, 1.0
                )
            )

        execution, blocks = execute(arch, run)
        moved = walks(problem) * size(real, fake) + size(*results[1:])
        moved += problem.anchor_bytes(anchor, blocks) + of_sum(blocks, results[0])
        return execution, moved

    return problem.entry("realness_d_loss", family, launch)


def g_loss(rows: int, classes: int, dtype: torch.dtype, family: str) -> Entry:
    problem = Rows(rows, (classes,), dtype, batches=1, tensors=3)

    def launch(arch: int) -> tuple[Execution, int]:
        real, fake, anchor = problem.logits(), problem.logits(), problem.anchor()
        results: list[Tensor] = []

        def run() -> None:
            results.extend(
                emulated.operator("realness_g_loss_value_and_grad")(
                    real, fake, None, anchor, 2, 1, MEAN, False, True, True, 1.0
                )
            )

        execution, blocks = execute(arch, run)
        moved = walks(problem) * size(real, fake) + size(*results[1:])
        moved += problem.anchor_bytes(anchor, blocks) + of_sum(blocks, results[0])
        return execution, moved

    return problem.entry("realness_g_loss, objective 2", family, launch)


def kl_logits(rows: int, classes: int, dtype: torch.dtype, family: str) -> Entry:
    problem = Rows(rows, (classes,), dtype, batches=1, tensors=4)

    def launch(arch: int) -> tuple[Execution, int]:
        p, q = problem.logits(), problem.logits()
        results: list[Tensor] = []

        def run() -> None:
            results.extend(
                emulated.operator("softmax_kl_logits_value_and_grad")(
                    p, q, 1, MEAN, True, True, True, 1.0
                )
            )

        execution, blocks = execute(arch, run)
        moved = walks(problem) * size(p, q) + size(*results[1:]) + of_sum(blocks, results[0])
        return execution, moved

    return problem.entry("softmax_kl_logits", family, launch)


def elementwise(
    name: str,
    count: int,
    dtype: torch.dtype,
    tensors: float,
    launch: Callable[[int, int], tuple[Execution, int]],
    batches: int = 1,
) -> Entry:
    """``tensors``: bytes of an element that cross DRAM, over those of the dtype."""
    element = torch.empty(0, dtype=dtype).element_size()
    samples = 8192
    return Entry(
        name,
        "elementwise",
        str(count),
        NAMES[dtype],
        batches * count,
        tensors * element,
        batches * samples,
        256 * WIDE // element,
        1,
        lambda arch: launch(arch, samples),
    )


def scalar(name: str, count: int, dtype: torch.dtype) -> Entry:
    def launch(arch: int, samples: int) -> tuple[Execution, int]:
        emulated.library()
        real, fake = (torch.randn(samples).to(dtype) for _ in range(2))
        results: list[Tensor] = []

        def run() -> None:
            results.extend(
                emulated.operator("scalar_loss_value_and_grad")(
                    real, fake, name, 0.0, MEAN, True, True, True, 1.0
                )
            )

        execution, blocks = execute(arch, run)
        return execution, size(real, fake, *results[1:]) + of_sum(blocks, results[0])

    return elementwise(f"{name}_loss", count, dtype, 2, launch, batches=2)


def catalogue() -> list[Entry]:
    """One entry for every form of the row kernels, and the scalar losses."""
    return [
        d_loss(4096, (20,), FP32, "rows in lanes"),
        d_loss(4096, (64,), BF16, "rows in lanes"),
        d_loss(64, (20, 16, 16), BF16, "rows side by side"),
        d_loss(8192, (1024,), BF16, "rows in registers"),
        d_loss(8192, (4096,), BF16, "rows in registers"),
        d_loss(8192, (8192,), FP32, "rows in registers"),
        d_loss(1024, (32768,), BF16, "streamed"),
        g_loss(8192, 1024, BF16, "rows in registers"),
        kl_logits(8192, 4096, BF16, "rows in registers"),
        scalar("logistic_d", 1 << 20, FP32),
    ]
