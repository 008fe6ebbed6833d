"""beta KL(p || m) + (1 - beta) KL(q || m) and its gradients, m = beta p + (1 - beta) q of two softmaxes.

With p = softmax(a), q = softmax(z), K_p = sum p log(p / m) and K_q = sum q log(q / m), per row:

    loss = beta K_p + (1 - beta) K_q
    d/da = beta p (log(p / m) - K_p), d/dz likewise: the derivatives by m add up to zero

Logits are multiplied by the inverse of their temperature where they are read.
Rows that fit are held in registers and read once; longer ones are walked three times, in blocks.

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
    in_elements,
    masked_product,
    number,
    rescaling,
    row_max,
    row_numbers,
    row_sum,
    rows_at,
    units,
)

LEAST = tl.constexpr(1.1754943508222875e-38)
LEAST_FLOAT64 = tl.constexpr(2.2250738585072014e-308)


@triton.jit
def least(dtype: tl.constexpr):
    """The least normal number."""
    if dtype == tl.float64:
        return number(LEAST_FLOAT64, dtype)
    else:
        return number(LEAST, dtype)


@triton.jit
def probability(e, scale, ACC: tl.constexpr):
    """e * scale, without subnormals: their quotients may be infinite, and what they add vanishes."""
    p = e * scale
    return tl.where(p < least(ACC), 0.0, p)


@triton.jit
def quotient(q, p, u, total):
    """q / p, p = exp(u) / total."""
    if p.dtype == tl.float64:  # whose division is a call, around which registers are spilled
        return q * (total * tl.exp(-u))
    else:
        return q / p


@triton.jit
def parts(p, q, u, t, a_sum, z_sum, a_share, z_share):
    """p log(p / m) and q log(q / m), m / p = beta + (1 - beta) q / p: exact where p and q are near each other."""
    of_p = -tl.log(a_share + z_share * quotient(q, p, u, a_sum))
    of_q = -tl.log(z_share + a_share * quotient(p, q, t, z_sum))
    return masked_product(p, of_p), masked_product(q, of_q)


@triton.jit
def write_gradient(
    grad, offsets, mask, p, of_p, divergence, weight, WANTED: tl.constexpr
):  # fmt: skip
    if WANTED:
        g = weight * (of_p - p * divergence)
        tl.store(grad + offsets, g.to(grad.dtype.element_ty), mask=mask)


@triton.jit
def resident_mixture(
    r, live,  # (ROWS,): row numbers, and which exist
    a, a_strides, z, z_strides, a_grad, a_grad_strides, z_grad, z_grad_strides,
    inner, classes, inverse, a_share, z_share, a_weight, z_weight,
    ACC: tl.constexpr, BLOCK: tl.constexpr, A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The losses of rows that BLOCK holds; their gradients are written."""
    k, inside = classes_from(0, classes, BLOCK, EVEN, ADJACENT, WIDE)
    mask = along_rows(live, ADJACENT) & inside
    offsets = rows_at(r, inner, a_strides, UNIT, ADJACENT) + k * a_strides[2]
    u = tl.load(a + offsets, mask=mask, other=-float("inf")).to(ACC) * inverse
    offsets = rows_at(r, inner, z_strides, UNIT, ADJACENT) + k * z_strides[2]
    t = tl.load(z + offsets, mask=mask, other=-float("inf")).to(ACC) * inverse
    u -= along_rows(row_max(u, ADJACENT), ADJACENT)
    t -= along_rows(row_max(t, ADJACENT), ADJACENT)
    e, f = tl.exp(u), tl.exp(t)
    a_sum = along_rows(row_sum(e, ADJACENT), ADJACENT)
    z_sum = along_rows(row_sum(f, ADJACENT), ADJACENT)
    p, q = probability(e, 1.0 / a_sum, ACC), probability(f, 1.0 / z_sum, ACC)
    of_p, of_q = parts(p, q, u, t, a_sum, z_sum, a_share, z_share)
    a_divergence, z_divergence = row_sum(of_p, ADJACENT), row_sum(of_q, ADJACENT)
    offsets = rows_at(r, inner, a_grad_strides, UNIT, ADJACENT) + k * a_grad_strides[2]
    write_gradient(
        a_grad, offsets, mask, p, of_p, along_rows(a_divergence, ADJACENT), a_weight, A_GRAD
    )  # fmt: skip
    offsets = rows_at(r, inner, z_grad_strides, UNIT, ADJACENT) + k * z_grad_strides[2]
    write_gradient(
        z_grad, offsets, mask, q, of_q, along_rows(z_divergence, ADJACENT), z_weight, Z_GRAD
    )  # fmt: skip
    return a_share * a_divergence + z_share * z_divergence


@triton.jit
def block_of_parts(
    start, live, a, a_row, a_class, z, z_row, z_class, classes, inverse,
    a_top, a_sum, z_top, z_sum, a_share, z_share,
    ACC: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr, ADJACENT: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Classes and mask of a block, p and q there, and their parts of the divergences."""
    k, inside = classes_from(start, classes, BLOCK, EVEN, ADJACENT, WIDE)
    mask = along_rows(live, ADJACENT) & inside
    u = tl.load(a + a_row + k * a_class, mask=mask, other=-float("inf")).to(ACC) * inverse - a_top
    t = tl.load(z + z_row + k * z_class, mask=mask, other=-float("inf")).to(ACC) * inverse - z_top
    p, q = probability(tl.exp(u), 1.0 / a_sum, ACC), probability(tl.exp(t), 1.0 / z_sum, ACC)
    of_p, of_q = parts(p, q, u, t, a_sum, z_sum, a_share, z_share)
    return k, mask, p, q, of_p, of_q


@triton.jit
def streamed_mixture(
    r, live,
    a, a_strides, z, z_strides, a_grad, a_grad_strides, z_grad, z_grad_strides,
    inner, classes, inverse, a_share, z_share, a_weight, z_weight,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The same for rows of any length: maxima and sums, then the divergences, then the gradients."""
    a_row = rows_at(r, inner, a_strides, UNIT, ADJACENT)
    z_row = rows_at(r, inner, z_strides, UNIT, ADJACENT)
    # Every lane carries its own maxima and sums: see common.py on reductions within loops.
    TILE: tl.constexpr = [BLOCK, ROWS] if ADJACENT else [ROWS, BLOCK]
    a_tops = tl.full(TILE, -float("inf"), ACC)
    z_tops = tl.full(TILE, -float("inf"), ACC)
    a_sums = tl.zeros(TILE, ACC)
    z_sums = tl.zeros(TILE, ACC)
    for start in range(0, classes, BLOCK):
        k, inside = classes_from(start, classes, BLOCK, EVEN, ADJACENT, WIDE)
        mask = along_rows(live, ADJACENT) & inside
        offsets = a_row + k * a_strides[2]
        u = tl.load(a + offsets, mask=mask, other=-float("inf")).to(ACC) * inverse
        offsets = z_row + k * z_strides[2]
        t = tl.load(z + offsets, mask=mask, other=-float("inf")).to(ACC) * inverse
        kept, e = rescaling(a_tops, u)
        a_sums = a_sums * kept + e
        kept, e = rescaling(z_tops, t)
        z_sums = z_sums * kept + e
        a_tops, z_tops = tl.maximum(a_tops, u), tl.maximum(z_tops, t)

    a_top, z_top = row_max(a_tops, ADJACENT), row_max(z_tops, ADJACENT)
    a_sums *= tl.exp(a_tops - along_rows(base_of(a_top), ADJACENT))
    z_sums *= tl.exp(z_tops - along_rows(base_of(z_top), ADJACENT))
    # NaN where log_softmax is: a +inf, or nothing but -inf.
    a_sum = along_rows(row_sum(a_sums, ADJACENT) + (a_top - a_top), ADJACENT)
    z_sum = along_rows(row_sum(z_sums, ADJACENT) + (z_top - z_top), ADJACENT)
    a_top, z_top = along_rows(a_top, ADJACENT), along_rows(z_top, ADJACENT)
    a_parts, z_parts = tl.zeros(TILE, ACC), tl.zeros(TILE, ACC)
    for start in range(0, classes, BLOCK):
        k, mask, p, q, of_p, of_q = block_of_parts(
            start, live, a, a_row, a_strides[2], z, z_row, z_strides[2], classes, inverse,
            a_top, a_sum, z_top, z_sum, a_share, z_share, ACC, BLOCK, EVEN, ADJACENT, WIDE,
        )  # fmt: skip
        a_parts += of_p
        z_parts += of_q
    a_divergence, z_divergence = row_sum(a_parts, ADJACENT), row_sum(z_parts, ADJACENT)
    if A_GRAD or Z_GRAD:
        a_grad_row = rows_at(r, inner, a_grad_strides, UNIT, ADJACENT)
        z_grad_row = rows_at(r, inner, z_grad_strides, UNIT, ADJACENT)
        for start in range(0, classes, BLOCK):
            k, mask, p, q, of_p, of_q = block_of_parts(
                start, live, a, a_row, a_strides[2], z, z_row, z_strides[2], classes, inverse,
                a_top, a_sum, z_top, z_sum, a_share, z_share, ACC, BLOCK, EVEN, ADJACENT, WIDE,
            )  # fmt: skip
            write_gradient(
                a_grad, a_grad_row + k * a_grad_strides[2], mask, p, of_p,
                along_rows(a_divergence, ADJACENT), a_weight, A_GRAD,
            )  # fmt: skip
            write_gradient(
                z_grad, z_grad_row + k * z_grad_strides[2], mask, q, of_q,
                along_rows(z_divergence, ADJACENT), z_weight, Z_GRAD,
            )  # fmt: skip
    return a_share * a_divergence + z_share * z_divergence


@triton.jit(do_not_specialize=["rows", "programs"])
def mixture_kernel(
    a,  # logits of p: rows x classes
    z,  # logits of q: rows x classes
    a_grad,
    z_grad,
    loss,  # (), or one per row where PER_ROW
    partials,
    ticket,
    rows,  # in UNITs where ADJACENT, as is inner
    inner,
    classes,  # in UNITs where not ADJACENT
    a_outer,
    a_inner,
    a_class,
    z_outer,
    z_inner,
    z_class,
    a_grad_outer,
    a_grad_inner,
    a_grad_class,
    z_grad_outer,
    z_grad_inner,
    z_grad_class,
    inverse: tl.float64,  # of the temperature
    a_share: tl.float64,  # beta
    z_share: tl.float64,  # 1 - beta
    a_weight: tl.float64,  # of the gradients, beta and 1 - beta in them
    z_weight: tl.float64,
    scale: tl.float64,  # of the losses
    programs,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    A_GRAD: tl.constexpr,
    Z_GRAD: tl.constexpr,
    STREAMED: tl.constexpr,
    PER_ROW: tl.constexpr,
    SINGLE: tl.constexpr,
    EVEN: tl.constexpr,
    UNIT: tl.constexpr,  # divides all strides but 1, and the extent of what lies side by side
    ADJACENT: tl.constexpr,  # whether that is rows, not classes
    WIDE: tl.constexpr,
):
    ACC: tl.constexpr = loss.dtype.element_ty
    if ADJACENT:
        rows, inner = units(rows, UNIT, WIDE), units(inner, UNIT, WIDE)
    else:
        classes = units(classes, UNIT, False)
    a_strides = in_elements(a_outer, a_inner, a_class, UNIT, ADJACENT, WIDE)
    z_strides = in_elements(z_outer, z_inner, z_class, UNIT, ADJACENT, WIDE)
    a_grad_strides = in_elements(a_grad_outer, a_grad_inner, a_grad_class, UNIT, ADJACENT, WIDE)
    z_grad_strides = in_elements(z_grad_outer, z_grad_inner, z_grad_class, UNIT, ADJACENT, WIDE)
    # A share that vanishes would make the quotients of its own distribution infinite.
    p_share = tl.maximum(number(a_share, ACC), least(ACC))
    q_share = tl.maximum(number(z_share, ACC), least(ACC))
    factor, a_factor, z_factor = number(inverse, ACC), number(a_weight, ACC), number(z_weight, ACC)
    total = tl.zeros([ROWS], tl.float64)
    for i in range(tl.program_id(0), tl.cdiv(rows, ROWS), programs):
        r = row_numbers(i, ROWS, WIDE)
        live = r < rows
        if STREAMED:
            losses = streamed_mixture(
                r, live, a, a_strides, z, z_strides, a_grad, a_grad_strides, z_grad, z_grad_strides,
                inner, classes, factor, p_share, q_share, a_factor, z_factor,
                ACC, ROWS, BLOCK, A_GRAD, Z_GRAD, EVEN, UNIT, ADJACENT, WIDE,
            )  # fmt: skip
        else:
            losses = resident_mixture(
                r, live, a, a_strides, z, z_strides, a_grad, a_grad_strides, z_grad, z_grad_strides,
                inner, classes, factor, p_share, q_share, a_factor, z_factor,
                ACC, BLOCK, A_GRAD, Z_GRAD, EVEN, UNIT, ADJACENT, WIDE,
            )  # fmt: skip
        if PER_ROW:
            tl.store(loss + r, losses * number(scale, ACC), mask=live)
        else:
            total += tl.where(live, losses, 0.0).to(tl.float64)
    if not PER_ROW:
        sum_of_losses = tl.sum(total, 0) * number(scale, tl.float64)
        add_up(sum_of_losses, loss, partials, ticket, programs, SINGLE)
