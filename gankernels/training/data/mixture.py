"""The mixture of Gaussians in the plane that toy GANs are tried on."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from gankernels.training.data.images import ImageData
from gankernels.training.data.sources import Shape, no_location

__all__ = ["GAUSSIAN_SIGMA", "gaussian_centres", "load_gaussians"]

GAUSSIAN_SIGMA = 0.05
"""Standard deviation of each mode of ``gaussians`` (the paper does not publish its own)."""

_GAUSSIAN_POINTS = 90_000


def gaussian_centres() -> Tensor:
    """Return the centres of the ``gaussians`` data.

    Returns:
        ``float32`` ``(9, 2)``: every pair from -2, 0, 2, in the order of the labels.

    Example:
        >>> gaussian_centres()[1].tolist()
        [-2.0, 0.0]
    """
    centres = list(product((-2.0, 0.0, 2.0), repeat=2))
    return torch.tensor(centres, dtype=torch.float32, device="cpu")


def load_gaussians(location: str, train: bool, shape: Shape) -> ImageData:
    """``gaussians`` of :func:`gankernels.training.data.load`."""
    no_location("gaussians", location)
    generator = torch.Generator().manual_seed(0 if train else 1)
    centres = gaussian_centres()
    labels = torch.arange(_GAUSSIAN_POINTS, device="cpu") % len(centres)
    noise = torch.randn(_GAUSSIAN_POINTS, 2, generator=generator, dtype=torch.float32, device="cpu")
    points = centres[labels] + GAUSSIAN_SIGMA * noise
    names = tuple(f"({x:g}, {y:g})" for x, y in centres.tolist())
    return ImageData(points, labels, "gaussians", names, centres=centres)
