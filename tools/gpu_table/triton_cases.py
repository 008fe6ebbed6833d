"""The Triton kernels on problems that tell about them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gankernels._scalar_run import terms_of
from gankernels.triton import operators, plans
from tools.gpu_table.cases import BF16, FP32, MEAN, NAMES, Case, bytes_of
from tools.ptxsim import triton_driver
from tools.ptxsim.execution import Execution


def _case(
    operator: str,
    family: str,
    shape: str,
    dtype: torch.dtype,
    rows: int,
    row_bytes: float,
    sample_rows: int,
    run: Callable[[int], int],
) -> Case:
    """``run`` launches the operator on so many rows on the CPU; gives the bytes that this has to move."""

    def launch(arch: int) -> tuple[Execution, int]:
        triton_driver.install(arch=arch)
        with triton_driver.recorded() as launches:
            ideal = run(sample_rows)
        (execution,) = launches  # one launch computes the loss and all its gradients
        return execution, ideal

    return Case(operator, family, shape, NAMES[dtype], rows, row_bytes, sample_rows, launch)


def _of_sum(programs: int, loss: Tensor) -> int:
    """The loss; each program's sum, written and read; the tickets, taken and put back."""
    return bytes_of(loss) + (programs * (8 + 8 + 4) + 4 if programs > 1 else 0)


class _Rows:
    """A problem of rows and classes, of which a few rows are run."""

    def __init__(
        self,
        rows: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        batches: int = 1,
        operands: int = 1,
    ) -> None:
        self.shape, self.dtype, self.batches = shape, dtype, batches
        self.classes = shape[0]
        self.per_sample = 1
        for size in shape[1:]:
            self.per_sample *= size
        self.rows = batches * rows * self.per_sample
        self.meaning = " × ".join(map(str, (rows, *shape)))
        adjacent = len(shape) > 1
        tile = plans.tile_of(self.classes, adjacent, operands=operands)
        self.tile, self.block, self.streamed = tile.rows, tile.block, tile.streamed
        self.threads = 32 * tile.warps
        self.walks = 2 if self.streamed else 1
        # Several tiles for each program that the CPU's stand-in has, but for streamed rows.
        self.sample = (4 if self.streamed else 32 * self.tile) // self.per_sample
        self.adjacent = adjacent
        self.sums_once = operands == 1  # an anchor's mass and entropy

    def logits(self, samples: int) -> Tensor:
        return torch.randn(samples, *self.shape).to(self.dtype)

    def anchor(self) -> Tensor:
        return torch.softmax(torch.randn(self.classes), 0).to(self.dtype)

    def programs(self) -> int:
        """Of each batch, in the last launch."""
        assert triton_driver.last is not None
        return triton_driver.last.grid[0] // self.batches

    def anchor_bytes(self, programs: int, samples: int, anchor: Tensor) -> int:
        """An anchor is read once by each program, and where rows are streamed again with every tile."""
        if self.streamed:
            tiles = -(-samples * self.per_sample // self.tile)
            return bytes_of(anchor) * (tiles + (programs if self.sums_once else tiles))
        return bytes_of(anchor) * programs * self.anchor_copies()

    def anchor_copies(self) -> int:
        """How often a program's threads together load an anchor that is smaller than they are many.

        Once per group of lanes that hold one row, which is each lane where rows lie side by side;
        and the logarithms are taken of it as it lies, one class per thread.
        """
        if self.block >= plans.TILE // 2:
            return 1
        if self.adjacent:
            return self.threads + self.threads // self.block
        at_once = min(16 // self.dtype.itemsize, math.gcd(self.classes, 8))
        return self.threads * at_once // self.block + self.threads // self.block

    def case(self, name: str, family: str, run: Callable[[int], int], tensors: float = 2) -> Case:
        """``tensors``: how many have a row for each row of a batch, read or written."""
        rows = self.batches * self.sample * self.per_sample
        return _case(
            name,
            family,
            self.meaning,
            self.dtype,
            self.rows,
            tensors * self.classes * self.dtype.itemsize,
            rows,
            lambda n: run(n // self.batches // self.per_sample),
        )


def _d_loss(rows: int, shape: tuple[int, ...], dtype: torch.dtype, family: str) -> Case:
    problem = _Rows(rows, shape, dtype, batches=2)

    def run(samples: int) -> int:
        real, fake = problem.logits(samples), problem.logits(samples)
        anchors = problem.anchor(), problem.anchor()
        loss, *gradients = operators.realness_d_loss(
            real, fake, *anchors, 1, MEAN, True, True, True, 1.0
        )
        programs = problem.programs()
        of_anchors = sum(problem.anchor_bytes(programs, samples, a) for a in anchors)
        moved = problem.walks * bytes_of(real, fake) + bytes_of(*gradients)
        return moved + of_anchors + _of_sum(2 * programs, loss)

    return problem.case("realness_d_loss", family, run)


def _g_loss(rows: int, classes: int, dtype: torch.dtype, family: str) -> Case:
    problem = _Rows(rows, (classes,), dtype, operands=3)

    def run(samples: int) -> int:
        real, fake = problem.logits(samples), problem.logits(samples)
        anchor = problem.anchor()
        loss, _, gradient = operators.realness_g_loss(
            real, fake, None, anchor, 2, 1, MEAN, False, True, True, 1.0
        )
        programs = problem.programs()
        moved = problem.walks * bytes_of(real, fake) + bytes_of(gradient)
        of_anchor = problem.anchor_bytes(programs, samples, anchor)
        return moved + of_anchor + _of_sum(programs, loss)

    return problem.case("realness_g_loss, objective 2", family, run, tensors=3)


def _pair(
    rows: int,
    classes: int,
    dtype: torch.dtype,
    family: str,
    name: str = "softmax_kl_logits",
    share: tuple[float, ...] = (),
    readings: int = 1,
) -> Case:
    """A divergence of two softmaxes, with both gradients."""
    problem = _Rows(rows, (classes,), dtype, operands=2)

    def run(samples: int) -> int:
        p, q = problem.logits(samples), problem.logits(samples)
        launcher = getattr(operators, name)
        loss, *gradients = launcher(p, q, *share, 1, MEAN, True, True, True, 1.0)
        moved = readings * bytes_of(p, q) + bytes_of(*gradients)
        return moved + _of_sum(problem.programs(), loss)

    return problem.case(name, family, run, tensors=4)


def _kl_rows(rows: int, classes: int, dtype: torch.dtype, family: str) -> Case:
    problem = _Rows(rows, (classes,), dtype, operands=3)

    def run(samples: int) -> int:
        logits = problem.logits(samples)
        target = problem.logits(samples).softmax(1)
        loss, *gradients = operators.softmax_kl(logits, target, 1, MEAN, True, True, True, 1.0)
        moved = problem.walks * bytes_of(logits, target) + bytes_of(*gradients)
        return moved + _of_sum(problem.programs(), loss)

    return problem.case("softmax_kl, target per row", family, run, tensors=4)


def _elementwise(
    name: str,
    count: int,
    dtype: torch.dtype,
    element_bytes: float,
    run: Callable[[int], int],
    batches: int = 1,
) -> Case:
    sample = batches * 16 * plans.ELEMENTS
    return _case(
        name,
        "elementwise",
        str(count),
        dtype,
        batches * count,
        element_bytes,
        sample,
        lambda n: run(n // batches),
    )


def _scalar(name: str, count: int, dtype: torch.dtype) -> Case:
    def run(samples: int) -> int:
        logits = [torch.randn(samples).to(dtype) for _ in range(2)]
        terms, places = terms_of(name, None, None), (0, -1, -1, 0, 1, -1, -1, 0)
        (loss,), gradients = operators.scalar_loss(
            logits, "r,f", places, terms, 1.0, MEAN, (0, 1), True, 1.0
        )
        programs = 2 * plans.element_programs(samples, loss.device)
        return bytes_of(*logits, *gradients) + _of_sum(programs, loss)

    return _elementwise(name, count, dtype, 2 * dtype.itemsize, run, batches=2)


def _discriminators(count: int, dtype: torch.dtype) -> Case:
    """The real and the fake logits of eight discriminators, ``count`` elements in all."""

    def run(samples: int) -> int:
        logits = [torch.randn(samples // 16).to(dtype) for _ in range(16)]
        places = tuple(k for i in range(16) for k in (i, -1, -1, 0))
        terms = terms_of("logistic_d_loss", None, None) * 8
        (loss,), gradients = operators.scalar_loss(
            logits, "x," * 16, places, terms, 1.0, MEAN, tuple(range(16)), True, 1.0
        )
        programs = 16 * plans.element_programs(samples // 16, loss.device)
        return bytes_of(*logits, *gradients) + _of_sum(programs, loss)

    name = "scalar_loss, eight discriminators"
    return _elementwise(name, count, dtype, 2 * dtype.itemsize, run)


def _scale(count: int, dtype: torch.dtype) -> Case:
    def run(samples: int) -> int:
        gradients = [torch.randn(samples).to(dtype) for _ in range(2)]
        grad_output = torch.tensor(0.5)
        scaled = operators.scale_gradients(gradients[0], gradients[1], grad_output, 0, -1, -1)
        by_each_thread = 128 * bytes_of(grad_output) * 2 * samples // plans.ELEMENTS
        return bytes_of(*gradients, *scaled) + by_each_thread

    return _elementwise("scale_gradients", count, dtype, 2 * dtype.itemsize, run, batches=2)


def _scale_in_place(count: int, dtype: torch.dtype) -> Case:
    def run(samples: int) -> int:
        gradients = [torch.randn(samples).to(dtype)]
        factor = torch.tensor(0.5)
        operators.scale_terms_(gradients, [factor], [-1])
        turns = samples // plans.ELEMENTS + plans.element_programs(samples, factor.device)
        return 2 * bytes_of(*gradients) + 128 * bytes_of(factor) * turns

    return _elementwise("scale_terms_", count, dtype, 2 * dtype.itemsize, run)


def _resample(count: int, dtype: torch.dtype, backward: bool) -> Case:
    def run(samples: int) -> int:
        statistics, noise = torch.randn(2, samples).to(dtype), torch.randn(1, samples)
        if not backward:
            z = operators.resample_forward(statistics, noise, 0)
            return bytes_of(statistics, noise, z)
        g = torch.randn(1, samples).to(dtype)
        gradient = operators.resample_backward(g, statistics, noise, 0)
        return bytes_of(g, statistics[1:], noise, gradient)

    name = "resample_backward" if backward else "resample_forward"
    # One of the two statistics is read backward; the noise has the accumulation dtype.
    statistics = 4 if backward else 3
    return _elementwise(name, count, dtype, statistics * dtype.itemsize + 4, run)


def triton_cases() -> list[Case]:
    """One for every kernel and form of it, at sizes that GANs and language models have."""
    return [
        _d_loss(4096, (20,), FP32, "rows in lanes"),
        _d_loss(4096, (64,), BF16, "rows in lanes"),
        _d_loss(64, (20, 16, 16), BF16, "rows side by side"),
        _d_loss(8192, (1024,), BF16, "rows in registers"),
        _d_loss(8192, (4096,), BF16, "rows in registers"),
        _d_loss(8192, (8192,), FP32, "rows in registers"),
        _d_loss(1024, (32768,), BF16, "streamed"),
        _kl_rows(8192, 1024, FP32, "rows in registers"),
        _g_loss(8192, 1024, BF16, "rows in registers"),
        _g_loss(1024, 32768, BF16, "streamed"),
        _pair(8192, 4096, BF16, "rows in registers"),
        _pair(8192, 8192, FP32, "rows in registers"),
        _pair(8192, 4096, BF16, "rows in registers", "js_divergence", (0.5,)),
        _pair(1024, 32768, BF16, "streamed", "js_divergence", (0.5,), 3),
        _scalar("logistic_d_loss", 1 << 20, FP32),
        _discriminators(1 << 20, BF16),
        _scale(1 << 20, BF16),
        _scale_in_place(1 << 20, BF16),
        _resample(1 << 20, BF16, backward=False),
        _resample(1 << 20, BF16, backward=True),
    ]
