"""KL(softmax(a) || softmax(z)) - KL(M || softmax(z)) and its gradients.

With P = softmax(a), u = a - max a, t = z - max z, d = u - t and S = 1 - sum M, per row:

    loss = sum P u - log sum exp u - sum M log M - sum (P - M) t + S log sum exp t
    d/dz = S softmax(z) - P + M,    d/da = P (d - sum P d): the log-sum-exp of z drops out

Logits are multiplied by the inverses of their temperatures where they are read.
Rows that fit are held in registers and read once; longer ones are walked twice, in blocks.

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
    load_target,
    masked_product,
    number,
    operand,
    rescaling,
    row_max,
    row_numbers,
    row_sum,
    rows_at,
    target_operand,
    target_rows,
    x_log_x,
)
from gankernels.triton.kernels.pair import Pair, load_pair


class Given(NamedTuple):
    """What there is; constants."""

    MINUS: Any
    SHARED: Any  # whether all rows have the same M
    A_GRADIENT: Any
    Z_GRADIENT: Any


class Factors(NamedTuple):
    """Inverses of the temperatures and weights of the gradients, in the accumulation dtype."""

    a_inverse: Any
    z_inverse: Any
    a_weight: Any
    z_weight: Any


class Rows(NamedTuple):
    """What the gradients of rows are made of."""

    mass: Any  # S
    mean_d: Any  # sum P d
    bad: Any  # NaN in a row that log_softmax makes NaN, else 0


@triton.jit
def write_gradients(
    pair, a_offsets, z_offsets, mask,
    u, t, m,
    p, q,  # softmax(a), softmax(z)
    rows, factors, given: tl.constexpr, layout: tl.constexpr,
):  # fmt: skip
    if given.Z_GRADIENT:
        z_grad = pair.z_gradient.pointer
        g = factors.z_weight * (along_rows(rows.mass, layout) * q - p + m)
        tl.store(z_grad + z_offsets, g.to(z_grad.dtype.element_ty), mask=mask)
    if given.A_GRADIENT:
        a_grad = pair.a_gradient.pointer
        d = (u - t) - along_rows(rows.mean_d, layout)
        g = along_rows(rows.bad, layout) + masked_product(factors.a_weight * p, d)
        tl.store(a_grad + a_offsets, g.to(a_grad.dtype.element_ty), mask=mask)


@triton.jit
def resident_pair(
    r, live,  # (ROWS,): row numbers, and which exist
    m, minus_mass, entropy,  # M (1, BLOCK), its sum and entropy, where SHARED
    pair, minus, factors, given: tl.constexpr, layout: tl.constexpr,
):  # fmt: skip
    """The losses of rows that BLOCK holds; their gradients are written."""
    ACC: tl.constexpr = factors.a_inverse.dtype
    # Where a thread holds many elements it takes exponentials twice rather than keep them, too.
    LEAN: tl.constexpr = layout.ROWS * layout.BLOCK * ACC.primitive_bitwidth >= 8192 * 32
    inner = pair.extent.inner
    k, inside = classes_from(0, pair.extent.classes, layout)
    mask = along_rows(live, layout) & inside
    a_row, z_row = rows_at(pair.a, r, inner, layout), rows_at(pair.z, r, inner, layout)
    u, t = load_pair(pair, a_row, z_row, k, mask, factors.a_inverse, factors.z_inverse)
    if not given.SHARED:
        offsets = rows_at(minus, r, inner, layout) + k * minus.cls
        m = load_target(minus.pointer, offsets, mask, ACC, given.MINUS)
        minus_mass, entropy = row_sum(m, layout), -row_sum(x_log_x(m), layout)
    u -= along_rows(row_max(u, layout), layout)
    t -= along_rows(row_max(t, layout), layout)
    e = tl.exp(u)
    f = tl.exp(t)
    a_sum = row_sum(e, layout)
    z_sum = row_sum(f, layout)
    # Beyond the last class u - t is NaN, and counts nothing: e is zero there.
    mean_d = row_sum(masked_product(e, u - t), layout) / a_sum
    bad = z_sum - z_sum
    mass = 1.0 - minus_mass
    log_a, log_z = tl.log(a_sum), tl.log(z_sum)
    if LEAN:
        p, q = tl.exp(u - along_rows(log_a, layout)), tl.exp(t - along_rows(log_z, layout))
    else:
        p, q = e * along_rows(1.0 / a_sum, layout), f * along_rows(1.0 / z_sum, layout)
    a_offsets = rows_at(pair.a_gradient, r, inner, layout) + k * pair.a_gradient.cls
    z_offsets = rows_at(pair.z_gradient, r, inner, layout) + k * pair.z_gradient.cls
    write_gradients(
        pair, a_offsets, z_offsets, mask, u, t, m, p, q, Rows(mass, mean_d, bad),
        factors, given, layout,
    )  # fmt: skip
    minus_dot = row_sum(masked_product(m, t), layout)
    return bad + entropy + mean_d - log_a + minus_dot + mass * log_z


@triton.jit
def streamed_pair(
    r, live, pair, minus, factors, given: tl.constexpr, layout: tl.constexpr
):  # fmt: skip
    """The same for rows of any length: first maxima and sums, then loss and gradients."""
    ACC: tl.constexpr = factors.a_inverse.dtype
    inner, classes = pair.extent.inner, pair.extent.classes
    a_row, z_row = rows_at(pair.a, r, inner, layout), rows_at(pair.z, r, inner, layout)
    minus_row = target_rows(minus, r, inner, given.SHARED, layout)
    # Every lane carries its own maxima and sums: see common.py on reductions within loops.
    a_tops, z_tops = each_lane(-float("inf"), ACC, layout), each_lane(-float("inf"), ACC, layout)
    a_sums, z_sums = each_lane(0.0, ACC, layout), each_lane(0.0, ACC, layout)
    d_sums = each_lane(0.0, ACC, layout)  # sum exp(u) d, u and t taken from the bases so far
    minus_masses = each_lane(0.0, ACC, layout)
    for start in range(0, classes, layout.BLOCK):
        k, inside = classes_from(start, classes, layout)
        mask = along_rows(live, layout) & inside
        u, t = load_pair(pair, a_row, z_row, k, mask, factors.a_inverse, factors.z_inverse)
        a_kept, e = rescaling(a_tops, u)
        z_kept, f = rescaling(z_tops, t)
        a_next, z_next = tl.maximum(a_tops, u), tl.maximum(z_tops, t)
        a_base, z_base = base_of(a_next), base_of(z_next)
        # What was summed so far, as seen from the new bases; 0 * inf is nothing.
        moved = (base_of(a_tops) - a_base) - (base_of(z_tops) - z_base)
        d_sums = masked_product(a_kept, d_sums + masked_product(a_sums, moved))
        d_sums += masked_product(e, (u - a_base) - (t - z_base))
        a_sums = a_sums * a_kept + e
        z_sums = z_sums * z_kept + f
        a_tops, z_tops = a_next, z_next
        offsets = minus_row + k * minus.cls
        there = inside if given.SHARED else mask
        minus_masses += load_target(minus.pointer, offsets, there, ACC, given.MINUS)

    a_top, z_top = row_max(a_tops, layout), row_max(z_tops, layout)
    a_base, z_base = along_rows(base_of(a_top), layout), along_rows(base_of(z_top), layout)
    a_kept = tl.exp(a_tops - a_base)
    moved = (base_of(a_tops) - a_base) - (base_of(z_tops) - z_base)
    d_sum = row_sum(masked_product(a_kept, d_sums + masked_product(a_sums, moved)), layout)
    a_sum = row_sum(a_sums * a_kept, layout)
    z_sum = row_sum(z_sums * tl.exp(z_tops - z_base), layout)
    # NaN where log_softmax is: a +inf, or nothing but -inf.
    a_sum += a_top - a_top
    z_sum += z_top - z_top
    mean_d = d_sum / a_sum
    bad = z_sum - z_sum
    mass = 1.0 - row_sum(minus_masses, layout)
    total = bad + mean_d - tl.log(a_sum) + mass * tl.log(z_sum)
    terms = each_lane(0.0, ACC, layout)
    rows = Rows(mass, mean_d, bad)
    a_scale, z_scale = along_rows(1.0 / a_sum, layout), along_rows(1.0 / z_sum, layout)
    a_grad_row = rows_at(pair.a_gradient, r, inner, layout)
    z_grad_row = rows_at(pair.z_gradient, r, inner, layout)
    for start in range(0, classes, layout.BLOCK):
        k, inside = classes_from(start, classes, layout)
        mask = along_rows(live, layout) & inside
        u, t = load_pair(pair, a_row, z_row, k, mask, factors.a_inverse, factors.z_inverse)
        u -= along_rows(a_top, layout)
        t -= along_rows(z_top, layout)
        offsets = minus_row + k * minus.cls
        there = inside if given.SHARED else mask
        m = load_target(minus.pointer, offsets, there, ACC, given.MINUS)
        terms += masked_product(m, t) - x_log_x(m)
        write_gradients(
            pair, a_grad_row + k * pair.a_gradient.cls, z_grad_row + k * pair.z_gradient.cls, mask,
            u, t, m, tl.exp(u) * a_scale, tl.exp(t) * z_scale, rows, factors, given, layout,
        )  # fmt: skip
    return total + row_sum(terms, layout)


@triton.jit(do_not_specialize=["rows", "programs"])
def softmax_pair_kernel(
    a,  # logits of P: rows x classes
    z,  # logits of q: rows x classes
    minus,  # M: rows x classes, or classes where SHARED
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
    minus_outer,
    minus_inner,
    minus_class,
    a_grad_outer,
    a_grad_inner,
    a_grad_class,
    z_grad_outer,
    z_grad_inner,
    z_grad_class,
    a_inverse: tl.float64,  # of the temperatures
    z_inverse: tl.float64,
    a_weight: tl.float64,  # of the gradients
    z_weight: tl.float64,
    scale: tl.float64,  # of the losses
    programs,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_MINUS: tl.constexpr,
    SHARED: tl.constexpr,
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
    given: tl.constexpr = Given(HAS_MINUS, SHARED, A_GRAD, Z_GRAD)
    pair = Pair(
        extent(rows, inner, classes, layout),
        operand(a, a_outer, a_inner, a_class, layout),
        operand(z, z_outer, z_inner, z_class, layout),
        operand(a_grad, a_grad_outer, a_grad_inner, a_grad_class, layout),
        operand(z_grad, z_grad_outer, z_grad_inner, z_grad_class, layout),
    )
    minus_rows = target_operand(minus, minus_outer, minus_inner, minus_class, SHARED, layout)
    factors = Factors(
        number(a_inverse, ACC), number(z_inverse, ACC), number(a_weight, ACC), number(z_weight, ACC)
    )
    m, minus_mass, entropy = tl.zeros([1, 1], ACC), tl.zeros([1], ACC), tl.zeros([1], ACC)
    if SHARED and HAS_MINUS and not STREAMED:
        # Once for all of this program's rows.
        k, inside = classes_from(0, pair.extent.classes, layout)
        shared = load_target(minus, k * minus_class, inside, ACC, HAS_MINUS)
        minus_mass, entropy = row_sum(shared, layout), -row_sum(x_log_x(shared), layout)
    else:
        shared = m
    total = tl.zeros([ROWS], tl.float64)
    for i in range(tl.program_id(0), tl.cdiv(pair.extent.rows, ROWS), programs):
        r = row_numbers(i, layout)
        live = r < pair.extent.rows
        if STREAMED:
            losses = streamed_pair(r, live, pair, minus_rows, factors, given, layout)
        else:
            losses = resident_pair(
                r, live, shared, minus_mass, entropy, pair, minus_rows, factors, given, layout
            )
        total = hand_over(losses, total, loss, r, live, scale, PER_ROW, False)
    if not PER_ROW:
        sum_of_losses = tl.sum(total, 0) * number(scale, tl.float64)
        add_up(sum_of_losses, loss, partials, ticket, programs, SINGLE)
