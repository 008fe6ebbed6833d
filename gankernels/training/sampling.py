"""Samples of a generator: of one in training, and of one that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gankernels.training import checkpoint, parts
from gankernels.training import resume as resuming
from gankernels.training.config import TrainConfig
from gankernels.training.field_checks import check_seed
from gankernels.training.modes import evaluation_mode, same_randomness
from gankernels.training.players import prepare

__all__ = ["fixed_noise", "generate", "generator_of", "load_generator", "sampler"]


def fixed_noise(config: TrainConfig, device: torch.device) -> Tensor:
    generator = torch.Generator(device).manual_seed(config.seed)
    return parts.make_noise(config, device, generator)(config.samples)


def sampler(
    network: nn.Module, config: TrainConfig, device: str, seed: int = 0
) -> Callable[[int], Tensor]:
    """``draw(n)``: further ``n`` samples at every call, the same ones for the same ``seed``."""
    check_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    noise = parts.make_noise(config, torch.device(device), generator)
    return lambda count: generate(network, noise(count))


@torch.no_grad()
def generate(network: nn.Module, noise: Tensor) -> Tensor:
    """Samples in evaluation mode, which leaves a training network's statistics alone."""
    with evaluation_mode(network):
        samples: Tensor = network(noise)
        return samples.float().cpu()


def load_generator(
    path: str | Path, device: str = "cpu", generator: nn.Module | None = None
) -> tuple[nn.Module, TrainConfig]:
    """The generator of a checkpoint (its weight average where there is one), ready to sample.

    Args:
        path: A checkpoint, or the folder of a run.
        device: Where to put it.
        generator: The network to load into, for runs with networks of one's own: it is moved to
            ``device`` and left in evaluation mode, since it is what is returned.

    Returns:
        The network in evaluation mode on ``device``, and the configuration of its run.

    Raises:
        FileNotFoundError, ValueError: See :func:`gankernels.training.checkpoint.load`.
    """
    return generator_of(checkpoint.load(Path(path), device), path, device, generator)


def generator_of(
    state: dict[str, Any], path: str | Path, device: str = "cpu", generator: nn.Module | None = None
) -> tuple[nn.Module, TrainConfig]:
    """:func:`load_generator` for a checkpoint that was read from ``path`` already."""
    config = TrainConfig.from_dict(state["config"])
    network = generator
    if network is None:
        how = "load_generator(path, generator=...)"
        resuming.check_given(state, {"generator"}, set(), how)
        with same_randomness(torch.device(device)):  # fresh weights are drawn, and replaced
            network = parts.build_networks(config)[0]
    weights = state["generator"]
    if state["ema"] is not None:
        weights = {
            name.removeprefix("module."): value
            for name, value in state["ema"].items()
            if name.startswith("module.")
        }
    resuming.load_network(network, weights, str(path))
    prepare(network, replace(config.step, compile=False))
    return network.to(device).eval(), config
