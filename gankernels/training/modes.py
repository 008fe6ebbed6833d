"""Modes and defaults that belong to somebody else: changed for a moment, and put back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["evaluation_mode", "on_device", "plain_defaults", "same_randomness", "seeded"]


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode within the block; afterwards each module has its own mode again.

    ``network.train()`` would put parts that their owner has frozen by ``.eval()`` back to work.

    Example:
        >>> network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluation_mode(network):
        ...     network[0].training
        False
        >>> network[0].training, network[1].training
        (True, False)
    """
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """The global random states after the block are those before it, on the CPU and on ``device``."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def seeded(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed the global generators of the CPU and of ``device``, and put their states back afterwards."""
    place = torch.device(device)
    with same_randomness(place):
        # torch.manual_seed would seed every other device too, and nobody would put those back.
        torch.default_generator.manual_seed(seed)
        if place.type == "cuda":
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def on_device(network: nn.Module, device: torch.device | str) -> Iterator[nn.Module]:
    """The network on ``device`` within the block; afterwards its tensors are where they were."""
    before = {name: tensor.device for name, tensor in _tensors(network)}
    network.to(device)
    try:
        yield network
    finally:
        places = set(before.values())
        if len(places) == 1:
            network.to(places.pop())
        else:
            for name, tensor in _tensors(network):
                tensor.data = tensor.data.to(before[name])


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


@contextmanager
def plain_defaults() -> Iterator[None]:
    """PyTorch's own default device and dtype within the block, or the function that it decorates.

    For code that builds tensors of this package's own or of a library's; never around a user's.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
