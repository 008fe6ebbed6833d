"""The losses of one logit per sample or patch, as data: a row is all that kernels and reference need of one.

A term is ``weight * f(sign * (x - y - offset)) + slope * (x - y)`` of every logit ``x`` of a tensor, ``y`` the
logit at the same place of another tensor or absent; the kernels of every backend compute any. A row also
states its loss as formulas in plain PyTorch, independent of its terms: the reference computes by these, and
the tests compare the kernels with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

FUNCTIONS = ("softplus", "hinge", "square", "identity", "absolute")
"""f of a term: log(1 + e^u), max(0, 1 + u), u^2 / 2, u, |u|; ScalarFunction in csrc/problems.h has this order."""

Term = tuple[float, ...]
"""(function, sign, offset, weight, slope), as the operators take it."""


def term(
    function: str,
    *,
    sign: float = 1.0,
    offset: float = 0.0,
    weight: float = 1.0,
    slope: float = 0.0,
) -> Term:
    """A term by the name of its function."""
    return (float(FUNCTIONS.index(function)), sign, offset, weight, slope)


def scaled(numbers: Term, scale: float) -> Term:
    """The term times a factor."""
    if scale == 1:
        return numbers
    return (*numbers[:3], numbers[3] * scale, numbers[4] * scale)


class OneLess(NamedTuple):
    """A label of 1 - ``by``: of 1 - (1 - s) rounding leaves another number than s."""

    by: float


def _below_one(label: float | OneLess) -> float:
    """1 - label."""
    return label.by if isinstance(label, OneLess) else 1.0 - label


@dataclass(frozen=True)
class Side:
    """What a loss is of one of its batches.

    Args:
        labelled: The term by its label; one without a label ignores it.
        formula: The loss of every logit in plain PyTorch, by logits and label.
        label: What the label is where nothing is said; None where there is none.
        bounded: Whether it must be in [0, 1].
    """

    labelled: Callable[[Any], Term]
    formula: Callable[[Tensor, Any], Tensor]
    label: float | None = None
    bounded: bool = False

    @property
    def term(self) -> Term:
        """With the label at its default."""
        return self.labelled(self.label or 0.0)


@dataclass(frozen=True)
class ScalarLoss:
    """One row.

    Args:
        real: What it is of the real logits, if anything.
        fake: What it is of the fake logits, if anything.
        pair: What it is of each real logit less the fake one at its place; then there is nothing else.
        relativistic: Whether each batch's offset is, besides its own, the mean of the other batch; then the
            formulas are of what is left of a logit without that mean.
    """

    real: Side | None = None
    fake: Side | None = None
    pair: Side | None = None
    relativistic: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of its logits."""
        both = (("real_logits", self.real or self.pair), ("fake_logits", self.fake or self.pair))
        return tuple(name for name, side in both if side is not None)


def numbers_of(side: Side, label: float | OneLess | None) -> Term:
    """The term of a side with this label, or its own."""
    if label is None:
        return side.term
    return side.labelled(label if isinstance(label, OneLess) else float(label))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x): F.softplus is linear above a threshold of 20, which is off by 2e-9."""
    return -F.logsigmoid(-x)


def _fixed(numbers: Term, formula: Callable[[Tensor], Tensor]) -> Side:
    """A side that has no label."""
    return Side(lambda label: numbers, lambda x, label: formula(x))


# softplus(x) - t x = softplus(-x) + (1 - t) x, the binary cross-entropy of sigmoid(x) and a target t.
def _cross_entropy_from_one(x: Tensor, label: float | OneLess) -> Tensor:
    rows, slope = softplus(-x), _below_one(label)
    return rows if slope == 0 else rows + slope * x  # 0 * inf is NaN


def _cross_entropy_from_zero(x: Tensor, label: float) -> Tensor:
    rows = softplus(x)
    return rows if label == 0 else rows - label * x


def _distance(x: Tensor, label: float) -> Tensor:
    return 0.5 * (x - label).square()


def _least_squares(label: float) -> Side:
    return Side(lambda value: term("square", offset=value), _distance, label)


_LOGISTIC_REAL = Side(
    lambda label: term("softplus", sign=-1.0, slope=float(_below_one(label))),
    _cross_entropy_from_one,
    1.0,
    True,
)
_LOGISTIC_FAKE = Side(
    # Of two zeros one is the default's.
    lambda label: term("softplus", slope=0.0 - label),
    _cross_entropy_from_zero,
    0.0,
    True,
)
_RAISED = _fixed(term("softplus", sign=-1.0), lambda x: softplus(-x))
_LOWERED = _fixed(term("softplus"), softplus)
_HINGE_REAL = _fixed(term("hinge", sign=-1.0), lambda x: F.relu(1 - x))
_HINGE_FAKE = _fixed(term("hinge"), lambda x: F.relu(1 + x))
_NEGATIVE = _fixed(term("identity", sign=-1.0), lambda x: -x)
_ITSELF = _fixed(term("identity"), lambda x: x)
_SQUARE_REAL, _SQUARE_FAKE = _least_squares(1.0), _least_squares(0.0)

DISTANCES: Mapping[str, Side] = {
    "l1": _fixed(term("absolute"), Tensor.abs),
    "l2": _fixed(term("square", weight=2.0), Tensor.square),
}
"""Of each feature of a generated image less that of a real one, by the name of the norm."""

SCALAR_LOSSES: Mapping[str, ScalarLoss] = {
    "logistic_d_loss": ScalarLoss(_LOGISTIC_REAL, _LOGISTIC_FAKE),
    "logistic_d_real_loss": ScalarLoss(real=_LOGISTIC_REAL),
    "logistic_d_fake_loss": ScalarLoss(fake=_LOGISTIC_FAKE),
    "nonsaturating_g_loss": ScalarLoss(fake=_RAISED),
    "saturating_g_loss": ScalarLoss(
        fake=_fixed(term("softplus", weight=-1.0), lambda f: -softplus(f))
    ),
    "hinge_d_loss": ScalarLoss(_HINGE_REAL, _HINGE_FAKE),
    "hinge_d_real_loss": ScalarLoss(real=_HINGE_REAL),
    "hinge_d_fake_loss": ScalarLoss(fake=_HINGE_FAKE),
    "hinge_g_loss": ScalarLoss(fake=_NEGATIVE),
    "wasserstein_d_loss": ScalarLoss(_NEGATIVE, _ITSELF),
    "wasserstein_d_real_loss": ScalarLoss(real=_NEGATIVE),
    "wasserstein_d_fake_loss": ScalarLoss(fake=_ITSELF),
    "wasserstein_g_loss": ScalarLoss(fake=_NEGATIVE),
    "lsgan_d_loss": ScalarLoss(_SQUARE_REAL, _SQUARE_FAKE),
    "lsgan_d_real_loss": ScalarLoss(real=_SQUARE_REAL),
    "lsgan_d_fake_loss": ScalarLoss(fake=_SQUARE_FAKE),
    "lsgan_g_loss": ScalarLoss(fake=_least_squares(1.0)),
    "relativistic_d_loss": ScalarLoss(_RAISED, _LOWERED, relativistic=True),
    "relativistic_g_loss": ScalarLoss(_LOWERED, _RAISED, relativistic=True),
    "relativistic_pairing_d_loss": ScalarLoss(pair=_RAISED),
    "relativistic_pairing_g_loss": ScalarLoss(pair=_LOWERED),
}
"""Every loss of this kind, by its public name."""
