"""What a training step asks of a loss, the losses by name, and one of one's own made of two functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

import gankernels as gk

__all__ = ["LOSSES", "FunctionLoss", "StepLoss", "check_loss"]


class StepLoss(Protocol):
    """What a step needs of a loss; every :class:`gankernels.GANLoss` has it."""

    generator_uses_real: bool

    def discriminator_value_and_grad(
        self, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...

    def generator_value_and_grad(
        self, real: Tensor | None, fake: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor]]: ...


def check_loss(loss: object) -> None:
    """Refuse what a training step cannot ask for values and gradients.

    Raises:
        TypeError: It lacks a method of :class:`StepLoss`.
    """
    needed = ("discriminator_value_and_grad", "generator_value_and_grad", "generator_uses_real")
    if not all(hasattr(loss, name) for name in needed):
        raise TypeError(
            "loss must be one of the package's loss modules, or FunctionLoss(discriminator, generator) "
            f"around two plain functions of the logits, got {type(loss).__name__}"
        )


class FunctionLoss(nn.Module):
    """A loss of one's own for the steps: two ordinary functions of the logits, through autograd.

    Args:
        discriminator: ``discriminator(real_logits, fake_logits)``, the scalar that D minimises.
        generator: ``generator(real_logits, fake_logits)``, the scalar that G minimises; the real
            logits are None unless ``generator_uses_real``.
        generator_uses_real: Whether the generator's loss looks at the real logits.

    Example:
        >>> loss = FunctionLoss(lambda real, fake: (fake - real).mean(), lambda _, fake: -fake.mean())
        >>> loss.generator_value_and_grad(None, torch.zeros(2))[1][1]
        tensor([-0.5000, -0.5000])
    """

    def __init__(
        self,
        discriminator: Callable[[Tensor, Tensor], Tensor],
        generator: Callable[[Tensor | None, Tensor], Tensor],
        generator_uses_real: bool = False,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.generator_uses_real = generator_uses_real

    def discriminator_value_and_grad(
        self, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits = real.detach(), fake.detach()
        value, grads = gk.value_and_grad(lambda r, f: self.discriminator(r, f))(*logits)
        # A loss may look at one batch only, and then has no gradient at the other.
        g_real, g_fake = (
            torch.zeros_like(x) if g is None else g for x, g in zip(logits, grads, strict=True)
        )
        return _scalar("discriminator", value), (g_real, g_fake)

    def generator_value_and_grad(
        self, real: Tensor | None, fake: Tensor
    ) -> tuple[Tensor, tuple[None, Tensor]]:
        real = real.detach() if real is not None and self.generator_uses_real else None
        value, (g_fake,) = gk.value_and_grad(lambda f: self.generator(real, f))(fake.detach())
        if g_fake is None:
            raise ValueError("generator must depend on the fake logits, got a loss that does not")
        return _scalar("generator", value), (None, g_fake)


def _scalar(name: str, value: Tensor) -> Tensor:
    if value.dim():
        raise ValueError(f"{name} must return a scalar, got shape {tuple(value.shape)}")
    return value


def _realness(
    outcomes: int,
    seed: int,
    anchors: str = "article",
    objective: int = 2,
    reduction: str = "mean",
    validate: bool = True,
    redraw: bool = False,
) -> nn.Module:
    """Anchors: article or official histograms, the latter skewed to both ends, or Gaussians."""
    draw = None
    if redraw:
        if anchors == "gaussian":
            raise ValueError("redraw must be False with gaussian anchors, which are not drawn")
        # Without a seed it draws from the global generator, whose state a checkpoint has.
        draw = partial(_anchors, anchors, outcomes)
    real, fake = _anchors(anchors, outcomes, seed)
    return gk.RealnessLoss(
        real, fake, objective=objective, reduction=reduction, validate=validate, draw=draw
    )


def _anchors(kind: str, outcomes: int, seed: int | None = None) -> tuple[Tensor, Tensor]:
    if kind == "article":
        return gk.anchors.article(outcomes, seed=seed)
    if kind == "skewed":
        real, fake = gk.anchors.official(outcomes, seed=seed)
        return gk.anchors.skewed(real, 1.0, -1.0, 1.0), gk.anchors.skewed(fake, -1.0, -1.0, 1.0)
    if kind == "gaussian":
        real = gk.anchors.gaussian(outcomes, 1.0, 1.0, -2.0, 2.0)
        return real, gk.anchors.gaussian(outcomes, -1.0, 1.0, -2.0, 2.0)
    raise ValueError(f"anchors must be article, skewed or gaussian, got {kind!r}")


def _minimax(label_smoothing: float = 0.0, reduction: str = "mean") -> nn.Module:
    return gk.LogisticLoss(label_smoothing, saturating=True, reduction=reduction)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "realness": _realness,
    "logistic": gk.LogisticLoss,
    "minimax": _minimax,
    "hinge": gk.HingeLoss,
    "wasserstein": gk.WassersteinLoss,
    "lsgan": gk.LSGANLoss,
    "relativistic": gk.RelativisticLoss,
    "pairing": gk.RelativisticPairingLoss,
}
"""The losses by the names that a configuration has for them."""
