"""The losses of one logit over any number of tensors, in one launch: every program is on one of them.

A term's tensors, counts and numbers stand at one place of each tuple; loops over these are unrolled.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from gankernels.triton.kernels.common import SUM_BLOCK, elements_from, number
from gankernels.triton.kernels.functions import value_and_slope

# What a term has: places in its flags.
OTHER, WEIGHT, GRAD, OTHER_GRAD, WEIGHT_GRAD, FOLD = 0, 1, 2, 3, 4, 5


class Tensors(NamedTuple):
    """Of a term, or tuples of those of all; one that a term has not is its logits again."""

    x: Any
    other: Any
    weight: Any
    gradient: Any
    other_gradient: Any
    weight_gradient: Any
    per_weight: Any  # of neighbours that share a weight


@triton.jit
def tensors_of(lists, j: tl.constexpr):
    """Of the j-th term."""
    return Tensors(
        lists.x[j], lists.other[j], lists.weight[j],
        lists.gradient[j], lists.other_gradient[j], lists.weight_gradient[j], lists.per_weight[j],
    )  # fmt: skip


@triton.jit
def term_value(
    of, factor, scale, i, live, TERM: tl.constexpr, FLAGS: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    """One term of the elements i: writes its gradients, times `factor`, and gives its losses."""
    z = tl.load(of.x + i, mask=live, other=0.0).to(ACC)
    if FLAGS[0]:
        z -= tl.load(of.other + i, mask=live, other=0.0).to(ACC)
    SIGN: tl.constexpr = TERM[1]
    value, slope = value_and_slope((z - TERM[2]) * SIGN, TERM[0])
    value *= TERM[3]
    slope *= TERM[3] * SIGN
    if TERM[4] != 0:  # 0 * inf is NaN: a slope of zero must not touch the loss
        value += z * TERM[4]
        slope += TERM[4]
    value *= scale
    slope *= scale
    if FLAGS[1]:
        w = tl.load(of.weight + i // of.per_weight, mask=live, other=0.0).to(ACC)
        if FLAGS[4]:
            tl.store(of.weight_gradient + i, value * factor, mask=live)
        value = tl.where(w == 0, 0.0, value * w)
        slope = tl.where(w == 0, 0.0, slope * w)
    slope *= factor
    if FLAGS[2]:
        tl.store(of.gradient + i, slope.to(of.gradient.dtype.element_ty), mask=live)
    if FLAGS[3]:
        out = of.other_gradient
        tl.store(out + i, (-slope).to(out.dtype.element_ty), mask=live)
    return tl.where(live, value, 0.0)


@triton.jit
def float_of(count, dtype: tl.constexpr):
    """A count, which may be a constant, as a floating-point number."""
    return tl.full([], count, tl.int64).to(dtype)


@triton.jit
def term_total(
    of, count, grad_scale, scale, first, step,
    TERM: tl.constexpr, FLAGS: tl.constexpr, MEAN: tl.constexpr, ACC: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A program's part of the loss of one term: tiles `first`, `first + step`, ..."""
    elements = float_of(count, tl.float64)
    factor = number(grad_scale, tl.float64)
    if MEAN and FLAGS[5]:
        factor = factor / elements
    factor = factor.to(ACC)
    sums = tl.zeros([BLOCK], ACC)
    for tile in range(first, tl.cdiv(count, BLOCK), step):
        i, live = elements_from(tile, count, BLOCK, WIDE)
        sums += term_value(of, factor, number(scale, ACC), i, live, TERM, FLAGS, ACC)
    total = tl.sum(sums.to(tl.float64), 0)
    if MEAN:
        total = total / elements  # 0 / 0 is the NaN that the mean of nothing is
    return total


@triton.jit
def term_sums_kernel(
    xs,
    others,  # those that a term has not are its logits again
    weights,
    gradients,
    other_gradients,
    weight_gradients,
    losses,  # one of each output
    partials,
    ticket,
    counts,
    per_weights,  # of these neighbours share a weight
    firsts,  # the first program of each term, and how many there are
    scale: tl.float64,
    grad_scale: tl.float64,
    programs,
    TERMS: tl.constexpr,  # (function, sign, offset, weight, slope) of each
    FLAGS: tl.constexpr,  # what each has
    OUTPUTS: tl.constexpr,  # of each
    MEAN: tl.constexpr,
    SINGLE: tl.constexpr,
    CONTINUES: tl.constexpr,  # the first output has been begun by another launch
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Losses that are sums or means, and all gradients.

    Triton before 3.8 hands on a constant's items as plain numbers, which no function takes.
    """
    ACC: tl.constexpr = losses[0].dtype.element_ty
    pid = tl.program_id(0)
    COUNT: tl.constexpr = len(TERMS)
    lists = Tensors(xs, others, weights, gradients, other_gradients, weight_gradients, per_weights)
    if SINGLE:
        loss = number(0.0, tl.float64)
        for j in tl.static_range(COUNT):
            total = term_total(
                tensors_of(lists, j), counts[j], grad_scale, scale, 0, 1,
                tl.constexpr(TERMS[j]), tl.constexpr(FLAGS[j]), MEAN, ACC, BLOCK, WIDE,
            )  # fmt: skip
            if j == 0 or OUTPUTS[j] != OUTPUTS[j - 1]:
                loss = total
            else:
                loss += total
            if j == COUNT - 1 or OUTPUTS[j] != OUTPUTS[j + 1]:
                tl.store(losses[OUTPUTS[j]], loss.to(ACC))
    else:
        total = number(0.0, tl.float64)
        for j in tl.static_range(COUNT):
            if (pid >= firsts[j]) & (pid < firsts[j + 1]):
                total = term_total(
                    tensors_of(lists, j), counts[j], grad_scale, scale,
                    pid - firsts[j], firsts[j + 1] - firsts[j],
                    tl.constexpr(TERMS[j]), tl.constexpr(FLAGS[j]), MEAN, ACC, BLOCK, WIDE,
                )  # fmt: skip
        tl.store(partials + pid, total)
        tl.debug_barrier()  # whichever thread stored, the release below covers it
        if tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == programs - 1:
            for j in tl.static_range(COUNT):
                # Programs of one output lie one after the other: from its first term's on.
                if j == 0 or OUTPUTS[j] != OUTPUTS[j - 1]:
                    end = programs
                    for k in tl.static_range(COUNT - 1, j, -1):
                        if OUTPUTS[k] != OUTPUTS[j]:
                            end = firsts[k]
                    loss = program_sum(partials, firsts[j], end)
                    if CONTINUES and j == 0:
                        loss += tl.load(losses[0]).to(tl.float64)
                        tl.debug_barrier()  # every thread has read what one of them writes
                    tl.store(losses[OUTPUTS[j]], loss.to(ACC))
            tl.store(ticket, 0)


@triton.jit
def program_sum(partials, begin, end):
    """What programs from `begin` to `end` left, always in the same order."""
    sums = tl.zeros([SUM_BLOCK], tl.float64)
    for start in range(begin, end, SUM_BLOCK):
        i = start + tl.arange(0, SUM_BLOCK)
        # .cg: from L2, where the other programs' stores are.
        sums += tl.load(partials + i, mask=i < end, other=0.0, cache_modifier=".cg")
    return tl.sum(sums, 0)


@triton.jit
def term_rows_kernel(
    xs,
    others,
    weights,
    gradients,
    other_gradients,
    weight_gradients,
    losses,
    counts,
    per_weights,
    firsts,  # of the first term of each output; its other terms have none of their own
    scale: tl.float64,
    grad_scale: tl.float64,
    TERMS: tl.constexpr,
    FLAGS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Losses of elements, the terms of an output added up, and all gradients."""
    ACC: tl.constexpr = losses[0].dtype.element_ty
    pid = tl.program_id(0)
    COUNT: tl.constexpr = len(TERMS)
    lists = Tensors(xs, others, weights, gradients, other_gradients, weight_gradients, per_weights)
    factor = number(grad_scale, ACC)
    for j in tl.static_range(COUNT):
        if j == 0 or OUTPUTS[j] != OUTPUTS[j - 1]:  # a constant
            mine = (pid >= firsts[j]) & (pid < firsts[j + 1])
            if mine:
                i, live = elements_from(pid - firsts[j], counts[j], BLOCK, WIDE)
                rows = tl.zeros([BLOCK], ACC)
                for k in tl.static_range(j, COUNT):
                    if OUTPUTS[k] == OUTPUTS[j]:
                        rows += term_value(
                            tensors_of(lists, k), factor, number(scale, ACC),
                            i, live, tl.constexpr(TERMS[k]), tl.constexpr(FLAGS[k]), ACC,
                        )  # fmt: skip
                tl.store(losses[OUTPUTS[j]] + i, rows, mask=live)


@triton.jit
def scale_tile(
    gradient, out, factors, tile, count, rows,
    ACC: tl.constexpr, BY_ELEMENT: tl.constexpr, DIVIDE: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    i, live = elements_from(tile, count, BLOCK, WIDE)
    if BY_ELEMENT:
        factor = tl.load(factors + i, mask=live, other=0.0).to(tl.float64)
    else:
        factor = tl.load(factors).to(tl.float64)
    if DIVIDE:
        factor = factor / float_of(rows, tl.float64)
    x = tl.load(gradient + i, mask=live, other=0.0).to(ACC)
    factor = factor.to(ACC)
    x = tl.where(factor == 0, 0.0, x * factor)  # what does not count may be NaN
    tl.store(out + i, x.to(out.dtype.element_ty), mask=live)


@triton.jit
def scale_terms_kernel(
    gradients,
    outs,
    factors,  # one for each element where BY_ELEMENT, else one
    counts,
    rows,  # a mean's, by which its gradients are divided where DIVIDE
    firsts,
    BY_ELEMENT: tl.constexpr,
    DIVIDE: tl.constexpr,
    IN_PLACE: tl.constexpr,  # a factor of one leaves alone what is there
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """out = gradient * factor, a tile to a program or, in place, every so many tiles."""
    pid = tl.program_id(0)
    for j in tl.static_range(len(BY_ELEMENT)):
        if (pid >= firsts[j]) & (pid < firsts[j + 1]):
            ACC: tl.constexpr = factors[j].dtype.element_ty
            if IN_PLACE:
                tiles = tl.cdiv(counts[j], BLOCK)
                if not BY_ELEMENT[j] and not DIVIDE[j]:
                    tiles = tl.where(tl.load(factors[j]) == 1, 0, tiles)
                for tile in range(pid - firsts[j], tiles, firsts[j + 1] - firsts[j]):
                    scale_tile(
                        gradients[j], outs[j], factors[j], tile, counts[j], rows[j],
                        ACC, BY_ELEMENT[j], DIVIDE[j], BLOCK, WIDE,
                    )  # fmt: skip
            else:
                scale_tile(
                    gradients[j], outs[j], factors[j], pid - firsts[j], counts[j], rows[j],
                    ACC, BY_ELEMENT[j], DIVIDE[j], BLOCK, WIDE,
                )  # fmt: skip
