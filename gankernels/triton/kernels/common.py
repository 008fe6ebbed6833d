"""What the kernels share: where rows lie, logarithms of nothing, and one sum from many programs.

A kernel is launched with a flat list of arguments, since tuples cost time at every launch. It puts them into
tuples, which cost nothing there: constants and values into tuples of their own, for a constant among values would
become a value.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

# Partial sums that one step of the last program adds up; a launch rarely has more programs.
SUM_BLOCK = tl.constexpr(1024)


LOG2E = tl.constexpr(1.4426950408889634)


class Layout(NamedTuple):
    """How tiles lie over rows and classes; constants."""

    ROWS: Any  # of a tile
    BLOCK: Any  # of a row's classes, those of a tile
    EVEN: Any  # whether every tile ends within the row
    UNIT: Any  # divides all strides but 1, and the extent of what lies side by side
    ADJACENT: Any  # whether that is rows, not classes
    WIDE: Any  # whether an offset may exceed 2^31 - 1


class Extent(NamedTuple):
    """Of a batch. Row r is the r % inner-th of the r // inner-th outer row."""

    rows: Any
    inner: Any
    classes: Any


class Operand(NamedTuple):
    """A tensor, and its strides of (outer row, inner row, class) in elements."""

    pointer: Any
    outer: Any
    inner: Any
    cls: Any


@triton.jit
def exp_of(t, inverse):
    """exp(t * inverse)."""
    if t.dtype == tl.float64:
        return tl.exp(t * inverse)
    else:  # one product less: exp would multiply by LOG2E too
        return tl.exp2(t * (inverse * LOG2E))


@triton.jit
def number(x, dtype: tl.constexpr):
    """A scalar argument in a dtype; Triton's interpreter hands it over as a Python number."""
    return tl.full([], x, dtype)


@triton.jit
def row_numbers(tile, layout: tl.constexpr):
    """The rows of a tile; 64-bit where an offset may exceed 2^31 - 1."""
    if layout.WIDE:
        return tile.to(tl.int64) * layout.ROWS + tl.arange(0, layout.ROWS)
    else:
        return tile * layout.ROWS + tl.arange(0, layout.ROWS)


@triton.jit
def units(count, UNIT: tl.constexpr, WIDE: tl.constexpr):
    """count * UNIT: the product tells the compiler that UNIT divides it."""
    if UNIT == 1:
        return count
    elif WIDE:
        return number(count, tl.int64) * UNIT
    else:
        return count * UNIT


# What lies side by side is counted in UNITs, and so is every stride but its own: so as many elements move at
# once, of a row's classes, or where ADJACENT of rows.
@triton.jit
def extent(rows, inner, classes, layout: tl.constexpr):
    UNIT: tl.constexpr = layout.UNIT
    if layout.ADJACENT:
        return Extent(units(rows, UNIT, layout.WIDE), units(inner, UNIT, layout.WIDE), classes)
    else:
        return Extent(rows, inner, units(classes, UNIT, False))


@triton.jit
def in_elements(outer, inner, cls, layout: tl.constexpr):
    UNIT: tl.constexpr = layout.UNIT
    WIDE: tl.constexpr = layout.WIDE
    if layout.ADJACENT:
        return units(outer, UNIT, WIDE), inner, units(cls, UNIT, WIDE)
    else:
        return units(outer, UNIT, WIDE), units(inner, UNIT, WIDE), cls


@triton.jit
def operand(pointer, outer, inner, cls, layout: tl.constexpr):
    outer, inner, cls = in_elements(outer, inner, cls, layout)
    return Operand(pointer, outer, inner, cls)


@triton.jit
def target_operand(pointer, outer, inner, cls, SHARED: tl.constexpr, layout: tl.constexpr):
    """P or M; the strides of one that all rows share are handed over in elements."""
    if SHARED:
        return Operand(pointer, outer, inner, cls)
    else:
        return operand(pointer, outer, inner, cls, layout)


@triton.jit
def elements_from(tile, count, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """The BLOCK element numbers of a tile, and which of them exist."""
    i = (
        tile.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        if WIDE
        else tile * BLOCK + tl.arange(0, BLOCK)
    )
    return i, i < count


@triton.jit
def along_rows(x, layout: tl.constexpr):
    """A value per row as a tile: lanes lie along the last dimension, and that is what is adjacent."""
    if layout.ADJACENT:
        return x[None, :]
    else:
        return x[:, None]


@triton.jit
def along_classes(x, layout: tl.constexpr):
    if layout.ADJACENT:
        return x[:, None]
    else:
        return x[None, :]


@triton.jit
def row_sum(x, layout: tl.constexpr):
    return tl.sum(x, 0 if layout.ADJACENT else 1)


@triton.jit
def row_max(x, layout: tl.constexpr):
    return tl.max(x, 0 if layout.ADJACENT else 1)


@triton.jit
def each_lane(value, dtype: tl.constexpr, layout: tl.constexpr):
    """A tile of it."""
    if layout.ADJACENT:
        return tl.full([layout.BLOCK, layout.ROWS], value, dtype)
    else:
        return tl.full([layout.ROWS, layout.BLOCK], value, dtype)


@triton.jit
def rows_at(operand, r, inner, layout: tl.constexpr):
    """Where rows lie."""
    offsets = along_rows(r // inner * operand.outer + r % inner * operand.inner, layout)
    if layout.ADJACENT:
        # No more rows to a thread than it moves at once, or lanes would leave gaps between them.
        return tl.max_contiguous(offsets, [1, layout.UNIT])
    else:
        return offsets


@triton.jit
def target_rows(target, r, inner, SHARED: tl.constexpr, layout: tl.constexpr):
    """Where P or M of rows lie."""
    if SHARED:
        return tl.zeros([1, 1], r.dtype)
    else:
        return rows_at(target, r, inner, layout)


@triton.jit
def classes_from(start, classes, layout: tl.constexpr):
    """The class numbers of a tile, and which of them exist: all where EVEN."""
    k = along_classes(start + tl.arange(0, layout.BLOCK), layout)
    if layout.WIDE:
        k = k.to(tl.int64)
    inside = tl.full(k.shape, 1, tl.int1) if layout.EVEN else k < classes
    return k, inside


@triton.jit
def load_target(pointer, offsets, mask, ACC: tl.constexpr, PRESENT: tl.constexpr):
    """P or M in the accumulation dtype; zero where there is none, and beyond the last class."""
    if PRESENT:
        return tl.load(pointer + offsets, mask=mask, other=0.0).to(ACC)
    else:
        return tl.zeros([1, 1], ACC)


@triton.jit
def masked_product(b, t):
    """b * t with 0 * (-inf) = 0; a NaN in b stays."""
    return tl.where(b == 0, 0.0, b * t)


@triton.jit
def x_log_x(a):
    """a log a with 0 log 0 = 0."""
    return tl.where(a == 0, 0.0, a * tl.log(a))


# Loops over the blocks of a row carry values of lanes, which are reduced after the loop. Before release 3.9
# Triton's pass OptimizeThreadLocality rewrites a reduction that a loop carries, and where its result has more
# than one use it stops the compiler, or in builds without assertions gives wrong numbers.
@triton.jit
def rescaling(top, x):
    """What the sum of exp(. - top) so far is multiplied by, and what x adds: for the maximum of top and x.

    The larger of the two is the new base, so one of the factors is 1, and one exponential gives the other.
    """
    e = tl.exp(-tl.abs(x - top))
    adds = tl.where(x <= top, e, 1.0)
    # -inf adds nothing, be it to nothing; NaN is not below anything, and stays.
    return tl.where(x <= top, 1.0, e), tl.where(x == -float("inf"), 0.0, adds)


@triton.jit
def base_of(top):
    """What is subtracted from logits: their maximum, but 0 where all of them are -inf."""
    return tl.where(top == -float("inf"), 0.0, top)


@triton.jit
def hand_over(
    losses,  # of rows
    total,  # float64: of this program's rows so far
    loss, r, live, scale, PER_ROW: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """The total with the losses in it; where PER_ROW they are stored instead, or where ADD added to what is."""
    if PER_ROW:
        losses *= number(scale, losses.dtype)
        if ADD:
            losses += tl.load(loss + r, mask=live)
            tl.debug_barrier()  # every lane of a row has read it; one of them writes it
        tl.store(loss + r, losses, mask=live)
    else:
        total += tl.where(live, losses, 0.0).to(tl.float64)
    return total


@triton.jit
def add_up(
    total,  # float64
    loss,  # (): the sum of all programs' totals
    partials,  # (programs,), float64
    ticket,  # (): int32, zero before and after
    programs,
    SINGLE: tl.constexpr,
):
    """The loss from every program's total, in one launch and always in the same order.

    Each program leaves its total in `partials` and takes a ticket; whoever takes the last one adds
    them up. The order of the sum is that of the programs, never that of their finishing.
    """
    if SINGLE:
        tl.store(loss, total.to(loss.dtype.element_ty))
    else:
        tl.store(partials + tl.program_id(0), total)
        tl.debug_barrier()  # whichever thread stored, the release below covers it
        if tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == programs - 1:
            sums = tl.zeros([SUM_BLOCK], tl.float64)
            for start in range(0, programs, SUM_BLOCK):
                i = start + tl.arange(0, SUM_BLOCK)
                # .cg: from L2, where the other programs' stores are.
                sums += tl.load(partials + i, mask=i < programs, other=0.0, cache_modifier=".cg")
            tl.store(loss, tl.sum(sums, 0).to(loss.dtype.element_ty))
            tl.store(ticket, 0)
