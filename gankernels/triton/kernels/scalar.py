"""The losses of one logit per sample or patch: weight * f(sign * (x - offset)) + slope * x.

One launch computes the loss and both gradients. The relativistic losses, whose offset is the other
batch's mean, take one program where both batches are small and one launch per stage where not.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from gankernels.triton.kernels.common import SUM_BLOCK, add_up, elements_from, number, units

# Stages of the relativistic losses, each of which needs the sums of the one before.
ALL, MEANS, SLOPES, GRADIENTS = 0, 1, 2, 3


@triton.jit
def log_1p(e):
    """log(1 + e) = 2 atanh(x), x = e / (2 + e), for e in [0, 1]: x is at most 1/3."""
    x = e / (e + 2.0)
    square = x * x
    # 8 terms leave 3^-17 / 17, below the rounding of float32; 17 terms do for float64.
    terms: tl.constexpr = 17 if e.dtype == tl.float64 else 8
    total = tl.zeros(e.shape, e.dtype)
    for i in tl.static_range(terms):
        total = total * square + 1.0 / (2 * (terms - 1 - i) + 1)
    return 2.0 * x * total


@triton.jit
def value_and_slope(u, FUNCTION: tl.constexpr):
    """f(u) and f'(u); FUNCTION is a place in FUNCTIONS of gankernels._scalar."""
    if FUNCTION == 0:
        # softplus: max(u, 0) + log(1 + e), sigmoid 1 / (1 + e) or e / (1 + e), e = exp(-|u|)
        e = tl.exp(-tl.abs(u))
        return tl.where(u > 0, u, 0.0) + log_1p(e), tl.where(u < 0, e, 1.0) / (e + 1.0)
    elif FUNCTION == 1:
        # max(0, 1 + u), with the subgradient 0 at the kink and NaN kept, as torch.relu has it
        v = u + 1.0
        return tl.where(v <= 0, 0.0, v), tl.where(v <= 0, 0.0, tl.full(v.shape, 1.0, v.dtype))
    elif FUNCTION == 2:
        return u * u * 0.5, u
    else:
        return u, tl.full(u.shape, 1.0, u.dtype)


@triton.jit
def term(
    x, offset, slope,
    FUNCTION: tl.constexpr, SIGN: tl.constexpr, WEIGHT: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """One batch's term of every logit, and its derivative."""
    value, derivative = value_and_slope((x - offset) * SIGN, FUNCTION)
    value *= WEIGHT
    derivative *= WEIGHT * SIGN
    if SLOPE:  # 0 * inf is NaN: a slope of zero must not touch the loss
        value += x * slope
        derivative += slope
    return value, derivative


@triton.jit(do_not_specialize=["count", "count2", "programs", "first_programs"])
def scalar_kernel(
    x,  # the first batch's logits: count of them
    gradient,
    x2,  # the second batch's: count2
    gradient2,
    loss,  # (), or one per element where PER_ROW
    partials,
    ticket,
    count,  # in UNITs, as is count2
    count2,
    weight: tl.float64,  # of the gradients
    weight2: tl.float64,
    scale: tl.float64,  # of the sum of a batch's losses
    scale2: tl.float64,
    slope: tl.float64,
    slope2: tl.float64,
    programs,
    first_programs,  # of `programs`, those on the first batch
    BLOCK: tl.constexpr,
    FUNCTION: tl.constexpr,
    SIGN: tl.constexpr,
    OFFSET: tl.constexpr,
    WEIGHT: tl.constexpr,
    SLOPE: tl.constexpr,
    GRAD: tl.constexpr,
    FUNCTION2: tl.constexpr,
    SIGN2: tl.constexpr,
    OFFSET2: tl.constexpr,
    WEIGHT2: tl.constexpr,
    SLOPE2: tl.constexpr,
    GRAD2: tl.constexpr,
    BATCHES: tl.constexpr,  # 1; 2: programs are shared out; 3: each takes the same of both
    PER_ROW: tl.constexpr,
    SINGLE: tl.constexpr,
    UNIT: tl.constexpr,  # divides the counts
    WIDE: tl.constexpr,
):
    ACC: tl.constexpr = loss.dtype.element_ty
    count, count2 = units(count, UNIT, WIDE), units(count2, UNIT, WIDE)
    pid = tl.program_id(0)
    factor, factor2 = number(slope, ACC), number(slope2, ACC)
    sums = tl.zeros([BLOCK], ACC)
    if BATCHES != 2 or pid < first_programs:
        for tile in range(pid, tl.cdiv(count, BLOCK), first_programs):
            i, live = elements_from(tile, count, BLOCK, WIDE)
            logits = tl.load(x + i, mask=live, other=0.0).to(ACC)
            value, g = term(logits, OFFSET, factor, FUNCTION, SIGN, WEIGHT, SLOPE)
            if GRAD:
                g = (g * number(weight, ACC)).to(gradient.dtype.element_ty)
                tl.store(gradient + i, g, mask=live)
            if BATCHES == 3:
                logits = tl.load(x2 + i, mask=live, other=0.0).to(ACC)
                value2, g = term(logits, OFFSET2, factor2, FUNCTION2, SIGN2, WEIGHT2, SLOPE2)
                value += value2
                if GRAD2:
                    g = (g * number(weight2, ACC)).to(gradient2.dtype.element_ty)
                    tl.store(gradient2 + i, g, mask=live)
            if PER_ROW:
                tl.store(loss + i, value, mask=live)
            else:
                sums += tl.where(live, value, 0.0)
        total = tl.sum(sums.to(tl.float64), 0) * number(scale, tl.float64)
    else:
        for tile in range(pid - first_programs, tl.cdiv(count2, BLOCK), programs - first_programs):
            i, live = elements_from(tile, count2, BLOCK, WIDE)
            logits = tl.load(x2 + i, mask=live, other=0.0).to(ACC)
            value, g = term(logits, OFFSET2, factor2, FUNCTION2, SIGN2, WEIGHT2, SLOPE2)
            if GRAD2:
                g = (g * number(weight2, ACC)).to(gradient2.dtype.element_ty)
                tl.store(gradient2 + i, g, mask=live)
            sums += tl.where(live, value, 0.0)
        total = tl.sum(sums.to(tl.float64), 0) * number(scale2, tl.float64)
    if not PER_ROW:
        add_up(total, loss, partials, ticket, programs, SINGLE)


@triton.jit
def column_sum(column, programs, STRIDE: tl.constexpr):
    """The sum of one column of the programs' sums, always in the same order."""
    sums = tl.zeros([SUM_BLOCK], tl.float64)
    for start in range(0, programs, SUM_BLOCK):
        i = start + tl.arange(0, SUM_BLOCK)
        sums += tl.load(column + i * STRIDE, mask=i < programs, other=0.0)
    return tl.sum(sums, 0)


@triton.jit
def logit_sum(x, count, first, step, ACC: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    total = tl.zeros([BLOCK], tl.float64)
    for tile in range(first, tl.cdiv(count, BLOCK), step):
        i, live = elements_from(tile, count, BLOCK, WIDE)
        total += tl.load(x + i, mask=live, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def slope_sum(
    x, count, offset, first, step,
    FUNCTION: tl.constexpr, SIGN: tl.constexpr, WEIGHT: tl.constexpr,
    ACC: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of the terms but for `slope`, which is of the logits themselves: no mean moves those."""
    total = tl.zeros([BLOCK], tl.float64)
    for tile in range(first, tl.cdiv(count, BLOCK), step):
        i, live = elements_from(tile, count, BLOCK, WIDE)
        logits = tl.load(x + i, mask=live, other=0.0).to(ACC)
        _, derivative = term(logits, offset, 0.0, FUNCTION, SIGN, WEIGHT, False)
        total += tl.where(live, derivative, 0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def relative_terms(
    x, gradient, loss, count, offset, slope, constant, weight, first, step,
    FUNCTION: tl.constexpr, SIGN: tl.constexpr, WEIGHT: tl.constexpr, SLOPE: tl.constexpr,
    ACC: tl.constexpr, BLOCK: tl.constexpr, GRAD: tl.constexpr,
    PER_ROW: tl.constexpr, ADD: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The sum of the terms; writes (derivative + constant) * weight."""
    total = tl.zeros([BLOCK], ACC)
    for tile in range(first, tl.cdiv(count, BLOCK), step):
        i, live = elements_from(tile, count, BLOCK, WIDE)
        logits = tl.load(x + i, mask=live, other=0.0).to(ACC)
        value, derivative = term(logits, offset, slope, FUNCTION, SIGN, WEIGHT, SLOPE)
        if GRAD:
            g = ((derivative + constant) * weight).to(gradient.dtype.element_ty)
            tl.store(gradient + i, g, mask=live)
        if PER_ROW:
            if ADD:
                value += tl.load(loss + i, mask=live)
            tl.store(loss + i, value, mask=live)
        else:
            total += tl.where(live, value, 0.0)
    return tl.sum(total.to(tl.float64), 0)


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
    real_count, fake_count = units(real_count, UNIT, WIDE), units(fake_count, UNIT, WIDE)
    pid = tl.program_id(0)
    here = sums + pid * 4
    if STAGE <= 1:
        real_sum = logit_sum(real, real_count, pid, programs, ACC, BLOCK, WIDE)
        fake_sum = logit_sum(fake, fake_count, pid, programs, ACC, BLOCK, WIDE)
        if STAGE == 1:
            tl.store(here, real_sum)
            tl.store(here + 1, fake_sum)
            return
    else:
        real_sum = column_sum(sums, programs, 4)
        fake_sum = column_sum(sums + 1, programs, 4)
    of_fake = (real_sum / number(real_count, tl.float64)).to(ACC) + OFFSET2
    of_real = (fake_sum / number(fake_count, tl.float64)).to(ACC) + OFFSET
    if STAGE == 0 or STAGE == 2:
        real_slope = slope_sum(
            real, real_count, of_real, pid, programs, FUNCTION, SIGN, WEIGHT, ACC, BLOCK, WIDE
        )
        fake_slope = slope_sum(
            fake, fake_count, of_fake, pid, programs, FUNCTION2, SIGN2, WEIGHT2, ACC, BLOCK, WIDE
        )
        if STAGE == 2:
            tl.store(here + 2, real_slope)
            tl.store(here + 3, fake_slope)
            return
    else:
        real_slope = column_sum(sums + 2, programs, 4)
        fake_slope = column_sum(sums + 3, programs, 4)
    total = number(real_scale, tl.float64) * relative_terms(
        real, real_gradient, loss, real_count, of_real, number(real_slope_of_logits, ACC),
        (-fake_slope * number(real_share, tl.float64)).to(ACC), number(real_weight, ACC), pid, programs,
        FUNCTION, SIGN, WEIGHT, SLOPE, ACC, BLOCK, REAL_GRAD, PER_ROW, False, WIDE,
    )  # fmt: skip
    if PER_ROW:
        tl.debug_barrier()  # this program wrote the losses that it now adds to
    total += number(fake_scale, tl.float64) * relative_terms(
        fake, fake_gradient, loss, fake_count, of_fake, number(fake_slope_of_logits, ACC),
        (-real_slope * number(fake_share, tl.float64)).to(ACC), number(fake_weight, ACC), pid, programs,
        FUNCTION2, SIGN2, WEIGHT2, SLOPE2, ACC, BLOCK, FAKE_GRAD, PER_ROW, True, WIDE,
    )  # fmt: skip
    if not PER_ROW:
        add_up(total, loss, partials, ticket, programs, STAGE == 0)
