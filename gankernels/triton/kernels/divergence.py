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

import triton
import triton.language as tl

from gankernels.triton.kernels.common import (
    add_up,
    along_rows,
    base_of,
    classes_from,
    exp_of,
    in_elements,
    load_target,
    masked_product,
    number,
    row_max,
    row_numbers,
    row_sum,
    rows_at,
    units,
    x_log_x,
)

# Few long rows are shared out among programs, in two launches: the sums of each part, and the gradients.
WHOLE, SUMS, GRADIENTS = 0, 1, 2


@triton.jit
def combine(p, m, ADJACENT: tl.constexpr):
    """B, S and sum P log P - sum M log M of every row."""
    b = p - m
    return b, row_sum(b, ADJACENT), row_sum(x_log_x(p) - x_log_x(m), ADJACENT)


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
def write_target_gradient(
    pointer, offsets, mask, p, t, s, log_s, weight, ADJACENT: tl.constexpr
):  # fmt: skip
    """log P + 1 - log q; where P = 0 nothing, but NaN in a row that log_softmax makes NaN."""
    g = weight * (tl.log(p) + 1.0 - (t - along_rows(log_s, ADJACENT)))
    g = tl.where(p == 0, along_rows(s - s, ADJACENT), g)
    tl.store(pointer + offsets, g.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def resident_logits(
    tile, rows, q, q_strides, inner, classes,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A tile's logits as they lie in memory; nothing is read of a tile beyond the last."""
    r = row_numbers(tile, ROWS, WIDE)
    k, inside = classes_from(0, classes, BLOCK, EVEN, ADJACENT, WIDE)
    offsets = rows_at(r, inner, q_strides, UNIT, ADJACENT) + k * q_strides[2]
    mask = along_rows(r < rows, ADJACENT) & inside
    return tl.load(q + offsets, mask=mask, other=-float("inf"))


@triton.jit
def resident_rows(
    r, live,  # (ROWS,): row numbers, and which exist
    logits,  # a tile
    q_grad, grad_strides,
    target, minus, target_strides, target_grad, target_grad_strides,
    b, mass, entropy,  # P - M (1, BLOCK) with its sum and entropy, where SHARED
    inner, classes, inverse, weight, target_weight,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr,
    Q_GRAD: tl.constexpr, TARGET_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The losses of rows that BLOCK holds; their gradients are written."""
    k, inside = classes_from(0, classes, BLOCK, EVEN, ADJACENT, WIDE)
    mask = along_rows(live, ADJACENT) & inside
    if not SHARED:
        offsets = rows_at(r, inner, target_strides, UNIT, ADJACENT) + k * target_strides[2]
        p = load_target(target, offsets, mask, ACC, HAS_TARGET)
        m = load_target(minus, offsets, mask, ACC, HAS_MINUS)
        b, mass, entropy = combine(p, m, ADJACENT)
    x = logits.to(ACC)
    if ADJACENT:  # a thread with many elements has no register for the factor
        x *= inverse
        inverse = 1.0
    t = x - along_rows(row_max(x, ADJACENT), ADJACENT)  # times the temperature
    e = exp_of(t, inverse)
    s = row_sum(e, ADJACENT)
    log_s = tl.log(s)
    if ACC.primitive_bitwidth < 64:
        dot = row_sum(masked_product(b, t), ADJACENT)
    if Q_GRAD:
        g = logit_gradient(e, along_rows(mass / s, ADJACENT), b, weight)
        offsets = rows_at(r, inner, grad_strides, UNIT, ADJACENT) + k * grad_strides[2]
        tl.store(q_grad + offsets, g.to(q_grad.dtype.element_ty), mask=mask)
    if TARGET_GRAD:
        offsets = (
            rows_at(r, inner, target_grad_strides, UNIT, ADJACENT) + k * target_grad_strides[2]
        )
        write_target_gradient(
            target_grad, offsets, mask, p, t * inverse, s, log_s, target_weight, ADJACENT
        )
    if ACC.primitive_bitwidth == 64:  # later, or registers run out
        dot = row_sum(masked_product(b, t), ADJACENT)
    return entropy + mass * log_s - dot * inverse


@triton.jit
def streamed_logits(
    start, end, live, q, q_row, stride,
    BLOCK: tl.constexpr, EVEN: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    k, inside = classes_from(start, end, BLOCK, EVEN, ADJACENT, WIDE)
    mask = along_rows(live, ADJACENT) & inside
    return tl.load(q + q_row + k * stride, mask=mask, other=-float("inf"))


@triton.jit
def streamed_target(
    start, end, live, target, minus, row, stride, ACC: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr,
    BLOCK: tl.constexpr, EVEN: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """P and M."""
    k, inside = classes_from(start, end, BLOCK, EVEN, ADJACENT, WIDE)
    mask = inside if SHARED else along_rows(live, ADJACENT) & inside
    p = load_target(target, row + k * stride, mask, ACC, HAS_TARGET)
    m = load_target(minus, row + k * stride, mask, ACC, HAS_MINUS)
    return p, m


@triton.jit
def shared_sums(
    target, minus, stride, classes, ACC: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr,
    BLOCK: tl.constexpr, EVEN: tl.constexpr, ADJACENT: tl.constexpr,
):  # fmt: skip
    """Mass and entropy of the target that all rows share."""
    TILE: tl.constexpr = [BLOCK, 1] if ADJACENT else [1, BLOCK]
    masses, entropies = tl.zeros(TILE, ACC), tl.zeros(TILE, ACC)
    for start in range(0, classes, BLOCK):
        p, m = streamed_target(
            start, classes, True, target, minus, 0, stride, ACC, HAS_TARGET, HAS_MINUS, True,
            BLOCK, EVEN, ADJACENT, False,
        )  # fmt: skip
        masses += p - m
        entropies += x_log_x(p) - x_log_x(m)
    return row_sum(masses, ADJACENT), row_sum(entropies, ADJACENT)


@triton.jit
def first_walk(
    begin, end, live, q, q_row, q_stride, target, minus, target_row, target_stride, inverse,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr, ANCHORS: tl.constexpr,
    EVEN: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of each row its maximum and the sum of exp relative to it; where ANCHORS also mass and entropy."""
    # Every lane carries its own maximum and sums: see common.py on reductions within loops.
    TILE: tl.constexpr = [BLOCK, ROWS] if ADJACENT else [ROWS, BLOCK]
    tops = tl.full(TILE, -float("inf"), ACC)
    sums = tl.zeros(TILE, ACC)
    masses, entropies = tl.zeros(TILE, ACC), tl.zeros(TILE, ACC)
    for start in range(begin, end, 2 * BLOCK):  # one rescaling for two classes of a lane
        x = streamed_logits(start, end, live, q, q_row, q_stride, BLOCK, EVEN, ADJACENT, WIDE)
        y = streamed_logits(
            start + BLOCK, end, live, q, q_row, q_stride, BLOCK, EVEN, ADJACENT, WIDE
        )
        x, y = x.to(ACC), y.to(ACC)
        higher = tl.maximum(tops, tl.maximum(x, y))
        base = base_of(higher)
        sums = sums * exp_of(tops - base, inverse)
        sums += exp_of(x - base, inverse) + exp_of(y - base, inverse)
        tops = higher
        if ANCHORS:
            for j in tl.static_range(2):
                p, m = streamed_target(
                    start + j * BLOCK, end, live, target, minus, target_row, target_stride, ACC,
                    HAS_TARGET, HAS_MINUS, SHARED, BLOCK, EVEN, ADJACENT, WIDE,
                )  # fmt: skip
                masses += p - m
                entropies += x_log_x(p) - x_log_x(m)
    top = row_max(tops, ADJACENT)
    s = row_sum(sums * exp_of(tops - along_rows(base_of(top), ADJACENT), inverse), ADJACENT)
    return top, s, row_sum(masses, ADJACENT), row_sum(entropies, ADJACENT)


@triton.jit
def write_tile(
    start, end, live, x, p, m, top, s, log_s, share,
    q_grad, grad_row, grad_stride, target_grad, target_grad_row, target_grad_stride,
    inverse, weight, target_weight,
    Q_GRAD: tl.constexpr, TARGET_GRAD: tl.constexpr,
    BLOCK: tl.constexpr, EVEN: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """B t, times the temperature, of every class; the gradients are written."""
    k, inside = classes_from(start, end, BLOCK, EVEN, ADJACENT, WIDE)
    mask = along_rows(live, ADJACENT) & inside
    t = x.to(p.dtype) - along_rows(top, ADJACENT)
    b = p - m
    if Q_GRAD:
        g = logit_gradient(exp_of(t, inverse), along_rows(share, ADJACENT), b, weight)
        offsets = grad_row + k * grad_stride
        tl.store(q_grad + offsets, g.to(q_grad.dtype.element_ty), mask=mask)
    if TARGET_GRAD:
        offsets = target_grad_row + k * target_grad_stride
        write_target_gradient(
            target_grad, offsets, mask, p, t * inverse, s, log_s, target_weight, ADJACENT
        )
    return masked_product(b, t)


@triton.jit
def second_walk(
    begin, end, live, top, s, mass,
    q, q_row, q_stride, q_grad, grad_row, grad_stride,
    target, minus, target_row, target_stride, target_grad, target_grad_row, target_grad_stride,
    inverse, weight, target_weight,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr,
    Q_GRAD: tl.constexpr, TARGET_GRAD: tl.constexpr,
    EVEN: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """sum B t of each row; the gradients are written."""
    TILE: tl.constexpr = [BLOCK, ROWS] if ADJACENT else [ROWS, BLOCK]
    dots = tl.zeros(TILE, ACC)
    share, log_s = mass / s, tl.log(s)
    for start in range(begin, end, 2 * BLOCK):
        x = streamed_logits(start, end, live, q, q_row, q_stride, BLOCK, EVEN, ADJACENT, WIDE)
        y = streamed_logits(
            start + BLOCK, end, live, q, q_row, q_stride, BLOCK, EVEN, ADJACENT, WIDE
        )
        for j in tl.static_range(2):
            at = start + j * BLOCK
            p, m = streamed_target(
                at, end, live, target, minus, target_row, target_stride, ACC,
                HAS_TARGET, HAS_MINUS, SHARED, BLOCK, EVEN, ADJACENT, WIDE,
            )  # fmt: skip
            dots += write_tile(
                at, end, live, x if j == 0 else y, p, m, top, s, log_s, share,
                q_grad, grad_row, grad_stride, target_grad, target_grad_row, target_grad_stride,
                inverse, weight, target_weight, Q_GRAD, TARGET_GRAD, BLOCK, EVEN, ADJACENT, WIDE,
            )  # fmt: skip
    return row_sum(dots, ADJACENT) * inverse


@triton.jit
def streamed_rows(
    r, live,
    q, q_strides, q_grad, grad_strides,
    target, minus, target_strides, target_grad, target_grad_strides,
    mass, entropy,  # of the target, where SHARED
    inner, classes, inverse, weight, target_weight,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr,
    Q_GRAD: tl.constexpr, TARGET_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The same for rows of any length: first maximum and sum, then loss and gradients."""
    q_row = rows_at(r, inner, q_strides, UNIT, ADJACENT)
    target_row = (
        tl.zeros([1, 1], r.dtype) if SHARED else rows_at(r, inner, target_strides, UNIT, ADJACENT)
    )
    top, s, row_mass, row_entropy = first_walk(
        0, classes, live, q, q_row, q_strides[2], target, minus, target_row, target_strides[2],
        inverse, ACC, ROWS, BLOCK, HAS_TARGET, HAS_MINUS, SHARED, not SHARED, EVEN, ADJACENT, WIDE,
    )  # fmt: skip
    if not SHARED:
        mass, entropy = row_mass, row_entropy
    s += top - top  # NaN where log_softmax is: a +inf, or nothing but -inf
    dot = second_walk(
        0, classes, live, top, s, mass, q, q_row, q_strides[2],
        q_grad, rows_at(r, inner, grad_strides, UNIT, ADJACENT), grad_strides[2],
        target, minus, target_row, target_strides[2],
        target_grad, rows_at(r, inner, target_grad_strides, UNIT, ADJACENT), target_grad_strides[2],
        inverse, weight, target_weight, ACC, ROWS, BLOCK,
        HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD, EVEN, ADJACENT, WIDE,
    )  # fmt: skip
    return entropy + mass * tl.log(s) - dot


@triton.jit
def batch_total(
    loss, tile, step,  # this program's tiles: tile, tile + step, ...
    q, q_strides, q_grad, grad_strides,
    target, minus, target_strides, target_grad, target_grad_strides,
    rows, inner, classes, inverse, weight, target_weight, scale,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr,
    Q_GRAD: tl.constexpr, TARGET_GRAD: tl.constexpr, STREAMED: tl.constexpr,
    PER_ROW: tl.constexpr, ADD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The scaled sum of the losses of one program's rows, or each of them where PER_ROW."""
    ACC: tl.constexpr = loss.dtype.element_ty
    if SHARED and not STREAMED:
        # Once for all of this program's rows.
        k, inside = classes_from(0, classes, BLOCK, EVEN, ADJACENT, False)
        p = load_target(target, k * target_strides[2], inside, ACC, HAS_TARGET)
        m = load_target(minus, k * target_strides[2], inside, ACC, HAS_MINUS)
        b, mass, entropy = combine(p, m, ADJACENT)
    elif SHARED:
        b = 0
        mass, entropy = shared_sums(
            target, minus, target_strides[2], classes, ACC, HAS_TARGET, HAS_MINUS,
            BLOCK, EVEN, ADJACENT,
        )  # fmt: skip
    else:
        b, mass, entropy = 0, 0, 0  # of each row
    inverse, factor = number(inverse, ACC), number(weight, ACC)
    target_factor = number(target_weight, ACC)
    total = tl.zeros([ROWS], tl.float64)
    tiles = tl.cdiv(rows, ROWS)
    # While a tile is computed the next one is on its way. There is no room for two of float64, of rows side by
    # side, of which a thread holds many elements, and where every element takes an address.
    AHEAD: tl.constexpr = (
        not STREAMED and not ADJACENT and UNIT >= 4 and ACC.primitive_bitwidth < 64
    )
    if AHEAD:
        following = resident_logits(
            tile, rows, q, q_strides, inner, classes, ROWS, BLOCK, EVEN, UNIT, ADJACENT, WIDE
        )
    for i in range(tile, tiles, step):
        r = row_numbers(i, ROWS, WIDE)
        live = r < rows
        if STREAMED:
            losses = streamed_rows(
                r, live, q, q_strides, q_grad, grad_strides,
                target, minus, target_strides, target_grad, target_grad_strides,
                mass, entropy, inner, classes, inverse, factor, target_factor, ACC, ROWS, BLOCK,
                HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD, EVEN, UNIT, ADJACENT, WIDE,
            )  # fmt: skip
        else:
            if AHEAD:
                logits = following
                following = resident_logits(
                    tl.minimum(i + step, tiles), rows, q, q_strides, inner, classes,
                    ROWS, BLOCK, EVEN, UNIT, ADJACENT, WIDE,
                )  # fmt: skip
            else:
                logits = resident_logits(
                    i, rows, q, q_strides, inner, classes, ROWS, BLOCK, EVEN, UNIT, ADJACENT, WIDE
                )
            losses = resident_rows(
                r, live, logits, q_grad, grad_strides,
                target, minus, target_strides, target_grad, target_grad_strides,
                b, mass, entropy, inner, classes, inverse, factor, target_factor, ACC, BLOCK,
                HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD, EVEN, UNIT, ADJACENT, WIDE,
            )  # fmt: skip
        if PER_ROW:
            losses *= number(scale, ACC)
            if ADD:
                losses += tl.load(loss + r, mask=live)
                tl.debug_barrier()  # every lane of a row has read it; one of them writes it
            tl.store(loss + r, losses, mask=live)
        else:
            total += tl.where(live, losses, 0.0).to(tl.float64)
    return tl.sum(total, 0) * number(scale, tl.float64)


@triton.jit
def part_total(
    row, part, parts, sums_of_row, span,
    q, q_strides, q_grad, grad_strides,
    target, minus, target_strides, target_grad, target_grad_strides,
    inner, classes, inverse, weight, target_weight, scale,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
    HAS_TARGET: tl.constexpr, HAS_MINUS: tl.constexpr, SHARED: tl.constexpr,
    Q_GRAD: tl.constexpr, TARGET_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr,
    PARTS: tl.constexpr, STAGE: tl.constexpr,
):  # fmt: skip
    """SUMS: writes a part's maximum, sum, mass and entropy. GRADIENTS: the part's share of the scaled loss."""
    r = row_numbers(row, 1, WIDE)
    live = r >= 0
    begin = part * span
    end = tl.minimum(begin + span, classes)
    q_row = rows_at(r, inner, q_strides, UNIT, False)
    target_row = (
        tl.zeros([1, 1], r.dtype) if SHARED else rows_at(r, inner, target_strides, UNIT, False)
    )
    inverse = number(inverse, ACC)
    total = tl.zeros([1], ACC)
    if STAGE == 1:
        top, s, mass, entropy = first_walk(
            begin, end, live, q, q_row, q_strides[2], target, minus, target_row, target_strides[2],
            inverse, ACC, 1, BLOCK, HAS_TARGET, HAS_MINUS, SHARED, True, EVEN, False, WIDE,
        )  # fmt: skip
        mine = sums_of_row + 4 * part + tl.arange(0, 1)
        tl.store(mine, top.to(tl.float64))
        tl.store(mine + 1, s.to(tl.float64))
        tl.store(mine + 2, mass.to(tl.float64))
        tl.store(mine + 3, entropy.to(tl.float64))
    else:
        top, s, mass, entropy = sums_of_parts(sums_of_row, parts, inverse, ACC, PARTS)
        dot = second_walk(
            begin, end, live, top, s, mass, q, q_row, q_strides[2],
            q_grad, rows_at(r, inner, grad_strides, UNIT, False), grad_strides[2],
            target, minus, target_row, target_strides[2],
            target_grad, rows_at(r, inner, target_grad_strides, UNIT, False), target_grad_strides[2],
            inverse, number(weight, ACC), number(target_weight, ACC), ACC, 1, BLOCK,
            HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD, EVEN, False, WIDE,
        )  # fmt: skip
        total = tl.where(part == 0, entropy + mass * tl.log(s), 0.0) - dot
    return tl.sum(total.to(tl.float64), 0) * number(scale, tl.float64)


@triton.jit
def sums_of_parts(sums_of_row, parts, inverse, ACC: tl.constexpr, PARTS: tl.constexpr):
    """Maximum, sum, mass and entropy of a row, from those of its parts in their order.

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
    return (
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
    if ADJACENT:
        rows, inner = units(rows, UNIT, WIDE), units(inner, UNIT, WIDE)
        rows2, inner2 = units(rows2, UNIT, WIDE), units(inner2, UNIT, WIDE)
    else:
        classes = units(classes, UNIT, False)
    q_strides = in_elements(q_outer, q_inner, q_class, UNIT, ADJACENT, WIDE)
    q2_strides = in_elements(q2_outer, q2_inner, q2_class, UNIT, ADJACENT, WIDE)
    grad_strides = in_elements(grad_outer, grad_inner, grad_class, UNIT, ADJACENT, WIDE)
    grad2_strides = in_elements(grad2_outer, grad2_inner, grad2_class, UNIT, ADJACENT, WIDE)
    target_grad_strides = in_elements(
        target_grad_outer, target_grad_inner, target_grad_class, UNIT, ADJACENT, WIDE
    )
    if SHARED:
        target_strides = (0, 0, target_class)
        target2_strides = (0, 0, target2_class)
    else:
        target_strides = in_elements(target_outer, target_inner, target_class, UNIT, ADJACENT, WIDE)
        target2_strides = in_elements(
            target2_outer, target2_inner, target2_class, UNIT, ADJACENT, WIDE
        )
    pid = tl.program_id(0)
    if STAGE != 0:
        row, part = pid // parts, pid % parts
        mine = of_parts + 4 * parts * row
        ACC: tl.constexpr = loss.dtype.element_ty
        if BATCHES == 1 or row < rows:
            total = part_total(
                row, part, parts, mine, span, q, q_strides, q_grad, grad_strides,
                target, minus, target_strides, target_grad, target_grad_strides,
                inner, classes, inverse, weight, target_weight, scale, ACC, BLOCK,
                HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD, EVEN, UNIT, WIDE, PARTS, STAGE,
            )  # fmt: skip
        else:
            total = part_total(
                row - rows, part, parts, mine, span, q2, q2_strides, q2_grad, grad2_strides,
                target2, minus, target2_strides, target_grad, target_grad_strides,
                inner2, classes, inverse, weight2, target_weight, scale2, ACC, BLOCK,
                HAS_TARGET, HAS_MINUS, SHARED, Q2_GRAD, TARGET_GRAD, EVEN, UNIT, WIDE, PARTS, STAGE,
            )  # fmt: skip
    elif BATCHES != 2 or pid < first_programs:
        total = batch_total(
            loss, pid, first_programs, q, q_strides, q_grad, grad_strides,
            target, minus, target_strides, target_grad, target_grad_strides,
            rows, inner, classes, inverse, weight, target_weight, scale, ROWS, BLOCK,
            HAS_TARGET, HAS_MINUS, SHARED, Q_GRAD, TARGET_GRAD, STREAMED, PER_ROW, False,
            EVEN, UNIT, ADJACENT, WIDE,
        )  # fmt: skip
    else:
        total = batch_total(
            loss, pid - first_programs, programs - first_programs,
            q2, q2_strides, q2_grad, grad2_strides,
            target2, minus, target2_strides, target_grad, target_grad_strides,
            rows2, inner2, classes, inverse, weight2, target_weight, scale2, ROWS, BLOCK,
            HAS_TARGET, HAS_MINUS, SHARED, Q2_GRAD, TARGET_GRAD, STREAMED, PER_ROW, False,
            EVEN, UNIT, ADJACENT, WIDE,
        )  # fmt: skip
    if BATCHES == 3 and STAGE == 0:
        tl.debug_barrier()  # this program wrote the losses that it now adds to
        total += batch_total(
            loss, pid, programs, q2, q2_strides, q2_grad, grad2_strides,
            target2, minus, target2_strides, target_grad, target_grad_strides,
            rows2, inner2, classes, inverse, weight2, target_weight, scale2, ROWS, BLOCK,
            HAS_TARGET, HAS_MINUS, SHARED, Q2_GRAD, TARGET_GRAD, STREAMED, PER_ROW, True,
            EVEN, UNIT, ADJACENT, WIDE,
        )  # fmt: skip
    if not PER_ROW and STAGE != 1:
        add_up(total, loss, partials, ticket, programs, SINGLE)
