"""What the scripts of this folder train: small networks on images made up on the spot, in the default dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

BATCH, NOISE, SIZE = 8, 16, 16


class Run(NamedTuple):
    """What two runs are compared by: every loss in the order of its computation, and the trained networks."""

    losses: list[float]
    networks: list[nn.Module]


def seeded(network: nn.Module, seed: int) -> nn.Module:
    """Weights from float32 draws, so that they are the same numbers in every dtype."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
            p.copy_(scale * torch.randn(p.shape, generator=draws, dtype=torch.float32))
    return network


def generator() -> nn.Module:
    """(N, NOISE) to (N, 1, 16, 16)."""
    layers = nn.Linear(NOISE, 64), nn.ReLU(), nn.Linear(64, SIZE * SIZE), nn.Tanh()
    return seeded(nn.Sequential(*layers, nn.Unflatten(1, (1, SIZE, SIZE))), seed=0)


def discriminator(outputs: int = 1) -> nn.Module:
    """(N, 1, 16, 16) to (N, outputs)."""
    layers: list[nn.Module] = []
    for before, after in ((1, 8), (8, 16)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return seeded(nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, outputs)), seed=1)


class PatchDiscriminator(nn.Module):
    """(N, 1, H, W) to its feature maps, the last of which are the logits of patches."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        layers = nn.Conv2d(1, 8, 4, 2, 1), nn.Conv2d(8, 16, 4, 2, 1), nn.Conv2d(16, 1, 3, 1, 1)
        self.layers = nn.ModuleList(layers)
        seeded(self, seed)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = layer(x if not maps else nn.functional.leaky_relu(x, 0.2))
            maps.append(x)
        return maps


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of discs, (N, 1, 16, 16) in [-1, 1], and noise for as many samples."""
    draws = torch.Generator().manual_seed(2)
    y, x = torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float32)] * 2, indexing="ij")
    for _ in range(steps):
        place = torch.rand(3, BATCH, 1, 1, generator=draws, dtype=torch.float32)
        distance = ((y - 4 - 8 * place[0]) ** 2 + (x - 4 - 8 * place[1]) ** 2).sqrt()
        images = torch.tanh(2 + 3 * place[2] - distance).unsqueeze(1)
        noise = torch.randn(BATCH, NOISE, generator=draws, dtype=torch.float32)
        dtype = torch.get_default_dtype()
        yield images.to(dtype), noise.to(dtype)


def anchors(outcomes: int) -> tuple[Tensor, Tensor]:
    """Distributions over the outcomes for real and for generated images."""
    places = torch.linspace(-2, 2, outcomes)
    return (-((places - 1) ** 2)).softmax(0), (-((places + 1) ** 2)).softmax(0)


def adam(*networks: nn.Module) -> torch.optim.Adam:
    weights = [p for network in networks for p in network.parameters()]
    return torch.optim.Adam(weights, lr=1e-3, betas=(0.5, 0.999))
