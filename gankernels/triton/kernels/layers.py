"""Elementwise kernels: gradients times grad_output, and feature resampling."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from gankernels.triton.kernels.common import elements_from, number, units


@triton.jit
def scale_elements(
    gradient, out, grad_output, count, average, classes, inner, tile,
    ACC: tl.constexpr, BLOCK: tl.constexpr, PER_ROW: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    i, live = elements_from(tile, count, BLOCK, WIDE)
    if PER_ROW:
        # Element (outer, k, inner) belongs to row (outer, inner).
        row = i // (classes * inner) * inner + i % inner
        factor = tl.load(grad_output + row, mask=live, other=0.0).to(ACC) * number(average, ACC)
    else:
        factor = (tl.load(grad_output).to(tl.float64) * number(average, tl.float64)).to(ACC)
    x = tl.load(gradient + i, mask=live, other=0.0).to(ACC)
    x = tl.where(factor == 0, 0.0, x * factor)  # a row that a mask leaves out may hold NaN
    tl.store(out + i, x.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["count", "count2", "first_programs"])
def scale_kernel(
    gradient,  # count elements
    out,
    gradient2,  # count2 elements
    out2,
    grad_output,  # (), or one per row where PER_ROW
    count,  # in UNITs, as is count2
    count2,
    average: tl.float64,  # a further factor
    average2: tl.float64,
    classes,
    inner,
    first_programs,  # of all programs, those on the first gradient
    BLOCK: tl.constexpr,
    PER_ROW: tl.constexpr,
    TWO: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out = gradient * grad_output * average, for one or two gradients in one launch."""
    ACC: tl.constexpr = tl.float64 if gradient.dtype.element_ty == tl.float64 else tl.float32
    tile = tl.program_id(0)
    if not TWO or tile < first_programs:
        scale_elements(
            gradient, out, grad_output, units(count, UNIT, WIDE), average, classes, inner,
            tile, ACC, BLOCK, PER_ROW, WIDE,
        )  # fmt: skip
    else:
        scale_elements(
            gradient2, out2, grad_output, units(count2, UNIT, WIDE), average2, classes, inner,
            tile - first_programs, ACC, BLOCK, PER_ROW, WIDE,
        )  # fmt: skip


@triton.jit
def statistics_from(
    tile, count, block, BLOCK: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Elements of z, which exist, where their means are, and how far on their log-variances.

    Blocks of means and of log-variances alternate in memory; count and block are in UNITs.
    """
    i, live = elements_from(tile, units(count, UNIT, WIDE), BLOCK, WIDE)
    size = units(block, UNIT, WIDE)
    return i, live, i // size * (2 * size) + i % size, size


@triton.jit(do_not_specialize=["count"])
def resample_kernel(
    statistics,  # (outer, 2, block): means, then log-variances
    noise,  # (outer, block), accumulation dtype
    z,  # (outer, block)
    count,  # in UNITs, as is block
    block,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
):
    """z = mu + noise exp(logvar / 2)"""
    ACC: tl.constexpr = noise.dtype.element_ty
    i, live, mean, size = statistics_from(tl.program_id(0), count, block, BLOCK, UNIT, WIDE)
    mu = tl.load(statistics + mean, mask=live, other=0.0).to(ACC)
    log_variance = tl.load(statistics + (mean + size), mask=live, other=0.0).to(ACC)
    e = tl.load(noise + i, mask=live, other=0.0)
    x = mu + e * tl.exp(log_variance * 0.5)
    tl.store(z + i, x.to(z.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["count"])
def resample_backward_kernel(
    grad,  # (outer, block)
    statistics,  # (outer, 2, block)
    saved,  # (outer, block): z, or the noise where FROM_NOISE
    out,  # (outer, 2, block)
    count,  # in UNITs, as is block
    block,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    FROM_NOISE: tl.constexpr,
    WIDE: tl.constexpr,
):
    """d/dmu = g, d/dlogvar = g (z - mu) / 2; a z rounded to 16 bits has lost the difference."""
    ACC: tl.constexpr = saved.dtype.element_ty
    i, live, mean, size = statistics_from(tl.program_id(0), count, block, BLOCK, UNIT, WIDE)
    g = tl.load(grad + i, mask=live, other=0.0).to(ACC)
    kept = tl.load(saved + i, mask=live, other=0.0)
    if FROM_NOISE:
        log_variance = tl.load(statistics + (mean + size), mask=live, other=0.0).to(ACC)
        spread = kept * tl.exp(log_variance * 0.5)
    else:
        spread = kept - tl.load(statistics + mean, mask=live, other=0.0).to(ACC)
    tl.store(out + mean, g.to(out.dtype.element_ty), mask=live)
    tl.store(out + (mean + size), (g * spread * 0.5).to(out.dtype.element_ty), mask=live)
