"""Launches of the losses of one logit per sample or patch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gankernels.triton.geometry import INT32_MAX, MOST_AT_ONCE, TILE_MARGIN
from gankernels.triton.kernels.scalar import (
    ALL,
    GRADIENTS,
    HINGE,
    IDENTITY,
    MEANS,
    SLOPES,
    SOFTPLUS,
    SQUARE,
    relativistic_kernel,
    scalar_kernel,
)
from gankernels.triton.launching import (
    MEAN,
    NONE,
    OPTIONS,
    gradient_weight,
    loss_scale,
    workspace,
)
from gankernels.triton.plans import ELEMENTS, RELATIVISTIC_LOGITS, element_programs


class Term(NamedTuple):
    """weight * f(sign * (x - offset)) of every logit."""

    sign: float = 1.0
    offset: float = 0.0
    weight: float = 1.0


class Loss(NamedTuple):
    function: int
    real: Term | None
    fake: Term
    relativistic: bool = False


# As csrc/scalar_losses.h has them; logistic_d adds a slope, its label smoothing, to the real term.
LOSSES = {
    "logistic_d": Loss(SOFTPLUS, Term(-1.0), Term()),
    "nonsaturating_g": Loss(SOFTPLUS, None, Term(-1.0)),
    "saturating_g": Loss(SOFTPLUS, None, Term(weight=-1.0)),
    "hinge_d": Loss(HINGE, Term(-1.0), Term()),
    "hinge_g": Loss(IDENTITY, None, Term(-1.0)),
    "wasserstein_d": Loss(IDENTITY, Term(-1.0), Term()),
    "wasserstein_g": Loss(IDENTITY, None, Term(-1.0)),
    "lsgan_d": Loss(SQUARE, Term(offset=1.0), Term()),
    "lsgan_g": Loss(SQUARE, None, Term(offset=1.0)),
    "relativistic_d": Loss(SOFTPLUS, Term(-1.0), Term(), relativistic=True),
    "relativistic_g": Loss(SOFTPLUS, Term(), Term(-1.0), relativistic=True),
}


def find(name: str) -> Loss:
    loss = LOSSES.get(name)
    if loss is None:
        raise ValueError(
            f"loss must be the name of a scalar loss such as 'logistic_d', got '{name}'"
        )
    return loss


def in_order_of(like: Tensor, x: Tensor) -> Tensor:
    """``x`` with the elements in memory in the order of ``like``, which is dense."""
    if x.stride() == like.stride():
        return x
    return torch.empty_like(like, dtype=x.dtype).copy_(x)


class Batch:
    """Logits and gradient as dense runs of memory in one order; a gradient may be lent."""

    def __init__(self, logits: Tensor, gradient: Tensor, loss: Tensor, reduction: int) -> None:
        self.wants = gradient.numel() != 0
        # The order is that of the losses, which two batches may share, or of the gradient.
        like = loss if reduction == NONE else gradient if self.wants else logits
        if not like.is_contiguous() and like is logits:
            like = torch.empty_like(logits)  # dense, whatever the logits' layout
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


def scalar(
    name: str,
    label_smoothing: float,
    reduction: int,
    fold_mean: bool,
    grad_scale: float,
    loss: Tensor,
    *batches: Batch,
) -> None:
    """The loss and gradients of a real and a fake batch, or of a fake batch alone."""
    if reduction == NONE and loss.numel() == 0:
        return
    function = find(name)
    first, second = batches[0], batches[-1]
    weights = [gradient_weight(b.count, reduction, fold_mean, grad_scale) for b in (first, second)]
    scales = [loss_scale(b.count, reduction) for b in (first, second)]
    wide = max(first.count, second.count) > INT32_MAX - TILE_MARGIN
    unit = math.gcd(MOST_AT_ONCE, first.count, second.count)
    if function.relativistic:
        relativistic(function, reduction, weights, scales, unit, wide, loss, first, second)
        return
    two = len(batches) == 2
    slope = label_smoothing if name == "logistic_d" else 0.0
    of_first = element_programs(first.count, loss.device)
    together = two and (reduction == NONE or max(first.count, second.count) <= ELEMENTS)
    together = together and first.count == second.count
    programs = of_first + (element_programs(second.count, loss.device) if two else 0)
    programs = of_first if together else programs
    partials, ticket = workspace(loss, programs)
    term, term2 = function.real or function.fake, function.fake
    scalar_kernel[(programs,)](
        first.logits,
        first.gradient,
        second.logits,
        second.gradient,
        loss,
        partials,
        ticket,
        first.count // unit,
        second.count // unit,
        *weights,
        *scales,
        slope,
        programs,
        of_first,
        BLOCK=ELEMENTS,
        FUNCTION=function.function,
        SIGN=term.sign,
        OFFSET=term.offset,
        WEIGHT=term.weight,
        SLOPE=slope != 0,
        GRAD=first.wants,
        SIGN2=term2.sign,
        OFFSET2=term2.offset,
        GRAD2=second.wants,
        BATCHES=1 if not two else 3 if together else 2,
        PER_ROW=reduction == NONE,
        SINGLE=programs == 1,
        UNIT=unit,
        WIDE=wide,
        num_warps=4,
        **OPTIONS,
    )
    for batch in batches:
        batch.hand_back()


def relativistic(
    function: Loss,
    reduction: int,
    weights: list[float],
    scales: list[float],
    unit: int,
    wide: bool,
    loss: Tensor,
    real: Batch,
    fake: Batch,
) -> None:
    """One launch for small batches; three for large ones, as each stage needs the sums before it."""
    assert function.real is not None
    count = max(real.count, fake.count)
    programs = 1 if count <= RELATIVISTIC_LOGITS else element_programs(count, loss.device)
    partials, ticket = workspace(loss, programs)
    sums = partials
    if programs > 1:
        sums = torch.empty(programs, 4, dtype=torch.float64, device=loss.device)
    # Under "mean" each batch's terms have their own 1/N, of which a weight applies only its own.
    mean = reduction == MEAN
    shares = [
        1 / max(1, fake.count if mean else real.count),
        1 / max(1, real.count if mean else fake.count),
    ]
    for stage in (ALL,) if programs == 1 else (MEANS, SLOPES, GRADIENTS):
        relativistic_kernel[(programs,)](
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
            programs,
            STAGE=stage,
            BLOCK=ELEMENTS,
            SIGN=function.real.sign,
            REAL_GRAD=real.wants,
            FAKE_GRAD=fake.wants,
            PER_ROW=reduction == NONE,
            UNIT=unit,
            WIDE=wide,
            num_warps=4,
            **OPTIONS,
        )
    real.hand_back()
    fake.hand_back()
