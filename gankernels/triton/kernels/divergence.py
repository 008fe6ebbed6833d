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
    rescaling,
    row_max,
    row_numbers,
    row_sum,
    rows_at,
    units,
    x_log_x,
)


@triton.jit
def combine(p, m, ADJACENT: tl.constexpr):
    """B, S and sum P log P - sum M log M of every row."""
    b = p - m
    return b, row_sum(b, ADJACENT), row_sum(x_log_x(p) - x_log_x(m), ADJACENT)


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
    t = x - along_rows(row_max(x, ADJACENT), ADJACENT)  # times the temperature
    e = exp_of(t, inverse)
    s = row_sum(e, ADJACENT)
    log_s = tl.log(s)
    dot = row_sum(masked_product(b, t), ADJACENT)
    if Q_GRAD:
        # S q - B
        share = tl.zeros_like(e) + along_rows(mass / s, ADJACENT)
        g = weight * tl.fma(e, share, tl.zeros_like(e) - b)
        offsets = rows_at(r, inner, grad_strides, UNIT, ADJACENT) + k * grad_strides[2]
        tl.store(q_grad + offsets, g.to(q_grad.dtype.element_ty), mask=mask)
    if TARGET_GRAD:
        offsets = (
            rows_at(r, inner, target_grad_strides, UNIT, ADJACENT) + k * target_grad_strides[2]
        )
        write_target_gradient(
            target_grad, offsets, mask, p, t * inverse, s, log_s, target_weight, ADJACENT
        )
    return entropy + mass * log_s - dot * inverse


@triton.jit
def streamed_rows(
    r, live,
    q, q_strides, q_grad, grad_strides,
    target, minus, target_strides, target_grad, target_grad_strides,
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
    # Every lane carries its own maximum and sums: see common.py on reductions within loops.
    TILE: tl.constexpr = [BLOCK, ROWS] if ADJACENT else [ROWS, BLOCK]
    tops = tl.full(TILE, -float("inf"), ACC)
    sums = tl.zeros(TILE, ACC)
    masses = tl.zeros(TILE, ACC)
    for start in range(0, classes, BLOCK):
        k, inside = classes_from(start, classes, BLOCK, EVEN, ADJACENT, WIDE)
        mask = along_rows(live, ADJACENT) & inside
        offsets = q_row + k * q_strides[2]
        z = tl.load(q + offsets, mask=mask, other=-float("inf")).to(ACC) * inverse
        kept, e = rescaling(tops, z)
        sums = sums * kept + e
        tops = tl.maximum(tops, z)
        target_mask = inside if SHARED else mask
        offsets = target_row + k * target_strides[2]
        p = load_target(target, offsets, target_mask, ACC, HAS_TARGET)
        m = load_target(minus, offsets, target_mask, ACC, HAS_MINUS)
        masses += p - m

    top = row_max(tops, ADJACENT)
    s = row_sum(sums * tl.exp(tops - along_rows(base_of(top), ADJACENT)), ADJACENT)
    mass = row_sum(masses, ADJACENT)
    s += top - top  # NaN where log_softmax is: a +inf, or nothing but -inf
    log_s = tl.log(s)
    scale = along_rows(weight * mass / s, ADJACENT)
    terms = tl.zeros(TILE, ACC)
    grad_row = rows_at(r, inner, grad_strides, UNIT, ADJACENT)
    target_grad_row = rows_at(r, inner, target_grad_strides, UNIT, ADJACENT)
    for start in range(0, classes, BLOCK):
        k, inside = classes_from(start, classes, BLOCK, EVEN, ADJACENT, WIDE)
        mask = along_rows(live, ADJACENT) & inside
        offsets = q_row + k * q_strides[2]
        t = tl.load(q + offsets, mask=mask, other=-float("inf")).to(ACC) * inverse
        t -= along_rows(top, ADJACENT)
        target_mask = inside if SHARED else mask
        offsets = target_row + k * target_strides[2]
        p = load_target(target, offsets, target_mask, ACC, HAS_TARGET)
        m = load_target(minus, offsets, target_mask, ACC, HAS_MINUS)
        b = p - m
        terms += x_log_x(p) - x_log_x(m) - masked_product(b, t)
        if Q_GRAD:
            g = tl.exp(t) * scale - weight * b
            offsets = grad_row + k * grad_strides[2]
            tl.store(q_grad + offsets, g.to(q_grad.dtype.element_ty), mask=mask)
        if TARGET_GRAD:
            offsets = target_grad_row + k * target_grad_strides[2]
            write_target_gradient(
                target_grad, offsets, mask, p, t, s, log_s, target_weight, ADJACENT
            )
    return mass * log_s + row_sum(terms, ADJACENT)


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
    else:
        b, mass, entropy = 0, 0, 0  # of each row
    inverse, factor = number(inverse, ACC), number(weight, ACC)
    target_factor = number(target_weight, ACC)
    total = tl.zeros([ROWS], tl.float64)
    tiles = tl.cdiv(rows, ROWS)
    # While a tile is computed the next one is on its way; of float64 there is no room for two.
    AHEAD: tl.constexpr = not STREAMED and ACC != tl.float64
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
                inner, classes, inverse, factor, target_factor, ACC, ROWS, BLOCK,
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


# Batch sizes change from call to call: no new kernel for one that divides by 16, or is 1.
@triton.jit(do_not_specialize=["rows", "rows2", "programs", "first_programs"])
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
    if BATCHES != 2 or pid < first_programs:
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
    if BATCHES == 3:
        tl.debug_barrier()  # this program wrote the losses that it now adds to
        total += batch_total(
            loss, pid, programs, q2, q2_strides, q2_grad, grad2_strides,
            target2, minus, target2_strides, target_grad, target_grad_strides,
            rows2, inner2, classes, inverse, weight2, target_weight, scale2, ROWS, BLOCK,
            HAS_TARGET, HAS_MINUS, SHARED, Q2_GRAD, TARGET_GRAD, STREAMED, PER_ROW, True,
            EVEN, UNIT, ADJACENT, WIDE,
        )  # fmt: skip
    if not PER_ROW:
        add_up(total, loss, partials, ticket, programs, SINGLE)
