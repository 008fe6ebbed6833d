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

import triton
import triton.language as tl

from gankernels.triton.kernels.common import (
    add_up,
    along_rows,
    base_of,
    classes_from,
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
def write_gradients(
    a_grad, a_offsets, z_grad, z_offsets, mask,
    u, t, m,
    p, q,  # softmax(a), softmax(z)
    mass, mean_d, bad, a_weight, z_weight,  # bad is NaN in a row that log_softmax makes NaN, else 0
    A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr,
):  # fmt: skip
    if Z_GRAD:
        g = z_weight * (mass * q - p + m)
        tl.store(z_grad + z_offsets, g.to(z_grad.dtype.element_ty), mask=mask)
    if A_GRAD:
        g = bad + masked_product(a_weight * p, (u - t) - mean_d)
        tl.store(a_grad + a_offsets, g.to(a_grad.dtype.element_ty), mask=mask)


@triton.jit
def resident_pair(
    r, live,  # (ROWS,): row numbers, and which exist
    a, a_strides, z, z_strides, minus, minus_strides,
    a_grad, a_grad_strides, z_grad, z_grad_strides,
    m, minus_mass, entropy,  # M (1, BLOCK), its sum and entropy, where SHARED
    inner, classes, a_inverse, z_inverse, a_weight, z_weight,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_MINUS: tl.constexpr, SHARED: tl.constexpr, A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The losses of rows that BLOCK holds; their gradients are written."""
    # Where a thread holds many elements it takes exponentials twice rather than keep them, too.
    LEAN: tl.constexpr = ROWS * BLOCK * ACC.primitive_bitwidth >= 8192 * 32
    k, inside = classes_from(0, classes, BLOCK, EVEN, ADJACENT, WIDE)
    mask = along_rows(live, ADJACENT) & inside
    offsets = rows_at(r, inner, a_strides, UNIT, ADJACENT) + k * a_strides[2]
    u = tl.load(a + offsets, mask=mask, other=-float("inf")).to(ACC) * a_inverse
    offsets = rows_at(r, inner, z_strides, UNIT, ADJACENT) + k * z_strides[2]
    t = tl.load(z + offsets, mask=mask, other=-float("inf")).to(ACC) * z_inverse
    if not SHARED:
        offsets = rows_at(r, inner, minus_strides, UNIT, ADJACENT) + k * minus_strides[2]
        m = load_target(minus, offsets, mask, ACC, HAS_MINUS)
        minus_mass, entropy = row_sum(m, ADJACENT), -row_sum(x_log_x(m), ADJACENT)
    u -= along_rows(row_max(u, ADJACENT), ADJACENT)
    t -= along_rows(row_max(t, ADJACENT), ADJACENT)
    e = tl.exp(u)
    f = tl.exp(t)
    a_sum = row_sum(e, ADJACENT)
    z_sum = row_sum(f, ADJACENT)
    # Beyond the last class u - t is NaN, and counts nothing: e is zero there.
    mean_d = row_sum(masked_product(e, u - t), ADJACENT) / a_sum
    bad = z_sum - z_sum
    mass = 1.0 - minus_mass
    log_a, log_z = tl.log(a_sum), tl.log(z_sum)
    if LEAN:
        p, q = tl.exp(u - along_rows(log_a, ADJACENT)), tl.exp(t - along_rows(log_z, ADJACENT))
    else:
        p, q = e * along_rows(1.0 / a_sum, ADJACENT), f * along_rows(1.0 / z_sum, ADJACENT)
    a_offsets = rows_at(r, inner, a_grad_strides, UNIT, ADJACENT) + k * a_grad_strides[2]
    z_offsets = rows_at(r, inner, z_grad_strides, UNIT, ADJACENT) + k * z_grad_strides[2]
    write_gradients(
        a_grad, a_offsets, z_grad, z_offsets, mask, u, t, m, p, q,
        along_rows(mass, ADJACENT), along_rows(mean_d, ADJACENT), along_rows(bad, ADJACENT),
        a_weight, z_weight, A_GRAD, Z_GRAD,
    )  # fmt: skip
    minus_dot = row_sum(masked_product(m, t), ADJACENT)
    return bad + entropy + mean_d - log_a + minus_dot + mass * log_z


@triton.jit
def streamed_pair(
    r, live,
    a, a_strides, z, z_strides, minus, minus_strides,
    a_grad, a_grad_strides, z_grad, z_grad_strides,
    inner, classes, a_inverse, z_inverse, a_weight, z_weight,
    ACC: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_MINUS: tl.constexpr, SHARED: tl.constexpr, A_GRAD: tl.constexpr, Z_GRAD: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, ADJACENT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The same for rows of any length: first maxima and sums, then loss and gradients."""
    a_row = rows_at(r, inner, a_strides, UNIT, ADJACENT)
    z_row = rows_at(r, inner, z_strides, UNIT, ADJACENT)
    minus_row = (
        tl.zeros([1, 1], r.dtype) if SHARED else rows_at(r, inner, minus_strides, UNIT, ADJACENT)
    )
    # Every lane carries its own maxima and sums: see common.py on reductions within loops.
    TILE: tl.constexpr = [BLOCK, ROWS] if ADJACENT else [ROWS, BLOCK]
    a_tops = tl.full(TILE, -float("inf"), ACC)
    z_tops = tl.full(TILE, -float("inf"), ACC)
    a_sums = tl.zeros(TILE, ACC)
    z_sums = tl.zeros(TILE, ACC)
    d_sums = tl.zeros(TILE, ACC)  # sum exp(u) d, with u and t taken from the bases so far
    minus_masses = tl.zeros(TILE, ACC)
    for start in range(0, classes, BLOCK):
        k, inside = classes_from(start, classes, BLOCK, EVEN, ADJACENT, WIDE)
        mask = along_rows(live, ADJACENT) & inside
        offsets = a_row + k * a_strides[2]
        u = tl.load(a + offsets, mask=mask, other=-float("inf")).to(ACC) * a_inverse
        offsets = z_row + k * z_strides[2]
        t = tl.load(z + offsets, mask=mask, other=-float("inf")).to(ACC) * z_inverse
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
        offsets = minus_row + k * minus_strides[2]
        minus_masses += load_target(minus, offsets, inside if SHARED else mask, ACC, HAS_MINUS)

    a_top, z_top = row_max(a_tops, ADJACENT), row_max(z_tops, ADJACENT)
    a_base, z_base = along_rows(base_of(a_top), ADJACENT), along_rows(base_of(z_top), ADJACENT)
    a_kept = tl.exp(a_tops - a_base)
    moved = (base_of(a_tops) - a_base) - (base_of(z_tops) - z_base)
    d_sum = row_sum(masked_product(a_kept, d_sums + masked_product(a_sums, moved)), ADJACENT)
    a_sum = row_sum(a_sums * a_kept, ADJACENT)
    z_sum = row_sum(z_sums * tl.exp(z_tops - z_base), ADJACENT)
    minus_mass = row_sum(minus_masses, ADJACENT)
    # NaN where log_softmax is: a +inf, or nothing but -inf.
    a_sum += a_top - a_top
    z_sum += z_top - z_top
    mean_d = d_sum / a_sum
    bad = z_sum - z_sum
    mass = 1.0 - minus_mass
    total = bad + mean_d - tl.log(a_sum) + mass * tl.log(z_sum)
    terms = tl.zeros(TILE, ACC)
    a_scale, z_scale = along_rows(1.0 / a_sum, ADJACENT), along_rows(1.0 / z_sum, ADJACENT)
    a_grad_row = rows_at(r, inner, a_grad_strides, UNIT, ADJACENT)
    z_grad_row = rows_at(r, inner, z_grad_strides, UNIT, ADJACENT)
    for start in range(0, classes, BLOCK):
        k, inside = classes_from(start, classes, BLOCK, EVEN, ADJACENT, WIDE)
        mask = along_rows(live, ADJACENT) & inside
        offsets = a_row + k * a_strides[2]
        u = tl.load(a + offsets, mask=mask, other=-float("inf")).to(ACC) * a_inverse
        u -= along_rows(a_top, ADJACENT)
        offsets = z_row + k * z_strides[2]
        t = tl.load(z + offsets, mask=mask, other=-float("inf")).to(ACC) * z_inverse
        t -= along_rows(z_top, ADJACENT)
        offsets = minus_row + k * minus_strides[2]
        m = load_target(minus, offsets, inside if SHARED else mask, ACC, HAS_MINUS)
        terms += masked_product(m, t) - x_log_x(m)
        write_gradients(
            a_grad, a_grad_row + k * a_grad_strides[2],
            z_grad, z_grad_row + k * z_grad_strides[2], mask,
            u, t, m, tl.exp(u) * a_scale, tl.exp(t) * z_scale,
            along_rows(mass, ADJACENT), along_rows(mean_d, ADJACENT), along_rows(bad, ADJACENT),
            a_weight, z_weight, A_GRAD, Z_GRAD,
        )  # fmt: skip
    return total + row_sum(terms, ADJACENT)


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
    if ADJACENT:
        rows, inner = units(rows, UNIT, WIDE), units(inner, UNIT, WIDE)
    else:
        classes = units(classes, UNIT, False)
    a_strides = in_elements(a_outer, a_inner, a_class, UNIT, ADJACENT, WIDE)
    z_strides = in_elements(z_outer, z_inner, z_class, UNIT, ADJACENT, WIDE)
    a_grad_strides = in_elements(a_grad_outer, a_grad_inner, a_grad_class, UNIT, ADJACENT, WIDE)
    z_grad_strides = in_elements(z_grad_outer, z_grad_inner, z_grad_class, UNIT, ADJACENT, WIDE)
    if SHARED:
        minus_strides = (0, 0, minus_class)
    else:
        minus_strides = in_elements(minus_outer, minus_inner, minus_class, UNIT, ADJACENT, WIDE)
    a_inverse, z_inverse = number(a_inverse, ACC), number(z_inverse, ACC)
    a_factor, z_factor = number(a_weight, ACC), number(z_weight, ACC)
    m, minus_mass, entropy = tl.zeros([1, 1], ACC), tl.zeros([1], ACC), tl.zeros([1], ACC)
    if SHARED and HAS_MINUS and not STREAMED:
        # Once for all of this program's rows.
        k, inside = classes_from(0, classes, BLOCK, EVEN, ADJACENT, False)
        shared = load_target(minus, k * minus_class, inside, ACC, HAS_MINUS)
        minus_mass, entropy = row_sum(shared, ADJACENT), -row_sum(x_log_x(shared), ADJACENT)
    else:
        shared = m
    total = tl.zeros([ROWS], tl.float64)
    for i in range(tl.program_id(0), tl.cdiv(rows, ROWS), programs):
        r = row_numbers(i, ROWS, WIDE)
        live = r < rows
        if STREAMED:
            losses = streamed_pair(
                r, live, a, a_strides, z, z_strides, minus, minus_strides,
                a_grad, a_grad_strides, z_grad, z_grad_strides, inner, classes,
                a_inverse, z_inverse, a_factor, z_factor,
                ACC, ROWS, BLOCK, HAS_MINUS, SHARED, A_GRAD, Z_GRAD, EVEN, UNIT, ADJACENT, WIDE,
            )  # fmt: skip
        else:
            losses = resident_pair(
                r, live, a, a_strides, z, z_strides, minus, minus_strides,
                a_grad, a_grad_strides, z_grad, z_grad_strides,
                shared, minus_mass, entropy, inner, classes,
                a_inverse, z_inverse, a_factor, z_factor,
                ACC, ROWS, BLOCK, HAS_MINUS, SHARED, A_GRAD, Z_GRAD, EVEN, UNIT, ADJACENT, WIDE,
            )  # fmt: skip
        if PER_ROW:
            tl.store(loss + r, losses * number(scale, ACC), mask=live)
        else:
            total += tl.where(live, losses, 0.0).to(tl.float64)
    if not PER_ROW:
        sum_of_losses = tl.sum(total, 0) * number(scale, tl.float64)
        add_up(sum_of_losses, loss, partials, ticket, programs, SINGLE)
