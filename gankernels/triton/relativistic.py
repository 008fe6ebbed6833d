"""Launches of the relativistic average losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gankernels.triton.geometry import (
    INT32_MAX,
    MOST_AT_ONCE,
    TILE_MARGIN,
    dense,
    in_order_of,
)
from gankernels.triton.kernels.relativistic import (
    ALL,
    GRADIENTS,
    MEANS,
    SLOPES,
    relativistic_kernel,
)
from gankernels.triton.launching import (
    MEAN,
    NONE,
    gradient_weight,
    launch,
    loss_scale,
    scratch,
    workspace,
)
from gankernels.triton.plans import ELEMENTS, RELATIVISTIC_LOGITS, element_programs


class Term(NamedTuple):
    """weight * f(sign * (x - offset)) + slope * x of every logit."""

    function: int
    sign: float
    offset: float
    weight: float
    slope: float


class Terms(NamedTuple):
    """A loss of a real and a fake batch."""

    real: Term
    fake: Term

    def constants(self) -> dict[str, Any]:
        """Both terms as the kernels take them, the first batch's and the second's."""
        named: dict[str, Any] = {}
        for term, suffix in ((self.real, ""), (self.fake, "2")):
            named |= {
                f"FUNCTION{suffix}": term.function,
                f"SIGN{suffix}": term.sign,
                f"OFFSET{suffix}": term.offset,
                f"WEIGHT{suffix}": term.weight,
                f"SLOPE{suffix}": term.slope != 0,
            }
        return named

    def slopes(self) -> tuple[float, float]:
        return self.real.slope, self.fake.slope


def terms_of(real_term: Sequence[float], fake_term: Sequence[float]) -> Terms:
    """The operator's arguments, which C++ has checked."""
    real, fake = (Term(int(numbers[0]), *numbers[1:]) for numbers in (real_term, fake_term))
    return Terms(real, fake)


class Batch:
    """Logits and gradient as dense runs of memory in one order; a gradient may be lent."""

    def __init__(self, logits: Tensor, gradient: Tensor, loss: Tensor, reduction: int) -> None:
        self.wants = gradient.numel() != 0
        # The order is that of the losses, which two batches may share, or of the gradient.
        like = loss if reduction == NONE else gradient if self.wants else dense(logits)
        self.logits = in_order_of(like, logits)
        self.asked = gradient
        self.gradient = self.logits
        if self.wants:
            same = gradient.stride() == self.logits.stride()
            self.gradient = gradient if same else torch.empty_like(self.logits)
        self.count = logits.numel()

    def hand_back(self) -> None:
        if self.wants and self.gradient is not self.asked:
            self.asked.copy_(self.gradient)


def relativistic(
    terms: Terms,
    reduction: int,
    fold_mean: bool,
    grad_scale: float,
    loss: Tensor,
    real: Batch,
    fake: Batch,
) -> None:
    """One launch for small batches; three for large ones, as each stage needs the sums before it."""
    if reduction == NONE and loss.numel() == 0:
        return
    weights = [gradient_weight(b.count, reduction, fold_mean, grad_scale) for b in (real, fake)]
    scales = [loss_scale(b.count, reduction) for b in (real, fake)]
    count = max(real.count, fake.count)
    wide = count > INT32_MAX - TILE_MARGIN
    unit = math.gcd(MOST_AT_ONCE, real.count, fake.count)
    programs = 1 if count <= RELATIVISTIC_LOGITS else element_programs(count, loss.device)
    partials, ticket = workspace(loss, programs)
    sums = partials
    if programs > 1:
        sums = scratch(loss, programs, 4)
    # Under "mean" each batch's terms have their own 1/N, of which a weight applies only its own.
    mean = reduction == MEAN
    shares = [
        1 / max(1, fake.count if mean else real.count),
        1 / max(1, real.count if mean else fake.count),
    ]
    for stage in (ALL,) if programs == 1 else (MEANS, SLOPES, GRADIENTS):
        launch(
            relativistic_kernel,
            programs,
            real.logits,
            real.gradient,
            fake.logits,
            fake.gradient,
            loss,
            partials,
            ticket,
            sums,
            real.count // unit,
            fake.count // unit,
            *weights,
            *scales,
            *shares,
            *terms.slopes(),
            programs,
            STAGE=stage,
            BLOCK=ELEMENTS,
            **terms.constants(),
            REAL_GRAD=real.wants,
            FAKE_GRAD=fake.wants,
            PER_ROW=reduction == NONE,
            UNIT=unit,
            WIDE=wide,
            num_warps=4,
        )
    real.hand_back()
    fake.hand_back()
