"""The networks of the recipes: plain functions that return ``nn.Module`` pairs.

Every builder returns ``(generator, discriminator)``. A generator maps noise ``(N, noise_dim)`` to
samples; a discriminator maps samples to raw logits ``(N, K)``, larger = more real.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import gankernels as gk
from gankernels._checks import check_integer

__all__ = [
    "Maxout",
    "ReversalGAN",
    "dcgan_article",
    "dcgan_small",
    "dcgan_spectral",
    "grl_mlp",
    "has_batchnorm",
    "realness_article",
    "toy_mlp",
]

Pair = tuple[nn.Module, nn.Module]


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_integer(name, size, 1)


def _require_multiple(image_size: int, of: int, network: str) -> None:
    if check_integer("image_size", image_size, 1) % of:
        raise ValueError(f"{network} needs an image_size that {of} divides, got {image_size}")


def _require_power_of_two(image_size: int, network: str) -> None:
    if check_integer("image_size", image_size, 1) < 8 or image_size & (image_size - 1):
        raise ValueError(f"{network} needs a power-of-two image_size >= 8, got {image_size}")


def has_batchnorm(network: nn.Module) -> bool:
    """Whether any layer couples the samples of a batch through batch statistics."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


# --------------------------------------------------------------------- realness (third article)


def realness_article(
    image_size: int = 32, channels: int = 3, outcomes: int = 20, noise_dim: int = 100
) -> Pair:
    """Four 3x3 convolutions of 32 channels each way: average pooling down, nearest pixels up.

    Images are in ``[0, 1]`` (sigmoid). The article's size is 32; any multiple of 8 works.
    """
    _require_multiple(image_size, 8, "realness_article")
    _require_sizes(channels=channels, outcomes=outcomes, noise_dim=noise_dim)
    width, base = 32, image_size // 8
    down: list[nn.Module] = []
    for inputs in (channels, width, width):
        down += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
    discriminator = nn.Sequential(
        *down,
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * base * base, outcomes),
    )
    up: list[nn.Module] = []
    for _ in range(3):
        up += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)]
    generator = nn.Sequential(
        nn.Linear(noise_dim, width * base * base),
        nn.Unflatten(1, (width, base, base)),
        *up,
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Sigmoid(),
    )
    return generator, discriminator


# ----------------------------------------------------------------------- dcgan (second article)


def _up_block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def _down_block(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    norm: list[nn.Module] = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return [
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1),
        *norm,
        nn.LeakyReLU(0.2, inplace=True),
    ]


def dcgan_article(
    image_size: int = 32,
    channels: int = 1,
    outcomes: int = 1,
    noise_dim: int = 100,
    width: int = 32,
) -> Pair:
    """The second article's blocks taken literally: 1 -> 2 -> ... -> ``image_size`` and back.

    BatchNorm in every block of both networks. On 10,000 digits this form collapses to a few
    shapes; :func:`dcgan_small` is the one that works.
    """
    _require_power_of_two(image_size, "dcgan_article")
    _require_sizes(channels=channels, outcomes=outcomes, noise_dim=noise_dim, width=width)
    # Hidden widths at 2x2, 4x4, ... pixels: halved at every doubling of the image.
    widths = [width * 2**i for i in reversed(range(image_size.bit_length() - 2))]
    up: list[nn.Module] = []
    for inputs, outputs in pairwise([noise_dim, *widths]):
        up += _up_block(inputs, outputs)
    generator = nn.Sequential(
        nn.Unflatten(1, (noise_dim, 1, 1)),
        *up,
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    down: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, *reversed(widths)]):
        down += _down_block(inputs, outputs, batch_norm=True)
    discriminator = nn.Sequential(
        *down, nn.Conv2d(widths[0], outcomes, 4, stride=2, padding=1), nn.Flatten()
    )
    return generator, discriminator


def dcgan_small(
    image_size: int = 28,
    channels: int = 1,
    outcomes: int = 1,
    noise_dim: int = 100,
    width: int = 32,
    d_batch_norm: bool = True,
) -> Pair:
    """Two transposed convolutions (7 -> 14 -> 28), two strided ones back, one BatchNorm in D.

    Args:
        d_batch_norm: False leaves D without normalisation, which the ratio step needs.
    """
    _require_multiple(image_size, 4, "dcgan_small")
    _require_sizes(channels=channels, outcomes=outcomes, noise_dim=noise_dim, width=width)
    base = image_size // 4
    generator = nn.Sequential(
        nn.Linear(noise_dim, 2 * width * base * base),
        nn.Unflatten(1, (2 * width, base, base)),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(inplace=True),
        *_up_block(2 * width, width),
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        *_down_block(channels, width, batch_norm=False),
        *_down_block(width, 2 * width, batch_norm=d_batch_norm),
        nn.Flatten(),
        nn.Linear(2 * width * base * base, outcomes),
    )
    return generator, discriminator


def dcgan_spectral(
    image_size: int = 32,
    channels: int = 3,
    outcomes: int = 51,
    noise_dim: int = 128,
    width: int = 32,
    resample: bool = True,
) -> Pair:
    """The RealnessGAN paper's stronger form: DCGAN with spectral norm in D, feature resampling.

    G: BatchNorm, ReLU, tanh, from 4x4 pixels. D: spectral norm in every layer, LeakyReLU 0.2.
    """
    _require_power_of_two(image_size, "dcgan_spectral")
    _require_sizes(channels=channels, outcomes=outcomes, noise_dim=noise_dim, width=width)
    widths = [width * 2**i for i in range(image_size.bit_length() - 3)]
    widest = widths[-1]
    up: list[nn.Module] = []
    for inputs, outputs in pairwise(reversed(widths)):
        up += _up_block(inputs, outputs)
    down: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, *widths]):
        conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        down += [spectral_norm(conv), nn.LeakyReLU(0.2, inplace=True)]
    generator = nn.Sequential(
        nn.Linear(noise_dim, widest * 16),
        nn.Unflatten(1, (widest, 4, 4)),
        nn.BatchNorm2d(widest),
        nn.ReLU(inplace=True),
        *up,
        nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    logits = nn.Linear(widest * 16, 2 * outcomes if resample else outcomes)
    discriminator: nn.Module = nn.Sequential(*down, nn.Flatten(), spectral_norm(logits))
    if resample:  # named, since checkpoints have the weights under "network"
        layers = {"network": discriminator, "resampling": gk.FeatureResampling()}
        discriminator = nn.Sequential(OrderedDict(layers))
    return generator, discriminator


# --------------------------------------------------------------------------- grl (first article)


def grl_mlp(
    image_size: int = 28,
    channels: int = 1,
    outcomes: int = 1,
    noise_dim: int = 100,
    width: int = 256,
    dropout: float = 0.3,
) -> Pair:
    """A pair of three-layer perceptrons; the article leaves its networks open.

    BatchNorm in G keeps its samples apart. Dropout in D keeps it from winning outright, which is
    where the minimax loss saturates.
    """
    _require_sizes(
        image_size=image_size,
        channels=channels,
        outcomes=outcomes,
        noise_dim=noise_dim,
        width=width,
    )
    shape = (channels, image_size, image_size)
    pixels = channels * image_size * image_size
    up: list[nn.Module] = []
    for inputs, outputs in pairwise((noise_dim, width, 2 * width)):
        up += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    generator = nn.Sequential(
        *up,
        nn.Linear(2 * width, pixels),
        nn.Tanh(),
        nn.Unflatten(1, shape),
    )
    down: list[nn.Module] = []
    for inputs, outputs in pairwise((pixels, 2 * width, width)):
        down += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
    discriminator = nn.Sequential(nn.Flatten(), *down, nn.Linear(width, outcomes))
    return generator, discriminator


class ReversalGAN(nn.Module):
    """Both players as one module whose forward returns the losses (first article).

    ``(loss_fake + loss_real).backward(); optimizer.step()`` trains generator and discriminator
    together: gradient reversal between them turns the min-max game into one minimisation.

    Args:
        generator: Noise ``(N, noise_dim)`` to samples.
        discriminator: Samples to logits.
        noise_dim: Width of the noise, drawn uniformly from ``[0, 1)`` in the dtype of the real batch.

    Example:
        >>> model = ReversalGAN(nn.Linear(4, 2), nn.Linear(2, 1), noise_dim=4)
        >>> loss_fake, loss_real = model(torch.randn(8, 2))
        >>> (loss_fake + loss_real).backward()
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, noise_dim: int) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        self.noise_dim = check_integer("noise_dim", noise_dim, 1)

    def forward(self, real: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if noise is None:
            noise = torch.rand(len(real), self.noise_dim, dtype=real.dtype, device=real.device)
        fake_logits = self.discriminator(gk.gradient_reversal(self.generator(noise)))
        real_logits = self.discriminator(real)
        # softplus(f) is minus the minimax G loss; softplus(-r) is the non-saturating loss of r.
        return -gk.saturating_g_loss(fake_logits), gk.nonsaturating_g_loss(real_logits)


# --------------------------------------------------------------------------------- toy mixture


class Maxout(nn.Module):
    """Linear layer followed by a maximum over ``pieces`` consecutive outputs."""

    def __init__(self, inputs: int, outputs: int, pieces: int = 5) -> None:
        super().__init__()
        _require_sizes(inputs=inputs, outputs=outputs, pieces=pieces)
        self.linear = nn.Linear(inputs, outputs * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        largest: Tensor = self.linear(x).unflatten(-1, (-1, self.pieces)).max(-1).values
        return largest


def toy_mlp(
    outcomes: int = 5, noise_dim: int = 128, g_width: int = 400, d_width: int = 200
) -> Pair:
    """The RealnessGAN authors' toy networks: BatchNorm perceptron G, maxout perceptron D."""
    _require_sizes(outcomes=outcomes, noise_dim=noise_dim, g_width=g_width, d_width=d_width)
    up: list[nn.Module] = []
    for inputs in (noise_dim, g_width, g_width, g_width):
        up += [nn.Linear(inputs, g_width), nn.BatchNorm1d(g_width), nn.ReLU()]
    discriminator = nn.Sequential(
        Maxout(2, d_width),
        Maxout(d_width, d_width),
        Maxout(d_width, d_width),
        nn.Linear(d_width, outcomes),
    )
    return nn.Sequential(*up, nn.Linear(g_width, 2)), discriminator
