"""The distance between a discriminator's features of real and of generated images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gankernels import _scalar_run as run
from gankernels._checks import check_factor
from gankernels._scalar_call import parts_of_maps
from gankernels._scalar_prepared import prepared

__all__ = ["feature_matching_loss"]

Features = Tensor | Sequence["Features"]  # type: ignore[misc]
"""A feature map, or lists of them nested in any way: of layers, of discriminators and layers."""


def feature_matching_loss(
    real_features: Features,
    fake_features: Features,
    *,
    norm: str = "l1",
    average: bool = False,
    scale: float = 1.0,
) -> Tensor:
    r"""How far a discriminator's features of generated images are from those of real ones.

    .. math:: \sum_i \sum_j \mathrm{mean} \, |b_{ij} - a_{ij}| \quad \text{or} \quad
        \sum_i \sum_j \mathrm{mean} \, (b_{ij} - a_{ij})^2

    over discriminators i and their layers j, :math:`a` of real images and :math:`b` of generated ones.
    Gradient to the fake features: :math:`\mathrm{sign}(b - a) / N` or :math:`2 (b - a) / N` with N elements
    of a map; 0 where they are equal. The real features are constants: no gradient goes there.

    Args:
        real_features: A feature map, float16, bfloat16, float32 or float64, or lists of them, nested in any way.
        fake_features: The same of generated images: equal shapes, on the same device.
        norm: ``"l1"`` or ``"l2"`` (the mean of squares, without a root).
        average: Divide the sum by the number of maps.
        scale: A factor on the loss, inside the kernel.

    Returns:
        The loss, 0-dim, in float32, or float64 where a map is float64; differentiable any number of times.

    Raises:
        TypeError: something that is neither a floating-point tensor nor a list.
        ValueError: no map, nesting or shapes that differ, an unknown norm.
        RuntimeError: tensors on different devices.

    Cost: one operator for the value and all gradients: on a GPU a launch forward for every 24 maps (Triton: 16)
    and one backward for every 64 (16); each map read once, each gradient written once.

    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", of one layer; Wang et al. 2018,
    "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", in this form, with l1.

    Example:
        >>> import torch, gankernels as gk
        >>> real = [[torch.zeros(2, 8), torch.zeros(2, 4)], [torch.zeros(2, 3)]]
        >>> fake = [[torch.ones(2, 8), torch.ones(2, 4)], [torch.full((2, 3), 2.0)]]
        >>> gk.feature_matching_loss(real, fake)
        tensor(4.)
        >>> gk.feature_matching_loss(real, fake, norm="l2", average=True)
        tensor(2.)
    """
    parts = parts_of_maps(real_features, fake_features, norm)
    factor = check_factor("scale", scale)
    factor = factor / len(parts) if average else factor
    return run.of_prepared(prepared(parts, "mean"), "mean", factor)[0]
