"""Launches of the elementwise kernels: gradients times grad_output, and feature resampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gankernels.triton.geometry import INT32_MAX, MOST_AT_ONCE, TILE_MARGIN
from gankernels.triton.kernels.layers import (
    resample_backward_kernel,
    resample_kernel,
    scale_kernel,
)
from gankernels.triton.launching import launch
from gankernels.triton.plans import ELEMENTS


def _programs(count: int) -> int:
    return -(-count // ELEMENTS)


def _wide(count: int) -> bool:
    return count > INT32_MAX - TILE_MARGIN


def scale(gradients: list[Tensor], grad_output: Tensor, dim: int, rows: list[int]) -> list[Tensor]:
    """gradient * grad_output of one or two gradients, each divided by its rows where positive."""
    averages = [1 / n if n > 0 else 1.0 for n in rows]
    out = [torch.empty_like(g) for g in gradients]
    first, last = gradients[0], gradients[-1]
    # That of a sum over rows is one number, expanded.
    expanded = not any(
        n > 1 and s for n, s in zip(grad_output.shape, grad_output.stride(), strict=True)
    )
    per_row = grad_output.ndim > 0 and not (expanded and grad_output.numel() > 0)
    per_element = grad_output.ndim == first.ndim
    if per_row and not _in_one_order(gradients, grad_output, per_element):
        for g, result, average in zip(gradients, out, averages, strict=True):
            factor = grad_output * average
            factor = factor if per_element else factor.unsqueeze(dim)
            result.copy_(torch.where(factor == 0, 0.0, g * factor))
        return out
    # Elements in memory in the order of the outputs.
    inputs = [
        g if g.stride() == o.stride() else torch.empty_like(o).copy_(g)
        for g, o in zip(gradients, out, strict=True)
    ]
    classes, inner = 1, 1
    if per_row and not per_element:
        classes, inner = first.shape[dim], math.prod(first.shape[dim + 1 :])
    programs = [_programs(g.numel()) for g in gradients]
    if sum(programs) == 0:
        return out
    unit = math.gcd(MOST_AT_ONCE, first.numel(), last.numel())
    launch(
        scale_kernel,
        sum(programs),
        inputs[0],
        out[0],
        inputs[-1],
        out[-1],
        grad_output,
        first.numel() // unit,
        last.numel() // unit,
        averages[0],
        averages[-1],
        classes,
        inner,
        programs[0],
        BLOCK=ELEMENTS,
        PER_ROW=per_row,
        TWO=len(gradients) == 2,
        UNIT=unit,
        WIDE=_wide(max(first.numel(), last.numel())),
        num_warps=4,
    )
    return out


def _in_one_order(gradients: list[Tensor], grad_output: Tensor, per_element: bool) -> bool:
    """Whether element numbers tell which row, hence which entry of grad_output, an element has."""
    if per_element:
        dense = grad_output.is_contiguous() or gradients[0].numel() == 0
        return dense and all(g.is_contiguous() for g in gradients)
    return grad_output.is_contiguous() and all(g.is_contiguous() for g in gradients)


def _block(statistics: Tensor, dim: int) -> tuple[int, int]:
    """Elements of a block of means, each followed by as many log-variances; and their unit."""
    block = math.prod(statistics.shape[dim:]) // 2
    return block, math.gcd(MOST_AT_ONCE, block)


def resample(statistics: Tensor, noise: Tensor, z: Tensor, dim: int) -> None:
    count = z.numel()
    if count == 0:
        return
    block, unit = _block(statistics, dim)
    launch(
        resample_kernel,
        _programs(count),
        statistics.contiguous(),
        noise.contiguous(),
        z,
        count // unit,
        block // unit,
        BLOCK=ELEMENTS,
        UNIT=unit,
        WIDE=_wide(2 * count),
        num_warps=4,
    )


def resample_backward(
    grad: Tensor, statistics: Tensor, saved: Tensor, out: Tensor, dim: int
) -> None:
    count = grad.numel()
    if count == 0:
        return
    block, unit = _block(statistics, dim)
    launch(
        resample_backward_kernel,
        _programs(count),
        grad.contiguous(),
        statistics.contiguous(),
        saved.contiguous(),
        out,
        count // unit,
        block // unit,
        BLOCK=ELEMENTS,
        UNIT=unit,
        FROM_NOISE=saved.dtype != statistics.dtype,
        WIDE=_wide(2 * count),
        num_warps=4,
    )
