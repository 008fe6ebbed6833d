"""KL(P || softmax(z)) - KL(M || softmax(z)) and its gradients, for P and M given as probabilities.

With q = softmax(z), m = max z, t = z - m, s = sum exp t, B = P - M and S = sum B, per row:

    loss = sum P log P - sum M log M - sum B t + S log s
    d/dz = S q - B,    d/dP = log P + 1 - log q

Logits are multiplied by the inverse of their temperature where they are read.

One exponential per element serves both. Rows that fit are held in registers and read once; longer
ones are walked twice, in blocks. One launch serves two batches, each with its own P.

Strides are those of (outer row, inner row, class), in elements.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from gankernels.triton.kernels.common import (
    Layout,
    add_up,
    along_classes,
    along_rows,
    base_of,
    classes_from,
    each_lane,
    exp_of,
    extent,
    hand_over,
    load_target,
    masked_product,
    number,
    operand,
    row_max,
    row_numbers,
    row_sum,
    rows_at,
    target_operand,
    target_rows,
    x_log_x,
)

# Few long rows are shared out among programs, in two launches: the sums of each part, and the gradients.
WHOLE, SUMS, GRADIENTS = 0, 1, 2


class Given(NamedTuple):
    """What a batch has; constants."""

    P: Any
    M: Any
    SHARED: Any  # whether all rows have the same P and M
    GRADIENT: Any
    TARGET_GRADIENT: Any


class Batch(NamedTuple):
    extent: Any
    logits: Any
    gradient: Any
    p: Any
    m: Any  # lies as P does
    target_gradient: Any
    inverse: Any  # of the temperature
    weight: Any  # of the gradients
    target_weight: Any
    scale: Any  # of the losses


class Factors(NamedTuple):
    """Of a batch, in the accumulation dtype."""

    inverse: Any
    weight: Any
    target_weight: Any


class Sums(NamedTuple):
    """Of rows: the maximum of their logits, sum exp t, S and sum P log P - sum M log M."""

    top: Any
    s: Any
    mass: Any
    entropy: Any


@triton.jit
def factors_of(batch, ACC: tl.constexpr):
    return Factors(
        number(batch.inverse, ACC), number(batch.weight, ACC), number(batch.target_weight, ACC)
    )


@triton.jit
def load_targets(batch, offsets, mask, ACC: tl.constexpr, given: tl.constexpr):
    """P and M."""
    p = load_target(batch.p.pointer, offsets, mask, ACC, given.P)
    m = load_target(batch.m.pointer, offsets, mask, ACC, given.M)
    return p, m


@triton.jit
def combine(p, m, layout: tl.constexpr):
    """B, S and sum P log P - sum M log M of every row."""
    b = p - m
    return b, row_sum(b, layout), row_sum(x_log_x(p) - x_log_x(m), layout)


@triton.jit
def logit_gradient(e, share, b, weight):
    """weight * (S q - B), with S q = e * share."""
    if e.dtype == tl.float64:
        return e * (weight * share) - weight * b
    else:
        none = tl.zeros_like(e)
        # + 0: no gradient of a weight of zero is -0.
        return tl.fma(none + weight, tl.fma(e, none + share, none - b), none)


@triton.jit
def write_target_gradient(pointer, offsets, mask, p, t, s, log_s, weight, layout: tl.constexpr):
    """log P + 1 - log q; where P = 0 nothing, but NaN in a row that log_softmax makes NaN."""
    g = weight * (tl.log(p) + 1.0 - (t - along_rows(log_s, layout)))
    g = tl.where(p == 0, along_rows(s - s, layout), g)
    tl.store(pointer + offsets, g.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def resident_logits(tile, batch, layout: tl.constexpr):
    """A tile's logits as they lie in memory; nothing is read of a tile beyond the last."""
    logits = batch.logits
    r = row_numbers(tile, layout)
    k, inside = classes_from(0, batch.extent.classes, layout)
    offsets = rows_at(logits, r, batch.extent.inner, layout) + k * logits.cls
    mask = along_rows(r < batch.extent.rows, layout) & inside
    return tl.load(logits.pointer + offsets, mask=mask, other=-float("inf"))


@triton.jit
def resident_rows(
    r, live,  # (ROWS,): row numbers, and which exist
    logits,  # a tile
    b, mass, entropy,  # P - M (1, BLOCK) with its sum and entropy, where SHARED
    batch, factors, given: tl.constexpr, layout: tl.constexpr,
):  # fmt: skip
    """The losses of rows that BLOCK holds; their gradients are written."""
    inner = batch.extent.inner
    inverse = factors.inverse
    ACC: tl.constexpr = inverse.dtype
    k, inside = classes_from(0, batch.extent.classes, layout)
    mask = along_rows(live, layout) & inside
    if not given.SHARED:
        offsets = rows_at(batch.p, r, inner, layout) + k * batch.p.cls
        p, m = load_targets(batch, offsets, mask, ACC, given)
        b, mass, entropy = combine(p, m, layout)
    x = logits.to(ACC)
    if layout.ADJACENT:  # a thread with many elements has no register for the factor
        x *= inverse
        inverse = 1.0
    t = x - along_rows(row_max(x, layout), layout)  # times the temperature
    e = exp_of(t, inverse)
    s = row_sum(e, layout)
    log_s = tl.log(s)
    if ACC.primitive_bitwidth < 64:
        dot = row_sum(masked_product(b, t), layout)
    if given.GRADIENT:
        out = batch.gradient
        g = logit_gradient(e, along_rows(mass / s, layout), b, factors.weight)
        offsets = rows_at(out, r, inner, layout) + k * out.cls
        tl.store(out.pointer + offsets, g.to(out.pointer.dtype.element_ty), mask=mask)
    if given.TARGET_GRADIENT:
        out = batch.target_gradient
        offsets = rows_at(out, r, inner, layout) + k * out.cls
        write_target_gradient(
            out.pointer, offsets, mask, p, t * inverse, s, log_s, factors.target_weight, layout
        )
    if ACC.primitive_bitwidth == 64:  # later, or registers run out
        dot = row_sum(masked_product(b, t), layout)
    return entropy + mass * log_s - dot * inverse


@triton.jit
def streamed_logits(start, end, live, logits, row, layout: tl.constexpr):
    k, inside = classes_from(start, end, layout)
    mask = along_rows(live, layout) & inside
    return tl.load(logits.pointer + row + k * logits.cls, mask=mask, other=-float("inf"))


@triton.jit
def streamed_targets(
    start, end, live, batch, row, ACC: tl.constexpr, given: tl.constexpr, layout: tl.constexpr
):  # fmt: skip
    """P and M."""
    k, inside = classes_from(start, end, layout)
    mask = inside if given.SHARED else along_rows(live, layout) & inside
    return load_targets(batch, row + k * batch.p.cls, mask, ACC, given)


@triton.jit
def shared_sums(batch, ACC: tl.constexpr, given: tl.constexpr, layout: tl.constexpr):
    """Mass and entropy of the target that all rows share."""
    classes = batch.extent.classes
    masses = along_classes(tl.zeros([layout.BLOCK], ACC), layout)
    entropies = along_classes(tl.zeros([layout.BLOCK], ACC), layout)
    for start in range(0, classes, layout.BLOCK):
        p, m = streamed_targets(start, classes, True, batch, 0, ACC, given, layout)
        masses += p - m
        entropies += x_log_x(p) - x_log_x(m)
    return row_sum(masses, layout), row_sum(entropies, layout)


@triton.jit
def first_walk(
    begin, end, r, live, batch, inverse,
    ANCHORS: tl.constexpr, given: tl.constexpr, layout: tl.constexpr,
):  # fmt: skip
    """The sums of rows' classes from `begin` to `end`; where not ANCHORS without mass and entropy."""
    ACC: tl.constexpr = inverse.dtype
    BLOCK: tl.constexpr = layout.BLOCK
    row = rows_at(batch.logits, r, batch.extent.inner, layout)
    target_row = target_rows(batch.p, r, batch.extent.inner, given.SHARED, layout)
    # Every lane carries its own maximum and sums: see common.py on reductions within loops.
    tops = each_lane(-float("inf"), ACC, layout)
    sums = each_lane(0.0, ACC, layout)
    masses, entropies = each_lane(0.0, ACC, layout), each_lane(0.0, ACC, layout)
    for start in range(begin, end, 2 * BLOCK):  # one rescaling for two classes of a lane
        x = streamed_logits(start, end, live, batch.logits, row, layout)
        y = streamed_logits(start + BLOCK, end, live, batch.logits, row, layout)
        x, y = x.to(ACC), y.to(ACC)
        higher = tl.maximum(tops, tl.maximum(x, y))
        base = base_of(higher)
        sums = sums * exp_of(tops - base, inverse)
        sums += exp_of(x - base, inverse) + exp_of(y - base, inverse)
        tops = higher
        if ANCHORS:
            for j in tl.static_range(2):
                p, m = streamed_targets(
                    start + j * BLOCK, end, live, batch, target_row, ACC, given, layout
                )
                masses += p - m
                entropies += x_log_x(p) - x_log_x(m)
    top = row_max(tops, layout)
    s = row_sum(sums * exp_of(tops - along_rows(base_of(top), layout), inverse), layout)
    return Sums(top, s, row_sum(masses, layout), row_sum(entropies, layout))


@triton.jit
def write_tile(
    start, end, live, x, p, m, row, target_row, log_s, share, sums, batch, factors,
    given: tl.constexpr, layout: tl.constexpr,
):  # fmt: skip
    """B t, times the temperature, of every class; the gradients are written where rows of them lie."""
    k, inside = classes_from(start, end, layout)
    mask = along_rows(live, layout) & inside
    t = x.to(p.dtype) - along_rows(sums.top, layout)
    b = p - m
    if given.GRADIENT:
        out = batch.gradient
        g = logit_gradient(exp_of(t, factors.inverse), along_rows(share, layout), b, factors.weight)
        offsets = row + k * out.cls
        tl.store(out.pointer + offsets, g.to(out.pointer.dtype.element_ty), mask=mask)
    if given.TARGET_GRADIENT:
        out = batch.target_gradient
        write_target_gradient(
            out.pointer, target_row + k * out.cls, mask, p, t * factors.inverse,
            sums.s, log_s, factors.target_weight, layout,
        )  # fmt: skip
    return masked_product(b, t)


@triton.jit
def second_walk(
    begin, end, r, live, sums, batch, factors, given: tl.constexpr, layout: tl.constexpr
):  # fmt: skip
    """sum B t of each row; the gradients are written."""
    inner = batch.extent.inner
    ACC: tl.constexpr = factors.inverse.dtype
    BLOCK: tl.constexpr = layout.BLOCK
    row = rows_at(batch.logits, r, inner, layout)
    target_row = target_rows(batch.p, r, inner, given.SHARED, layout)
    gradient_row = rows_at(batch.gradient, r, inner, layout)
    target_gradient_row = rows_at(batch.target_gradient, r, inner, layout)
    dots = each_lane(0.0, ACC, layout)
    share, log_s = sums.mass / sums.s, tl.log(sums.s)
    for start in range(begin, end, 2 * BLOCK):
        x = streamed_logits(start, end, live, batch.logits, row, layout)
        y = streamed_logits(start + BLOCK, end, live, batch.logits, row, layout)
        for j in tl.static_range(2):
            at = start + j * BLOCK
            p, m = streamed_targets(at, end, live, batch, target_row, ACC, given, layout)
            dots += write_tile(
                at, end, live, x if j == 0 else y, p, m, gradient_row, target_gradient_row,
                log_s, share, sums, batch, factors, given, layout,
            )  # fmt: skip
    return row_sum(dots, layout) * factors.inverse


@triton.jit
def streamed_rows(
    r, live, mass, entropy, batch, factors, given: tl.constexpr, layout: tl.constexpr
):  # fmt: skip
    """The same for rows of any length: first maximum and sum, then loss and gradients."""
    SHARED: tl.constexpr = given.SHARED  # whose mass and entropy are known
    classes = batch.extent.classes
    sums = first_walk(0, classes, r, live, batch, factors.inverse, not SHARED, given, layout)
    if not SHARED:
        mass, entropy = sums.mass, sums.entropy
    s = sums.s + (sums.top - sums.top)  # NaN where log_softmax is: a +inf, or nothing but -inf
    sums = Sums(sums.top, s, mass, entropy)
    dot = second_walk(0, classes, r, live, sums, batch, factors, given, layout)
    return entropy + mass * tl.log(s) - dot


@triton.jit
def batch_total(
    loss, tile, step,  # this program's tiles: tile, tile + step, ...
    batch, given: tl.constexpr, layout: tl.constexpr,
    STREAMED: tl.constexpr, PER_ROW: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """The scaled sum of the losses of one program's rows, or each of them where PER_ROW."""
    ACC: tl.constexpr = loss.dtype.element_ty
    rows, classes = batch.extent.rows, batch.extent.classes
    if given.SHARED and not STREAMED:
        # Once for all of this program's rows.
        k, inside = classes_from(0, classes, layout)
        p, m = load_targets(batch, k * batch.p.cls, inside, ACC, given)
        b, mass, entropy = combine(p, m, layout)
    elif given.SHARED:
        b = 0
        mass, entropy = shared_sums(batch, ACC, given, layout)
    else:
        b, mass, entropy = 0, 0, 0  # of each row
    factors = factors_of(batch, ACC)
    total = tl.zeros([layout.ROWS], tl.float64)
    tiles = tl.cdiv(rows, layout.ROWS)
    # While a tile is computed the next one is on its way. There is no room for two of float64, of rows side by
    # side, of which a thread holds many elements, and where every element takes an address.
    AHEAD: tl.constexpr = (
        not STREAMED and not layout.ADJACENT and layout.UNIT >= 4 and ACC.primitive_bitwidth < 64
    )
    if AHEAD:
        following = resident_logits(tile, batch, layout)
    for i in range(tile, tiles, step):
        r = row_numbers(i, layout)
        live = r < rows
        if STREAMED:
            losses = streamed_rows(r, live, mass, entropy, batch, factors, given, layout)
        else:
            if AHEAD:
                logits = following
                following = resident_logits(tl.minimum(i + step, tiles), batch, layout)
            else:
                logits = resident_logits(i, batch, layout)
            losses = resident_rows(r, live, logits, b, mass, entropy, batch, factors, given, layout)
        total = hand_over(losses, total, loss, r, live, batch.scale, PER_ROW, ADD)
    return tl.sum(total, 0) * number(batch.scale, tl.float64)


@triton.jit
def part_total(
    row, part, parts, sums_of_row, span, batch, given: tl.constexpr, layout: tl.constexpr,
    ACC: tl.constexpr, PARTS: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """SUMS: writes a part's maximum, sum, mass and entropy. GRADIENTS: the part's share of the scaled loss."""
    r = row_numbers(row, layout)
    live = r >= 0
    begin = part * span
    end = tl.minimum(begin + span, batch.extent.classes)
    factors = factors_of(batch, ACC)
    total = tl.zeros([1], ACC)
    if STAGE == 1:
        sums = first_walk(begin, end, r, live, batch, factors.inverse, True, given, layout)
        mine = sums_of_row + 4 * part + tl.arange(0, 1)
        tl.store(mine, sums.top.to(tl.float64))
        tl.store(mine + 1, sums.s.to(tl.float64))
        tl.store(mine + 2, sums.mass.to(tl.float64))
        tl.store(mine + 3, sums.entropy.to(tl.float64))
    else:
        sums = sums_of_parts(sums_of_row, parts, factors.inverse, ACC, PARTS)
        dot = second_walk(begin, end, r, live, sums, batch, factors, given, layout)
        total = tl.where(part == 0, sums.entropy + sums.mass * tl.log(sums.s), 0.0) - dot
    return tl.sum(total.to(tl.float64), 0) * number(batch.scale, tl.float64)


@triton.jit
def sums_of_parts(sums_of_row, parts, inverse, ACC: tl.constexpr, PARTS: tl.constexpr):
    """The sums of a row, from those of its parts in their order.

    They are reduced to scalars: a tensor of the layout that holds the parts would be spread over a tile in that
    layout, and go to the tile's own through shared memory, all of it by every thread.
    """
    part = tl.arange(0, PARTS)
    exists = part < parts
    at = sums_of_row + 4 * part
    tops = tl.load(at, mask=exists, other=-float("inf")).to(ACC)
    sums = tl.load(at + 1, mask=exists, other=0.0).to(ACC)
    top = tl.max(tops, 0)
    s = tl.sum(sums * exp_of(tops - base_of(top), inverse), 0) + (top - top)
    mass = tl.sum(tl.load(at + 2, mask=exists, other=0.0).to(ACC), 0)
    entropy = tl.sum(tl.load(at + 3, mask=exists, other=0.0).to(ACC), 0)
    return Sums(
        tl.full([1], top, ACC), tl.full([1], s, ACC), tl.full([1], mass, ACC),
        tl.full([1], entropy, ACC),
    )  # fmt: skip


# Batch sizes change from call to call: no new kernel for one that divides by 16, or is 1.
@triton.jit(do_not_specialize=["rows", "rows2", "programs", "first_programs", "parts"])
def divergence_kernel(
    q,  # logits of the first batch: rows x classes
    q_grad,
    target,  # P: rows x classes, or classes where SHARED
    minus,  # M: likewise
    target_grad,
    q2,  # the second batch: rows2 x classes
    q2_grad,
    target2,
    loss,  # (), or one per row where PER_ROW
    of_parts,  # (rows + rows2, parts, 4), float64: what the first of two launches leaves to the second
    partials,
    ticket,
    rows,  # in UNITs where ADJACENT, as are inner, rows2 and inner2
    inner,
    rows2,
    inner2,
    classes,  # in UNITs where not ADJACENT
    q_outer,
    q_inner,
    q_class,
    grad_outer,
    grad_inner,
    grad_class,
    target_outer,
    target_inner,
    target_class,
    target_grad_outer,
    target_grad_inner,
    target_grad_class,
    q2_outer,
    q2_inner,
    q2_class,
    grad2_outer,
    grad2_inner,
    grad2_class,
    target2_outer,
    target2_inner,
    target2_class,
    inverse: tl.float64,  # of the temperature
    weight: tl.float64,  # of the gradients
    weight2: tl.float64,
    target_weight: tl.float64,
    scale: tl.float64,  # of a batch's losses
    scale2: tl.float64,
    programs,
    first_programs,  # of `programs`, those on the first batch
    parts,  # programs that share a row
    span,  # classes of a part
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr,
    HAS_MINUS: tl.constexpr,
    SHARED: tl.constexpr,
    Q_GRAD: tl.constexpr,
    Q2_GRAD: tl.constexpr,
    TARGET_GRAD: tl.constexpr,
    BATCHES: tl.constexpr,  # 1; 2: programs are shared out; 3: each takes the same rows of both
    STREAMED: tl.constexpr,
    PER_ROW: tl.constexpr,
    SINGLE: tl.constexpr,
    EVEN: tl.constexpr,
    UNIT: tl.constexpr,  # divides all strides but 1, and the extent of what lies side by side
    ADJACENT: tl.constexpr,  # whether that is rows, not classes
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,  # `parts` or more, a power of 2
    STAGE: tl.constexpr,  # WHOLE: rows are not shared; else SUMS, GRADIENTS
):
    layout: tl.constexpr = Layout(ROWS, BLOCK, EVEN, UNIT, ADJACENT, WIDE)
    given: tl.constexpr = Given(HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD)
    given2: tl.constexpr = Given(HAS_TARGET, HAS_MINUS, SHARED, Q2_GRAD, TARGET_GRAD)
    target_gradient = operand(
        target_grad, target_grad_outer, target_grad_inner, target_grad_class, layout
    )
    batch = Batch(
        extent(rows, inner, classes, layout),
        operand(q, q_outer, q_inner, q_class, layout),
        operand(q_grad, grad_outer, grad_inner, grad_class, layout),
        target_operand(target, target_outer, target_inner, target_class, SHARED, layout),
        target_operand(minus, target_outer, target_inner, target_class, SHARED, layout),
        target_gradient, inverse, weight, target_weight, scale,
    )  # fmt: skip
    batch2 = Batch(
        extent(rows2, inner2, classes, layout),
        operand(q2, q2_outer, q2_inner, q2_class, layout),
        operand(q2_grad, grad2_outer, grad2_inner, grad2_class, layout),
        target_operand(target2, target2_outer, target2_inner, target2_class, SHARED, layout),
        target_operand(minus, target2_outer, target2_inner, target2_class, SHARED, layout),
        target_gradient, inverse, weight2, target_weight, scale2,
    )  # fmt: skip
    pid = tl.program_id(0)
    if STAGE != 0:
        row, part = pid // parts, pid % parts
        mine = of_parts + 4 * parts * row
        ACC: tl.constexpr = loss.dtype.element_ty
        if BATCHES == 1 or row < rows:
            total = part_total(
                row, part, parts, mine, span, batch, given, layout, ACC, PARTS, STAGE
            )
        else:
            total = part_total(
                row - rows, part, parts, mine, span, batch2, given2, layout, ACC, PARTS, STAGE
            )
    elif BATCHES != 2 or pid < first_programs:
        total = batch_total(
            loss, pid, first_programs, batch, given, layout, STREAMED, PER_ROW, False
        )
    else:
        total = batch_total(
            loss, pid - first_programs, programs - first_programs, batch2, given2, layout,
            STREAMED, PER_ROW, False,
        )  # fmt: skip
    if BATCHES == 3 and STAGE == 0:
        tl.debug_barrier()  # this program wrote the losses that it now adds to
        total += batch_total(loss, pid, programs, batch2, given2, layout, STREAMED, PER_ROW, True)
    if not PER_ROW and STAGE != 1:
        add_up(total, loss, partials, ticket, programs, SINGLE)
