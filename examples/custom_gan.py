"""Networks, a loss and data of your own in the package's training loop.

    python examples/custom_gan.py --steps 400 --out runs/discs

Everything else (resuming, pictures, metrics, several processes) works as for the recipes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankernels.training import FunctionLoss, ImageData, configuration, train


def discs(count: int = 2_000, size: int = 16) -> ImageData:
    """White discs of random place and radius: any ``uint8`` tensor (N, C, H, W) is a data set."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(count, 2, 1, 1, generator=generator) * size / 2 + size / 4
    radius = torch.rand(count, 1, 1, generator=generator) * size / 8 + size / 8
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    distance = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2).sqrt()
    pixels = (radius - distance + 0.5).clamp(0, 1) * 255
    return ImageData(pixels.byte().unsqueeze(1), name="discs")


def networks(noise_dim: int) -> tuple[nn.Module, nn.Module]:
    """Any modules: noise to samples, samples to logits (larger = more real)."""
    generator = nn.Sequential(
        nn.Linear(noise_dim, 128),
        nn.ReLU(),
        nn.Linear(128, 256),
        nn.Tanh(),
        nn.Unflatten(1, (1, 16, 16)),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(512, 1),
    )
    return generator, discriminator


def d_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The logistic loss with a small price on confident logits."""
    price = 0.01 * (real.square().mean() + fake.square().mean())
    return F.softplus(-real).mean() + F.softplus(fake).mean() + price


def g_loss(_real: Tensor | None, fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def main(arguments: list[str] | None = None) -> Path:
    """Train and return the folder of the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", default="runs/discs")
    options = parser.parse_args(arguments)
    # A recipe's settings are the starting point; `loss="custom"` says that the loss is handed over.
    config = configuration(
        "dcgan", steps=options.steps, sample_every=100, noise_dim=32, loss="custom", threads=1
    )
    generator, discriminator = networks(config.noise_dim)
    return train(
        config,
        options.out,
        generator=generator,
        discriminator=discriminator,
        loss=FunctionLoss(d_loss, g_loss),
        image_data=discs(),
    )


if __name__ == "__main__":
    main()
