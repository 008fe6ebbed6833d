"""The parts of a run by the names that a configuration has for them: networks, losses, noise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gankernels.training import networks
from gankernels.training.config import TrainConfig
from gankernels.training.losses import LOSSES
from gankernels.training.modes import plain_defaults

__all__ = [
    "NETWORKS",
    "VALUE_RANGES",
    "build_networks",
    "check_network",
    "make_loss",
    "make_noise",
]

VALUE_RANGES: dict[str, tuple[float, float] | None] = {
    "realness_article": (0.0, 1.0),
    "dcgan_article": (-1.0, 1.0),
    "dcgan_small": (-1.0, 1.0),
    "dcgan_spectral": (-1.0, 1.0),
    "grl_mlp": (-1.0, 1.0),
    "toy_mlp": None,
}
"""What the generators give for black and white; None where they give points."""

NETWORKS: dict[str, Callable[..., tuple[nn.Module, nn.Module]]] = {
    name: getattr(networks, name) for name in VALUE_RANGES
}
"""The pairs of networks; one of your own may be put in."""


def check_network(config: TrainConfig, points: bool | None = None) -> None:
    """Refuse a configuration whose network makes other samples than it says.

    Args:
        config: The configuration.
        points: Whether the data are points; None where that is not known.

    Raises:
        ValueError: The generator's value range is not ``config.value_range``, or it makes points
            for images, or images for points.
    """
    if config.network not in VALUE_RANGES:
        return  # a network of one's own in NETWORKS
    made = VALUE_RANGES[config.network]
    if made is not None and tuple(config.value_range) != made:
        raise ValueError(
            f"value_range is {config.value_range}, but network {config.network!r} makes {made}"
        )
    if points is not None and (made is None) != points:
        kinds = ("points", "images") if made is None else ("images", "points")
        raise ValueError(
            f"network {config.network!r} makes {kinds[0]}, and the data are {kinds[1]}"
        )


def check_batch(config: TrainConfig, *networks: nn.Module) -> None:
    """Refuse one sample at a time where batch statistics are taken of single numbers.

    Raises:
        ValueError: A network has a BatchNorm1d, and a micro-batch one sample.
    """
    if config.batch_size > config.step.accumulate:
        return
    if any(isinstance(module, nn.BatchNorm1d) for n in networks for module in n.modules()):
        raise ValueError(
            f"batch_size must be at least {2 * config.step.accumulate}, two samples for each of the "
            f"{config.step.accumulate} micro-batches of a network with BatchNorm1d, got {config.batch_size}"
        )


@plain_defaults()
def build_networks(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """The generator and the discriminator of a configuration, with fresh weights."""
    if config.network not in NETWORKS:
        raise ValueError(
            f"unknown network {config.network!r}; expected one of {', '.join(NETWORKS)}"
        )
    build = NETWORKS[config.network]
    outcomes = config.outcomes if config.loss == "realness" else 1
    shape = {"image_size": config.image_size, "channels": config.channels}
    known = inspect.signature(build).parameters
    given = {k: v for k, v in shape.items() if k in known and v is not None}
    own = [k for k in known if k not in ("outcomes", "noise_dim", *shape)]
    _check_options("network_options", config.network, config.network_options, own)
    with _type_errors_named("network_options", config.network_options):
        return build(
            outcomes=outcomes, noise_dim=config.noise_dim, **given, **config.network_options
        )


def _check_options(what: str, name: str, given: dict[str, Any], known: list[str]) -> None:
    unknown = [repr(k) for k in given if k not in known]
    if unknown:
        raise ValueError(
            f"{what} of {name!r} may be {', '.join(known) or 'none'}; got {', '.join(unknown)}"
        )


@contextmanager
def _type_errors_named(what: str, given: dict[str, Any]) -> Iterator[None]:
    """A value of the wrong type in a dictionary of options, named as the user's."""
    try:
        yield
    except TypeError as error:
        raise ValueError(f"{what} {given}: {error}") from error


@plain_defaults()
def make_loss(config: TrainConfig) -> nn.Module:
    """The loss of a configuration: ``config.loss`` with ``config.loss_options``.

    The realness loss takes ``objective`` (1, 2, 3) and ``anchors``: ``article`` (histograms of
    1,000 draws), ``skewed`` (the official repository's, skewed by 1 to both ends) or ``gaussian``
    (full support). ``redraw=True`` draws the histograms anew before every step.
    """
    if config.loss not in LOSSES:
        raise ValueError(f"unknown loss {config.loss!r}; expected {', '.join(LOSSES)}")
    build = LOSSES[config.loss]
    own = {"outcomes": config.outcomes, "seed": config.seed}
    known = inspect.signature(build).parameters
    given = {k: v for k, v in own.items() if k in known}
    _check_options(
        "loss_options", config.loss, config.loss_options, [k for k in known if k not in own]
    )
    if config.loss_options.get("reduction") == "none":
        raise ValueError("loss_options: a step needs a scalar, so reduction must not be 'none'")
    with _type_errors_named("loss_options", config.loss_options):
        return build(**given, **config.loss_options)


def make_noise(
    config: TrainConfig, device: torch.device, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """``noise(n)`` of a configuration, drawn from ``generator``."""
    draw = torch.randn if config.noise == "normal" else torch.rand

    def noise(count: int) -> Tensor:
        return draw(
            count, config.noise_dim, device=device, generator=generator, dtype=torch.float32
        )

    return noise
