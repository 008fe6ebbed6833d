"""What a training step works on: the networks and optimizers that it updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import gankernels as gk
from gankernels.training.step_config import StepConfig

__all__ = ["Metrics", "Noise", "Players", "adam", "grad_scaler", "prepare"]


Metrics = dict[str, Tensor]
Noise = Callable[[int], Tensor]


@dataclass
class Players:
    """The two networks, what updates them, and what else changes in a step.

    ``g_optimizer`` and ``d_optimizer`` may be one object that holds both networks' parameters; a
    phase of the alternating step then updates only the parameters that have a gradient in it.
    ``scaler`` is the loss scale of fp16 training, ``lecam`` the penalty of ``StepConfig.lecam`` with its
    averages.
    """

    generator: nn.Module
    discriminator: nn.Module
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    scaler: torch.amp.GradScaler | None = None
    lecam: gk.LeCamPenalty | None = None


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
    optimizer = torch.optim.Adam(
        parameters,
        lr=lr,
        betas=betas,
        fused=config.optimizer == "fused",
        foreach=config.optimizer == "foreach",
    )
    if config.optimizer != "fused":
        optimizer.register_step_pre_hook(_start_counters)
    return optimizer


def _start_counters(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
    """Begin the state of new parameters, whose step counters PyTorch makes of the default dtype and device."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not optimizer.state[parameter]:
                zeros = partial(torch.zeros_like, parameter, memory_format=torch.preserve_format)
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device="cpu"),
                    "exp_avg": zeros(requires_grad=False),
                    "exp_avg_sq": zeros(requires_grad=False),
                }


def grad_scaler(config: StepConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """A loss scale where fp16 needs one, else None."""
    return torch.amp.GradScaler(device.type) if config.amp == "fp16" else None
