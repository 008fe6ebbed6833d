"""The relativistic average losses: weight * f(sign * (x - offset)) + slope * x, less the other batch's mean.

One program where both batches are small, and one launch per stage where not.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from gankernels.triton.kernels.common import SUM_BLOCK, add_up, elements_from, number, units
from gankernels.triton.kernels.functions import value_and_slope

# Stages of the relativistic losses, each of which needs the sums of the one before.
ALL, MEANS, SLOPES, GRADIENTS = 0, 1, 2, 3


class Term(NamedTuple):
    """Of a batch's logits; constants."""

    FUNCTION: Any
    SIGN: Any
    OFFSET: Any
    WEIGHT: Any
    SLOPE: Any  # whether there is one


class Batch(NamedTuple):
    logits: Any
    gradient: Any
    count: Any
    weight: Any  # of the gradient
    scale: Any  # of the sum of the losses
    slope: Any


@triton.jit
def value_and_derivative(x, offset, slope, term: tl.constexpr):
    """The term of every logit, and its derivative."""
    value, derivative = value_and_slope((x - offset) * term.SIGN, term.FUNCTION)
    value *= term.WEIGHT
    derivative *= term.WEIGHT * term.SIGN
    if term.SLOPE:  # 0 * inf is NaN: a slope of zero must not touch the loss
        value += x * slope
        derivative += slope
    return value, derivative


@triton.jit
def column_sum(column, programs, STRIDE: tl.constexpr):
    """The sum of one column of the programs' sums, always in the same order."""
    sums = tl.zeros([SUM_BLOCK], tl.float64)
    for start in range(0, programs, SUM_BLOCK):
        i = start + tl.arange(0, SUM_BLOCK)
        sums += tl.load(column + i * STRIDE, mask=i < programs, other=0.0)
    return tl.sum(sums, 0)


@triton.jit
def logit_sum(batch, first, step, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for tile in range(first, tl.cdiv(batch.count, BLOCK), step):
        i, live = elements_from(tile, batch.count, BLOCK, WIDE)
        total += tl.load(batch.logits + i, mask=live, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def slope_sum(
    batch, offset, first, step, term: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Of the terms but for their slope, which is of the logits themselves: no mean moves those."""
    apart: tl.constexpr = Term(term.FUNCTION, term.SIGN, term.OFFSET, term.WEIGHT, False)
    total = tl.zeros([BLOCK], tl.float64)
    for tile in range(first, tl.cdiv(batch.count, BLOCK), step):
        i, live = elements_from(tile, batch.count, BLOCK, WIDE)
        logits = tl.load(batch.logits + i, mask=live, other=0.0).to(offset.dtype)
        _, derivative = value_and_derivative(logits, offset, 0.0, apart)
        total += tl.where(live, derivative, 0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def batch_total(
    batch, loss, offset, constant, first, step, term: tl.constexpr, GRAD: tl.constexpr,
    PER_ROW: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The scaled sum of the terms; writes (derivative + constant) * weight."""
    ACC: tl.constexpr = offset.dtype
    slope, weight = number(batch.slope, ACC), number(batch.weight, ACC)
    total = tl.zeros([BLOCK], ACC)
    for tile in range(first, tl.cdiv(batch.count, BLOCK), step):
        i, live = elements_from(tile, batch.count, BLOCK, WIDE)
        logits = tl.load(batch.logits + i, mask=live, other=0.0).to(ACC)
        value, derivative = value_and_derivative(logits, offset, slope, term)
        if GRAD:
            g = ((derivative + constant) * weight).to(batch.gradient.dtype.element_ty)
            tl.store(batch.gradient + i, g, mask=live)
        if PER_ROW:
            if ADD:
                value += tl.load(loss + i, mask=live)
            tl.store(loss + i, value, mask=live)
        else:
            total += tl.where(live, value, 0.0)
    return number(batch.scale, tl.float64) * tl.sum(total.to(tl.float64), 0)


@triton.jit(do_not_specialize=["real_count", "fake_count", "programs"])
def relativistic_kernel(
    real,
    real_gradient,
    fake,
    fake_gradient,
    loss,
    partials,
    ticket,
    sums,  # (programs, 4), float64: of real and fake logits, then of their terms' slopes
    real_count,  # in UNITs, as is fake_count
    fake_count,
    real_weight: tl.float64,  # of the gradients
    fake_weight: tl.float64,
    real_scale: tl.float64,  # of the sum of a batch's losses
    fake_scale: tl.float64,
    real_share: tl.float64,  # of the fake terms' slopes, what each real logit gets
    fake_share: tl.float64,
    real_slope_of_logits: tl.float64,
    fake_slope_of_logits: tl.float64,
    programs,
    STAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    FUNCTION: tl.constexpr,  # of the real terms, as up to REAL_GRAD
    SIGN: tl.constexpr,
    OFFSET: tl.constexpr,
    WEIGHT: tl.constexpr,
    SLOPE: tl.constexpr,
    REAL_GRAD: tl.constexpr,
    FUNCTION2: tl.constexpr,  # of the fake terms
    SIGN2: tl.constexpr,
    OFFSET2: tl.constexpr,
    WEIGHT2: tl.constexpr,
    SLOPE2: tl.constexpr,
    FAKE_GRAD: tl.constexpr,
    PER_ROW: tl.constexpr,
    UNIT: tl.constexpr,  # divides the counts
    WIDE: tl.constexpr,
):
    """Terms whose offsets are, besides their own, the other batch's means.

    Each logit also moves the other batch's terms, through its own batch's mean:
    d/dr_i of the fake terms = -(1 / N_r) sum_j f'_j, and the same with the roles exchanged.
    """
    ACC: tl.constexpr = loss.dtype.element_ty
    of_real: tl.constexpr = Term(FUNCTION, SIGN, OFFSET, WEIGHT, SLOPE)
    of_fake: tl.constexpr = Term(FUNCTION2, SIGN2, OFFSET2, WEIGHT2, SLOPE2)
    reals = Batch(
        real, real_gradient, units(real_count, UNIT, WIDE), real_weight, real_scale,
        real_slope_of_logits,
    )  # fmt: skip
    fakes = Batch(
        fake, fake_gradient, units(fake_count, UNIT, WIDE), fake_weight, fake_scale,
        fake_slope_of_logits,
    )  # fmt: skip
    pid = tl.program_id(0)
    here = sums + pid * 4
    if STAGE <= 1:
        real_sum = logit_sum(reals, pid, programs, BLOCK, WIDE)
        fake_sum = logit_sum(fakes, pid, programs, BLOCK, WIDE)
        if STAGE == 1:
            tl.store(here, real_sum)
            tl.store(here + 1, fake_sum)
            return
    else:
        real_sum = column_sum(sums, programs, 4)
        fake_sum = column_sum(sums + 1, programs, 4)
    real_mean = real_sum / number(reals.count, tl.float64)
    fake_mean = fake_sum / number(fakes.count, tl.float64)
    real_offset = fake_mean.to(ACC) + of_real.OFFSET
    fake_offset = real_mean.to(ACC) + of_fake.OFFSET
    if STAGE == 0 or STAGE == 2:
        real_slope = slope_sum(reals, real_offset, pid, programs, of_real, BLOCK, WIDE)
        fake_slope = slope_sum(fakes, fake_offset, pid, programs, of_fake, BLOCK, WIDE)
        if STAGE == 2:
            tl.store(here + 2, real_slope)
            tl.store(here + 3, fake_slope)
            return
    else:
        real_slope = column_sum(sums + 2, programs, 4)
        fake_slope = column_sum(sums + 3, programs, 4)
    real_constant = (-fake_slope * number(real_share, tl.float64)).to(ACC)
    fake_constant = (-real_slope * number(fake_share, tl.float64)).to(ACC)
    total = batch_total(
        reals, loss, real_offset, real_constant, pid, programs, of_real, REAL_GRAD,
        PER_ROW, False, BLOCK, WIDE,
    )  # fmt: skip
    if PER_ROW:
        tl.debug_barrier()  # this program wrote the losses that it now adds to
    total += batch_total(
        fakes, loss, fake_offset, fake_constant, pid, programs, of_fake, FAKE_GRAD,
        PER_ROW, True, BLOCK, WIDE,
    )  # fmt: skip
    if not PER_ROW:
        add_up(total, loss, partials, ticket, programs, STAGE == 0)
