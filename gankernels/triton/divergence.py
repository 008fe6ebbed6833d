"""Launches of the losses over distributions: tensors to rows, rows to programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gankernels.triton.geometry import Strides, Walk, walk, wide
from gankernels.triton.kernels.divergence import (
    GRADIENTS,
    SUMS,
    WHOLE,
    divergence_kernel,
)
from gankernels.triton.launching import (
    NONE,
    gradient_weight,
    launch,
    loss_scale,
    programs_at_once,
    scratch,
    workspace,
)
from gankernels.triton.plans import (
    Tile,
    next_power_of_2,
    parts_of,
    processors,
    shared_out,
    tile_of,
    tiles_of,
)

NOWHERE = Strides(0, 0, 0)


class Call(NamedTuple):
    """What all batches of a call have in common."""

    dim: int
    reduction: int
    fold_mean: bool
    grad_scale: float
    loss_scale: float

    def weight(self, rows: int) -> float:
        factor = self.loss_scale * self.grad_scale
        return gradient_weight(rows, self.reduction, self.fold_mean, factor)

    def scale(self, rows: int) -> float:
        return self.loss_scale * loss_scale(rows, self.reduction)


class Operand(NamedTuple):
    """A tensor that a kernel walks. One that it never touches may be any tensor."""

    tensor: Tensor
    strides: Strides

    def steps(self, unit: int, adjacent: bool) -> Strides:
        """The strides as kernels take them: in units, but for the one of what lies side by side."""
        outer, inner, cls = self.strides
        if adjacent:
            return Strides(outer // unit, inner, cls // unit)
        return Strides(outer // unit, inner // unit, cls)


def is_shared(target: Tensor, dim: int) -> bool:
    """One target for all rows: (K,), or 1 in every dimension but the class one."""
    return target.ndim == 1 or target.numel() == target.shape[dim]


def of_each_row(target: Tensor, logits: Tensor, dim: int) -> Tensor:
    """A target as one row for each row of logits, without copying it."""
    if target.shape == logits.shape:
        return target
    shape = [1] * logits.ndim
    shape[dim] = logits.shape[dim]
    return target.reshape(shape).expand(logits.shape)


class Batch:
    """One batch as a kernel walks it.

    Args:
        dim: The class dimension.
        logits: One or two tensors of one shape.
        targets: P and M, as many as there are; all of one shape, that of the logits or ``(K,)``.
        gradients: Outputs; one with no elements is not asked for.
    """

    def __init__(
        self, dim: int, logits: list[Tensor], targets: list[Tensor], gradients: list[Tensor]
    ) -> None:
        self.classes = logits[0].shape[dim]
        if len({t.stride() for t in targets}) > 1:
            targets = [t.contiguous() for t in targets]  # P and M are read with the same strides
        self.shared = not targets or targets[0].shape != logits[0].shape
        per_row = [] if self.shared else targets
        self.wants = [g.numel() != 0 for g in gradients]
        self.walk: Walk = walk(dim, [*logits, *per_row], [g for g in gradients if g.numel()])
        rows, inner, strides = self.walk.rows
        self.rows, self.inner, self.adjacent = rows, inner, self.walk.rows.adjacent
        self.wide = wide(self.walk.rows, self.classes)
        self.unit = self.walk.rows.unit(self.classes)
        walked = [
            Operand(*pair)
            for pair in zip([*self.walk.inputs, *self.walk.outputs], strides, strict=True)
        ]
        n = len(logits)
        self.logits = walked[:n]
        if self.shared:
            self.targets = [Operand(t, Strides(0, 0, t.stride(0))) for t in targets]
        else:
            self.targets = walked[n : n + len(targets)]
        outputs = iter(walked[n + len(per_row) :])
        unused = Operand(self.logits[0].tensor, NOWHERE)
        self.gradients = [next(outputs) if wanted else unused for wanted in self.wants]

    @property
    def in_float64(self) -> bool:
        return self.logits[0].tensor.dtype == torch.float64

    def tile(self) -> Tile:
        """The tile for these rows."""
        operands = len(self.logits)
        if not self.shared and operands == 1:
            operands += 2 * len(self.targets)  # read, and its entropy beside its difference
        else:
            # A shared target counts beside two logits, whose exponentials take registers too.
            operands += len(self.targets) if operands == 2 else 0
        return tile_of(self.classes, self.adjacent, self.in_float64, operands)

    def tiles(self, tile: Tile) -> int:
        return tiles_of(self.rows, tile)


def programs_of(
    kernel: Any,
    loss: Tensor,
    tiles: Sequence[int],
    tile: Tile,
    before: Sequence[Any],
    after: Sequence[Any],
    constants: dict[str, Any],
) -> list[int]:
    """The programs of each batch; ``before`` and ``after`` are the arguments around partial sums and ticket."""
    if sum(tiles) <= processors(loss.device):
        return list(tiles)
    arguments = (*before, torch.float64, torch.int32, *after)
    constants = {**constants, "SINGLE": False}
    return shared_out(
        tiles, programs_at_once(kernel, loss.device, arguments, tile.warps, constants)
    )


def divergence(
    call: Call,
    loss: Tensor,
    positive: bool,
    negative: bool,
    *batches: Batch,
    temperature: float = 1.0,
) -> None:
    """KL(P || .) - KL(M || .) of one batch, or the sum of KL(P || .) of two.

    Args:
        call: Reduction, weights.
        loss: Output.
        positive: Whether the (first) target of each batch is a P.
        negative: Whether the last one is an M.
        batches: One or two, with a gradient to the logits and perhaps one to P.
        temperature: What all logits are divided by.
    """
    if call.reduction == NONE and loss.numel() == 0:
        return
    first, second = batches[0], batches[-1]
    # One tile serves both; it lies across the second batch where that has another layout.
    tile = first.tile()
    unit = min(first.unit, second.unit, tile.at_once) if first.adjacent == second.adjacent else 1
    tiles = [batch.tiles(tile) for batch in batches]
    # For a loss per row a program takes the same rows of both batches; where one tile holds each
    # batch, too: a ticket would cost more.
    one_tile = first.rows == second.rows and tiles[0] == 1
    together = call.reduction == NONE or one_tile
    two = len(batches) == 2
    target, minus, theirs = first.targets[0], first.targets[-1], second.targets[0]
    target_gradient = first.gradients[1] if len(first.gradients) > 1 else target
    adjacent = first.adjacent and second.adjacent
    row_unit, class_unit = (unit, 1) if adjacent else (1, unit)
    before = (
        first.logits[0].tensor,
        first.gradients[0].tensor,
        target.tensor,
        minus.tensor,
        target_gradient.tensor,
        second.logits[0].tensor,
        second.gradients[0].tensor,
        theirs.tensor,
        loss,
    )
    after = (
        first.rows // row_unit,
        first.inner // row_unit,
        second.rows // row_unit,
        second.inner // row_unit,
        first.classes // class_unit,
        *first.logits[0].steps(unit, adjacent),
        *first.gradients[0].steps(unit, adjacent),
        *(target.strides if first.shared else target.steps(unit, adjacent)),
        *target_gradient.steps(unit, adjacent),
        *second.logits[0].steps(unit, adjacent),
        *second.gradients[0].steps(unit, adjacent),
        *(theirs.strides if second.shared else theirs.steps(unit, adjacent)),
        1 / temperature,
        call.weight(first.rows) / temperature,
        call.weight(second.rows) / temperature,
        call.weight(first.rows),
        call.scale(first.rows),
        call.scale(second.rows),
    )
    constants = dict(
        ROWS=tile.rows,
        BLOCK=tile.block,
        HAS_TARGET=positive,
        HAS_MINUS=negative,
        SHARED=first.shared,
        Q_GRAD=first.wants[0],
        Q2_GRAD=second.wants[0],
        TARGET_GRAD=len(first.wants) > 1 and first.wants[1],
        BATCHES=1 if not two else 3 if together else 2,
        STREAMED=tile.streamed,
        PER_ROW=call.reduction == NONE,
        EVEN=first.classes % (tile.block * (2 if tile.streamed else 1)) == 0,
        UNIT=unit,
        ADJACENT=adjacent,
        WIDE=first.wide or second.wide,
    )
    rows = [batch.rows for batch in batches]
    parts = 1
    if tile.streamed and not adjacent and call.reduction != NONE and all(rows):
        parts = parts_of(sum(rows), first.classes, loss.device)
    if parts > 1:
        in_parts(sum(rows), parts, first.classes, tile, loss, before, after, constants)
    else:
        whole(tiles[:1] if together else tiles, tile, loss, before, after, constants)
    for batch in batches:
        batch.walk.hand_back()


def whole(
    tiles: Sequence[int],
    tile: Tile,
    loss: Tensor,
    before: Sequence[Any],
    after: Sequence[Any],
    constants: dict[str, Any],
) -> None:
    """One launch; ``before`` and ``after`` are the arguments around those that depend on the programs."""
    constants = {**constants, "PARTS": 1, "STAGE": WHOLE}
    before = (*before, loss)
    programs = programs_of(
        divergence_kernel, loss, tiles, tile, before, (*after, 2, 1, 1, 0), constants
    )
    partials, ticket = workspace(loss, sum(programs))
    launch(
        divergence_kernel,
        sum(programs),
        *before,
        partials,
        ticket,
        *after,
        sum(programs),
        programs[0],
        1,
        0,
        **constants,
        SINGLE=sum(programs) == 1,
        num_warps=tile.warps,
    )


def in_parts(
    rows: int,
    parts: int,
    classes: int,
    tile: Tile,
    loss: Tensor,
    before: Sequence[Any],
    after: Sequence[Any],
    constants: dict[str, Any],
) -> None:
    """Two launches, in which several programs share a row."""
    step = 2 * tile.block
    span = -(-classes // parts // step) * step
    programs = rows * parts
    sums = scratch(loss, rows, parts, 4)
    partials, ticket = workspace(loss, programs)
    for stage in (SUMS, GRADIENTS):
        launch(
            divergence_kernel,
            programs,
            *before,
            sums,
            partials,
            ticket,
            *after,
            programs,
            programs,
            parts,
            span,
            **constants,
            SINGLE=False,
            PARTS=next_power_of_2(parts),
            STAGE=stage,
            num_warps=tile.warps,
        )
