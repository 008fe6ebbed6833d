"""The losses of one logit per sample or patch, as data: a row is all that kernels and reference need of one.

A term is ``weight * f(sign * (x - offset)) + slope * x`` of every logit ``x`` of a batch; the kernels of
every backend compute any. A row also states its loss as a formula in plain PyTorch, independent of its
terms: the reference computes by these, and the tests compare the kernels with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

FUNCTIONS = ("softplus", "hinge", "square", "identity")
"""f of a term: log(1 + e^u), max(0, 1 + u), u^2 / 2, u; in the order of ScalarFunction in csrc/problems.h."""

Term = tuple[float, ...]
"""(function, sign, offset, weight, slope), as the operators take it."""

Formula = Callable[[Tensor], Tensor]


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


class ScalarLoss(NamedTuple):
    """One row.

    Args:
        fake: The term of the fake logits.
        of_fake: The same in plain PyTorch, element by element.
        real: The term of the real logits; empty for a loss of the fake ones alone.
        of_real: The same in plain PyTorch.
        relativistic: Whether each batch's offset is, besides its own, the mean of the other batch; then the
            formulas are of what is left of a logit without that mean.
    """

    fake: Term
    of_fake: Formula
    real: Term = ()
    of_real: Formula | None = None
    relativistic: bool = False

    def rows(
        self, real: Tensor | None, fake: Tensor, label_smoothing: float = 0.0
    ) -> tuple[Tensor, ...]:
        """The loss of every real logit and of every fake one by the formulas, in the dtype of the logits."""
        if self.of_real is None or real is None:
            return (self.of_fake(fake),)
        of_real = self.of_real(real - fake.mean() if self.relativistic else real)
        of_fake = self.of_fake(fake - real.mean() if self.relativistic else fake)
        if label_smoothing:  # 0 * inf is NaN
            of_real = of_real + label_smoothing * real
        return of_real, of_fake

    def smoothed(self, label_smoothing: float) -> ScalarLoss:
        """With targets of ``1 - label_smoothing`` for the real logits of a logistic loss."""
        return self._replace(real=(*self.real[:4], float(label_smoothing)))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x): F.softplus is linear above a threshold of 20, which is off by 2e-9."""
    return -F.logsigmoid(-x)


def _raise(u: Tensor) -> Tensor:
    return softplus(-u)


def _negative(x: Tensor) -> Tensor:
    return -x


def _itself(x: Tensor) -> Tensor:
    return x


def _to_one(x: Tensor) -> Tensor:
    return 0.5 * (x - 1).square()


def _to_zero(x: Tensor) -> Tensor:
    return 0.5 * x.square()


def _above_one(x: Tensor) -> Tensor:
    return F.relu(1 - x)


def _below_minus_one(x: Tensor) -> Tensor:
    return F.relu(1 + x)


SCALAR_LOSSES: Mapping[str, ScalarLoss] = {
    "logistic_d_loss": ScalarLoss(term("softplus"), softplus, term("softplus", sign=-1.0), _raise),
    "nonsaturating_g_loss": ScalarLoss(term("softplus", sign=-1.0), _raise),
    "saturating_g_loss": ScalarLoss(term("softplus", weight=-1.0), lambda f: -softplus(f)),
    "hinge_d_loss": ScalarLoss(
        term("hinge"), _below_minus_one, term("hinge", sign=-1.0), _above_one
    ),
    "hinge_g_loss": ScalarLoss(term("identity", sign=-1.0), _negative),
    "wasserstein_d_loss": ScalarLoss(
        term("identity"), _itself, term("identity", sign=-1.0), _negative
    ),
    "wasserstein_g_loss": ScalarLoss(term("identity", sign=-1.0), _negative),
    "lsgan_d_loss": ScalarLoss(term("square"), _to_zero, term("square", offset=1.0), _to_one),
    "lsgan_g_loss": ScalarLoss(term("square", offset=1.0), _to_one),
    "relativistic_d_loss": ScalarLoss(
        term("softplus"), softplus, term("softplus", sign=-1.0), _raise, relativistic=True
    ),
    "relativistic_g_loss": ScalarLoss(
        term("softplus", sign=-1.0), _raise, term("softplus"), softplus, relativistic=True
    ),
}
"""Every loss of this kind, by its public name."""
