"""Launches of the divergences between two softmaxes: rows of two logits to programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gankernels.triton.divergence import Batch, Call, Operand, programs_of
from gankernels.triton.kernels.mixture import mixture_kernel
from gankernels.triton.kernels.softmax_pair import softmax_pair_kernel
from gankernels.triton.launching import NONE, launch, workspace
from gankernels.triton.plans import Tile, tile_of_mixture


def softmax_pair(
    call: Call, loss: Tensor, batch: Batch, temperatures: tuple[float, float] = (1.0, 1.0)
) -> None:
    """KL(softmax(a) || .) - KL(M || .); the batch's logits are a and z, its target M, if any."""
    minus = batch.targets[0] if batch.targets else batch.logits[0]
    given = Given(batch, batch.tile())
    tensors = (*(x.tensor for x in batch.logits), minus.tensor)
    strides = (
        *given.strides_of(batch.logits),
        *(minus.strides if batch.shared else given.strides_of([minus])),
    )
    numbers = (
        *(1 / t for t in temperatures),
        *(call.weight(batch.rows) / t for t in temperatures),
    )
    constants = dict(HAS_MINUS=bool(batch.targets), SHARED=batch.shared)
    given.launch(softmax_pair_kernel, call, loss, tensors, strides, numbers, constants)


def mixture(call: Call, loss: Tensor, batch: Batch, beta: float, temperature: float) -> None:
    """beta KL(softmax(a) || m) + (1 - beta) KL(softmax(z) || m), m the mixture of both."""
    given = Given(batch, tile_of_mixture(batch.classes, batch.adjacent, batch.in_float64))
    tensors = tuple(x.tensor for x in batch.logits)
    shares, weight = (beta, 1 - beta), call.weight(batch.rows) / temperature
    numbers = (1 / temperature, *shares, *(weight * share for share in shares))
    strides = given.strides_of(batch.logits)
    given.launch(mixture_kernel, call, loss, tensors, strides, numbers, {})


class Given:
    """What both kernels are given of a batch of two logits."""

    def __init__(self, batch: Batch, tile: Tile) -> None:
        self.batch, self.tile = batch, tile
        self.unit = min(batch.unit, tile.at_once)

    def strides_of(self, operands: Sequence[Operand]) -> tuple[int, ...]:
        return tuple(s for x in operands for s in x.steps(self.unit, self.batch.adjacent))

    def launch(
        self,
        kernel: Any,
        call: Call,
        loss: Tensor,
        tensors: Sequence[Tensor],
        strides: Sequence[int],
        numbers: Sequence[float],
        constants: dict[str, Any],
    ) -> None:
        """One launch; tensors, strides and numbers stand in it before those of every such kernel."""
        batch, tile = self.batch, self.tile
        if call.reduction == NONE and loss.numel() == 0:
            return
        row_unit, class_unit = (self.unit, 1) if batch.adjacent else (1, self.unit)
        before = (*tensors, *(x.tensor for x in batch.gradients), loss)
        after = (
            batch.rows // row_unit,
            batch.inner // row_unit,
            batch.classes // class_unit,
            *strides,
            *self.strides_of(batch.gradients),
            *numbers,
            call.scale(batch.rows),
        )
        constants = dict(
            **constants,
            ROWS=tile.rows,
            BLOCK=tile.block,
            A_GRAD=batch.wants[0],
            Z_GRAD=batch.wants[1],
            STREAMED=tile.streamed,
            PER_ROW=call.reduction == NONE,
            EVEN=batch.classes % tile.block == 0,
            UNIT=self.unit,
            ADJACENT=batch.adjacent,
            WIDE=batch.wide,
        )
        (programs,) = programs_of(
            kernel, loss, [batch.tiles(tile)], tile, before, (*after, 2), constants
        )
        partials, ticket = workspace(loss, programs)
        launch(
            kernel,
            programs,
            *before,
            partials,
            ticket,
            *after,
            programs,
            **constants,
            SINGLE=programs == 1,
            num_warps=tile.warps,
        )
        batch.walk.hand_back()
