"""What a training step works on: the loss it asks, the networks and optimizers it updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gankernels.training.config import StepConfig

__all__ = ["FunctionLoss", "Players", "StepLoss", "adam", "check_loss", "grad_scaler", "prepare"]


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
        with torch.enable_grad():
            real, fake = (x.detach().requires_grad_() for x in (real, fake))
            value = self.discriminator(real, fake)
            g_real, g_fake = torch.autograd.grad(value, (real, fake), materialize_grads=True)
        return value.detach(), (g_real, g_fake)

    def generator_value_and_grad(
        self, real: Tensor | None, fake: Tensor
    ) -> tuple[Tensor, tuple[None, Tensor]]:
        with torch.enable_grad():
            fake = fake.detach().requires_grad_()
            real = real.detach() if real is not None and self.generator_uses_real else None
            value = self.generator(real, fake)
            (g_fake,) = torch.autograd.grad(value, fake)
        return value.detach(), (None, g_fake)


@dataclass
class Players:
    """The two networks, what updates them, and the loss scale of fp16 training.

    ``g_optimizer`` and ``d_optimizer`` may be one object that holds both networks' parameters; a
    phase of the alternating step then updates only the parameters that have a gradient in it.
    """

    generator: nn.Module
    discriminator: nn.Module
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    scaler: torch.amp.GradScaler | None = None


def prepare(network: nn.Module, config: StepConfig) -> nn.Module:
    """Put a network into the memory format and the form (compiled or not) of ``config``."""
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        network.compile()
    return network


def adam(
    parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], config: StepConfig
) -> torch.optim.Adam:
    """Adam in the implementation that ``config.optimizer`` names."""
    return torch.optim.Adam(
        parameters,
        lr=lr,
        betas=betas,
        fused=config.optimizer == "fused",
        foreach=config.optimizer == "foreach",
    )


def grad_scaler(config: StepConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """A loss scale where fp16 needs one, else None."""
    return torch.amp.GradScaler(device.type) if config.amp == "fp16" else None
