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

from typing import Any, NamedTuple

import triton
import triton.language as tl

from gankernels.triton.kernels.common import (
    Layout,
    add_up,
    along_rows,
    base_of,
    classes_from,
    each_lane,
    extent,
    hand_over,
    masked_product,
    number,
    operand,
    rescaling,
    row_max,
    row_numbers,
    row_sum,
    rows_at,
)
from gankernels.triton.kernels.pair import Pair, load_pair

LEAST = tl.constexpr(1.1754943508222875e-38)
LEAST_FLOAT64 = tl.constexpr(2.2250738585072014e-308)


class Factors(NamedTuple):
    """In the accumulation dtype."""

    inverse: Any  # of the temperature
    a_share: Any  # beta
    z_share: Any  # 1 - beta
    a_weight: Any  # of the gradients, beta and 1 - beta in them
    z_weight: Any


class Sums(NamedTuple):
    """Of rows: the maxima of both logits, and sum exp relative to them."""

    a_top: Any
    z_top: Any
    a_sum: Any
    z_sum: Any


@triton.jit
def least(dtype: tl.constexpr):
    """The least normal number."""
    if dtype == tl.float64:
        return number(LEAST_FLOAT64, dtype)
    else:
        return number(LEAST, dtype)


@triton.jit
def probability(e, scale):
    """e * scale, without subnormals: their quotients may be infinite, and what they add vanishes."""
    p = e * scale
    return tl.where(p < least(p.dtype), 0.0, p)


@triton.jit
def quotient(q, p, u, total):
    """q / p, p = exp(u) / total."""
    if p.dtype == tl.float64:  # whose division is a call, around which registers are spilled
        return q * (total * tl.exp(-u))
    else:
        return q / p


@triton.jit
def parts(u, t, e, f, a_sum, z_sum, factors):
    """p, q, p log(p / m) and q log(q / m).

    m / p = beta + (1 - beta) q / p: exact where p and q are near each other.
    """
    p, q = probability(e, 1.0 / a_sum), probability(f, 1.0 / z_sum)
    of_p = -tl.log(factors.a_share + factors.z_share * quotient(q, p, u, a_sum))
    of_q = -tl.log(factors.z_share + factors.a_share * quotient(p, q, t, z_sum))
    return p, q, masked_product(p, of_p), masked_product(q, of_q)


@triton.jit
def write_gradient(
    out, row, k, mask, p, of_p, divergence, weight, WANTED: tl.constexpr, layout: tl.constexpr
):  # fmt: skip
    if WANTED:
        g = weight * (of_p - p * along_rows(divergence, layout))
        tl.store(out.pointer + (row + k * out.cls), g.to(out.pointer.dtype.element_ty), mask=mask)


@triton.jit
def resident_mixture(
    r, live,  # (ROWS,): row numbers, and which exist
    pair, factors, A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr, layout: tl.constexpr,
):  # fmt: skip
    """The losses of rows that BLOCK holds; their gradients are written."""
    inner = pair.extent.inner
    k, inside = classes_from(0, pair.extent.classes, layout)
    mask = along_rows(live, layout) & inside
    a_row, z_row = rows_at(pair.a, r, inner, layout), rows_at(pair.z, r, inner, layout)
    u, t = load_pair(pair, a_row, z_row, k, mask, factors.inverse, factors.inverse)
    u -= along_rows(row_max(u, layout), layout)
    t -= along_rows(row_max(t, layout), layout)
    e, f = tl.exp(u), tl.exp(t)
    a_sum = along_rows(row_sum(e, layout), layout)
    z_sum = along_rows(row_sum(f, layout), layout)
    p, q, of_p, of_q = parts(u, t, e, f, a_sum, z_sum, factors)
    a_divergence, z_divergence = row_sum(of_p, layout), row_sum(of_q, layout)
    row = rows_at(pair.a_gradient, r, inner, layout)
    write_gradient(
        pair.a_gradient, row, k, mask, p, of_p, a_divergence, factors.a_weight, A_GRAD, layout
    )
    row = rows_at(pair.z_gradient, r, inner, layout)
    write_gradient(
        pair.z_gradient, row, k, mask, q, of_q, z_divergence, factors.z_weight, Z_GRAD, layout
    )
    return factors.a_share * a_divergence + factors.z_share * z_divergence


@triton.jit
def block_of_parts(start, live, pair, a_row, z_row, sums, factors, layout: tl.constexpr):
    """Classes and mask of a block, p and q there, and their parts of the divergences."""
    k, inside = classes_from(start, pair.extent.classes, layout)
    mask = along_rows(live, layout) & inside
    u, t = load_pair(pair, a_row, z_row, k, mask, factors.inverse, factors.inverse)
    u -= sums.a_top
    t -= sums.z_top
    p, q, of_p, of_q = parts(u, t, tl.exp(u), tl.exp(t), sums.a_sum, sums.z_sum, factors)
    return k, mask, p, q, of_p, of_q


@triton.jit
def sums_of_rows(live, pair, a_row, z_row, inverse, layout: tl.constexpr):
    """Along rows, as tiles take them."""
    # Every lane carries its own maxima and sums: see common.py on reductions within loops.
    ACC: tl.constexpr = inverse.dtype
    classes = pair.extent.classes
    a_tops, z_tops = each_lane(-float("inf"), ACC, layout), each_lane(-float("inf"), ACC, layout)
    a_sums, z_sums = each_lane(0.0, ACC, layout), each_lane(0.0, ACC, layout)
    for start in range(0, classes, layout.BLOCK):
        k, inside = classes_from(start, classes, layout)
        mask = along_rows(live, layout) & inside
        u, t = load_pair(pair, a_row, z_row, k, mask, inverse, inverse)
        kept, e = rescaling(a_tops, u)
        a_sums = a_sums * kept + e
        kept, e = rescaling(z_tops, t)
        z_sums = z_sums * kept + e
        a_tops, z_tops = tl.maximum(a_tops, u), tl.maximum(z_tops, t)

    a_top, z_top = row_max(a_tops, layout), row_max(z_tops, layout)
    a_sums *= tl.exp(a_tops - along_rows(base_of(a_top), layout))
    z_sums *= tl.exp(z_tops - along_rows(base_of(z_top), layout))
    # NaN where log_softmax is: a +inf, or nothing but -inf.
    a_sum = row_sum(a_sums, layout) + (a_top - a_top)
    z_sum = row_sum(z_sums, layout) + (z_top - z_top)
    return Sums(
        along_rows(a_top, layout), along_rows(z_top, layout),
        along_rows(a_sum, layout), along_rows(z_sum, layout),
    )  # fmt: skip


@triton.jit
def streamed_mixture(
    r, live, pair, factors, A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr, layout: tl.constexpr
):  # fmt: skip
    """The same for rows of any length: maxima and sums, then the divergences, then the gradients."""
    ACC: tl.constexpr = factors.inverse.dtype
    inner, classes = pair.extent.inner, pair.extent.classes
    a_row, z_row = rows_at(pair.a, r, inner, layout), rows_at(pair.z, r, inner, layout)
    sums = sums_of_rows(live, pair, a_row, z_row, factors.inverse, layout)
    a_parts, z_parts = each_lane(0.0, ACC, layout), each_lane(0.0, ACC, layout)
    for start in range(0, classes, layout.BLOCK):
        k, mask, p, q, of_p, of_q = block_of_parts(
            start, live, pair, a_row, z_row, sums, factors, layout
        )
        a_parts += of_p
        z_parts += of_q
    a_divergence, z_divergence = row_sum(a_parts, layout), row_sum(z_parts, layout)
    if A_GRAD or Z_GRAD:
        a_grad_row = rows_at(pair.a_gradient, r, inner, layout)
        z_grad_row = rows_at(pair.z_gradient, r, inner, layout)
        for start in range(0, classes, layout.BLOCK):
            k, mask, p, q, of_p, of_q = block_of_parts(
                start, live, pair, a_row, z_row, sums, factors, layout
            )
            write_gradient(
                pair.a_gradient, a_grad_row, k, mask, p, of_p, a_divergence, factors.a_weight,
                A_GRAD, layout,
            )  # fmt: skip
            write_gradient(
                pair.z_gradient, z_grad_row, k, mask, q, of_q, z_divergence, factors.z_weight,
                Z_GRAD, layout,
            )  # fmt: skip
    return factors.a_share * a_divergence + factors.z_share * z_divergence


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
    layout: tl.constexpr = Layout(ROWS, BLOCK, EVEN, UNIT, ADJACENT, WIDE)
    pair = Pair(
        extent(rows, inner, classes, layout),
        operand(a, a_outer, a_inner, a_class, layout),
        operand(z, z_outer, z_inner, z_class, layout),
        operand(a_grad, a_grad_outer, a_grad_inner, a_grad_class, layout),
        operand(z_grad, z_grad_outer, z_grad_inner, z_grad_class, layout),
    )
    factors = Factors(
        number(inverse, ACC),
        # A share that vanishes would make the quotients of its own distribution infinite.
        tl.maximum(number(a_share, ACC), least(ACC)),
        tl.maximum(number(z_share, ACC), least(ACC)),
        number(a_weight, ACC),
        number(z_weight, ACC),
    )
    total = tl.zeros([ROWS], tl.float64)
    for i in range(tl.program_id(0), tl.cdiv(pair.extent.rows, ROWS), programs):
        r = row_numbers(i, layout)
        live = r < pair.extent.rows
        if STREAMED:
            losses = streamed_mixture(r, live, pair, factors, A_GRAD, Z_GRAD, layout)
        else:
            losses = resident_mixture(r, live, pair, factors, A_GRAD, Z_GRAD, layout)
        total = hand_over(losses, total, loss, r, live, scale, PER_ROW, False)
    if not PER_ROW:
        sum_of_losses = tl.sum(total, 0) * number(scale, tl.float64)
        add_up(sum_of_losses, loss, partials, ticket, programs, SINGLE)
