"""Where the microseconds of a small call go: the same loss entered at one layer after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gankernels as gk
from benchmarks.formulas import NoOperation
from benchmarks.timing import interleaved

SHAPE = (128, 20)


def stages() -> dict[str, Callable[[], object]]:
    """From the kernel outwards; each stage contains the one before it unless its name says else."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    anchors = gk.anchors.gaussian(20, 1, 1, -2, 2), gk.anchors.gaussian(20, -1, 1, -2, 2)
    leaves = tuple(x.clone().requires_grad_() for x in (real, fake))
    operators = torch.ops.gankernels
    kernel = operators.realness_d_loss_value_and_grad.default
    differentiable = operators.realness_d_loss.default
    fused = gk.value_and_grad(gk.realness_d_loss)
    one = torch.ones(())

    def grad(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), leaves)

    def backward() -> None:
        gk.realness_d_loss(*leaves, *anchors).backward()
        leaves[0].grad = leaves[1].grad = None

    return {
        "empty_like, three times": lambda: [torch.empty_like(real) for _ in range(3)],
        "kernel through the dispatcher": lambda: kernel(
            real, fake, *anchors, 1, 1, True, True, True, 1.0
        ),
        "value_and_grad": lambda: fused(real, fake, *anchors),
        "operator, no gradient wanted": lambda: differentiable(real, fake, *anchors),
        "operator, with its graph": lambda: differentiable(*leaves, *anchors),
        "gk.realness_d_loss, with its graph": lambda: gk.realness_d_loss(*leaves, *anchors),
        "gk.realness_d_loss, and autograd.grad": grad(
            lambda: gk.realness_d_loss(*leaves, *anchors)
        ),
        "gk.realness_d_loss, and backward()": backward,
        "floor: an empty Python autograd function, and autograd.grad": lambda: torch.autograd.grad(
            NoOperation.apply(*leaves, one), leaves, allow_unused=True
        ),
        "floor: torch.dot, and autograd.grad": grad(
            lambda: torch.dot(leaves[0].view(-1), leaves[1].view(-1))
        ),
    }


def measure(threads: int, rounds: int) -> list[dict[str, Any]]:
    """One row per stage, in microseconds per call."""
    measured = interleaved(stages(), threads=threads, rounds=rounds)
    return [
        {
            "stage": name,
            "shape": "x".join(map(str, SHAPE)),
            "median_us": round(m.median, 2),
            "p20_us": round(m.percentile(20), 2),
            "p80_us": round(m.percentile(80), 2),
        }
        for name, m in measured.items()
    ]


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(f"\nrealness_d_loss {rows[0]['shape']} fp32, by stage")
    print(f"  {'':62}{'median us':>10}{'p20':>9}{'p80':>9}")
    for row in rows:
        print(
            f"  {row['stage']:62}{row['median_us']:10.1f}{row['p20_us']:9.1f}{row['p80_us']:9.1f}"
        )
