"""The CUDA C++ kernels on problems that tell about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from gpu.cuda import build, emulated
from torch import Tensor

from gankernels._scalar_run import _ONE as ONE
from gankernels._scalar_run import terms_of
from tools.gpu_table.cases import BF16, FP32, MEAN, NAMES, Case, bytes_of
from tools.ptxsim.execution import Execution

OF_A_BLOCK = 8 + 8 + 4  # its sum, written and read by the last block, and its ticket


def _run(arch: int, call: Callable[[], Any]) -> emulated.Launch:
    with emulated.launches(arch, multiprocessors=1) as found:
        call()
    (launch,) = found  # one launch computes the loss and all its gradients
    return launch


def execution_of(arch: int, launch: emulated.Launch) -> Execution:
    cubin = build.compiled(emulated.source_of(launch.entry), arch).cubin
    return Execution(launch.entry, arch, cubin, math.prod(launch.block), 0, launch.result)


def _anchor(classes: int) -> Tensor:
    return torch.softmax(torch.randn(classes), 0)


def _of_sums(launch: emulated.Launch, loss: Tensor) -> int:
    blocks = launch.grid[0] * launch.grid[1]
    return bytes_of(loss) + (OF_A_BLOCK * blocks if blocks > 1 else 0)


def _d_loss(
    rows: int, shape: tuple[int, ...], dtype: torch.dtype, family: str, tile: int, sample: int
) -> Case:
    """``sample`` rows of each batch: as many as one turn of the whole grid takes."""
    classes, per_sample = shape[0], int(torch.Size(shape[1:]).numel())
    size = torch.empty((), dtype=dtype).element_size()

    def once(arch: int, n: int) -> tuple[emulated.Launch, int]:
        real, fake = (torch.randn(n // per_sample, *shape).to(dtype) for _ in range(2))
        anchor = _anchor(classes).to(dtype)
        outputs: list[Tensor] = []

        def call() -> None:
            outputs[:] = emulated.operator("realness_d_loss_value_and_grad")(
                real, fake, anchor, anchor, 1, MEAN, True, True, True, 1.0
            )

        launch = _run(arch, call)
        loss, *gradients = outputs
        # An anchor is read once by the threads of each row that a block works on at a time; where rows are packed
        # for each row too.
        times = launch.grid[0] * launch.grid[1] * tile + (2 * n if family == "packed" else 0)
        of_anchor = bytes_of(anchor) * times
        return launch, bytes_of(real, fake, *gradients) + of_anchor + _of_sums(launch, loss)

    def launch(arch: int) -> tuple[Execution, int]:
        emulated.library()  # knows the memory of tensors from now on
        launched, ideal = once(arch, 2 * sample)
        return execution_of(arch, launched), ideal

    meaning = " × ".join(map(str, (rows, *shape)))
    return Case(
        "realness_d_loss", family, meaning, NAMES[dtype], 2 * rows * per_sample,
        2 * classes * size, 4 * sample, launch,
    )  # fmt: skip


def _pair(
    rows: int,
    classes: int,
    dtype: torch.dtype,
    family: str,
    sample: int,
    reads: int,
    name: str = "softmax_kl_logits",
    share: tuple[float, ...] = (),
) -> Case:
    """A divergence of two softmaxes, with both gradients."""
    size = torch.empty((), dtype=dtype).element_size()

    def once(arch: int, n: int) -> tuple[emulated.Launch, int]:
        p, q = (torch.randn(n, classes).to(dtype) for _ in range(2))
        outputs: list[Tensor] = []

        def call() -> None:
            outputs[:] = emulated.operator(f"{name}_value_and_grad")(
                p, q, *share, 1, MEAN, True, True, True, 1.0
            )

        launch = _run(arch, call)
        loss, *gradients = outputs
        return launch, reads * bytes_of(p, q) + bytes_of(*gradients) + _of_sums(launch, loss)

    def launch(arch: int) -> tuple[Execution, int]:
        emulated.library()  # knows the memory of tensors from now on
        launched, ideal = once(arch, 2 * sample)
        return execution_of(arch, launched), ideal

    return Case(
        name, family, f"{rows} × {classes}", NAMES[dtype], rows,
        4 * classes * size, 2 * sample, launch,
    )  # fmt: skip


def elements(name: str, count: int, dtype: torch.dtype, sample: int, of_element: float) -> Case:
    """An operator without classes: every element is a row."""

    def once(arch: int, n: int) -> tuple[emulated.Launch, int]:
        outputs: list[Tensor] = []

        def call() -> None:
            if name == "scalar_loss":
                x, terms = torch.randn(n).to(dtype), terms_of("nonsaturating_g_loss", None, None)
                losses, gradients = emulated.operator("scalar_loss_value_and_grad")(
                    [x], "f", ONE, terms, 1.0, MEAN, (0,), True, 1.0
                )
                outputs[:] = [*losses, *gradients]
            elif name == "scale_terms_":
                outputs[:] = [torch.randn(n).to(dtype)]
                emulated.operator("scale_terms_")(outputs, [torch.tensor(0.5)], [-1])
            elif name == "scale_gradients":
                x = torch.randn(n).to(dtype)
                outputs[:] = [emulated.operator("scale_gradient")(x, torch.tensor(0.5), 0, -1)]
            else:
                statistics, noise = torch.randn(n // 64, 128).to(dtype), torch.randn(n // 64, 64)
                outputs[:] = [emulated.operator("resample_forward")(statistics, noise, 1)]

        launch = _run(arch, call)
        ideal = int(n * of_element)
        if name == "scalar_loss":
            ideal += _of_sums(launch, outputs[0])
        elif name == "scale_gradients":
            ideal += 4 * n * dtype.itemsize // 16  # grad_output, once for each run: from L1
        elif name == "scale_terms_":
            ideal += 4 * launch.grid[0] * launch.block[0]  # and here once for each thread
        return launch, ideal

    def launch(arch: int) -> tuple[Execution, int]:
        emulated.library()  # knows the memory of tensors from now on
        launched, ideal = once(arch, 2 * sample)
        return execution_of(arch, launched), ideal

    return Case(
        name, "elements", str(count), NAMES[dtype], count, of_element, 2 * sample, launch
    )  # fmt: skip


def discriminators(count: int, dtype: torch.dtype, sample: int, of: int = 8) -> Case:
    """The real and the fake logits of so many discriminators, ``count`` elements in all."""

    def once(arch: int, n: int) -> tuple[emulated.Launch, int]:
        outputs: list[Tensor] = []
        tensors = [x.clone() for x in torch.randn(n).to(dtype).chunk(2 * of)]
        places = tuple(k for i in range(2 * of) for k in (i, -1, -1, 0))

        def call() -> None:
            losses, gradients = emulated.operator("scalar_loss_value_and_grad")(
                tensors, "x," * 2 * of, places, terms_of("logistic_d_loss", None, None) * of, 1.0, MEAN,
                tuple(range(2 * of)), True, 1.0,
            )  # fmt: skip
            outputs[:] = [*losses, *gradients]

        launch = _run(arch, call)
        return launch, bytes_of(*tensors, *outputs[1:]) + _of_sums(launch, outputs[0])

    def launch(arch: int) -> tuple[Execution, int]:
        emulated.library()  # knows the memory of tensors from now on
        launched, ideal = once(arch, 2 * sample)
        return execution_of(arch, launched), ideal

    name = "scalar_loss, eight discriminators" if of == 8 else "logistic_d_loss"
    return Case(
        name, "elements", str(count), NAMES[dtype], count,
        2 * dtype.itemsize, 2 * sample, launch,
    )  # fmt: skip


def cuda_cases() -> list[Case]:
    """What the table shows; two samples are two turns of the grid of a GPU with one multiprocessor."""
    return [
        _d_loss(4096, (20,), FP32, "rows of a part of a warp", 32, 512),
        _d_loss(4096, (51,), FP32, "rows of a part of a warp", 8, 128),
        _d_loss(4096, (64,), BF16, "rows of a part of a warp", 16, 256),
        _d_loss(128, (20, 16, 16), FP32, "rows across lanes", 128, 256),
        _d_loss(8192, (1024,), BF16, "rows of a warp", 4, 64),
        _d_loss(8192, (4096,), BF16, "rows of several warps", 1, 16),
        _d_loss(8192, (8192,), FP32, "rows of several warps", 1, 4),
        _d_loss(1024, (32768,), BF16, "packed", 1, 2),
        _pair(8192, 1024, BF16, "rows of several warps", 32, 1),
        _pair(1024, 32768, BF16, "streamed", 4, 2),
        _pair(8192, 1024, BF16, "rows of several warps", 32, 1, "js_divergence", (0.5,)),
        _pair(1024, 32768, BF16, "streamed", 4, 3, "js_divergence", (0.5,)),
        elements("scalar_loss", 1 << 22, BF16, 16384, 4),
        discriminators(1 << 22, BF16, 16384),
        elements("scale_gradients", 1 << 22, BF16, 16384, 4),
        elements("scale_terms_", 1 << 22, BF16, 16384, 4),
        elements("resample_logits", 1 << 22, BF16, 16384, 2 + 2 + 2 + 4),
    ]
