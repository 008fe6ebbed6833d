"""Hinge losses."""

from __future__ import annotations

from typing import Any

from gankernels import _scalar_run as run
from gankernels._scalar_call import Logits, Weights
from gankernels.scalar_losses._shared import shared

__all__ = [
    "hinge_d_fake_loss",
    "hinge_d_loss",
    "hinge_d_real_loss",
    "hinge_g_loss",
]


@shared
def hinge_d_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    real_weight: Weights = None,
    fake_weight: Weights = None,
    real_mask: Weights = None,
    fake_mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
    return_terms: bool = False,
) -> Any:
    r"""Hinge loss of the discriminator.

    .. math:: \max(0, 1 - r) + \max(0, 1 + f)

    Gradients: :math:`-1` where :math:`r < 1`, :math:`1` where :math:`f > -1`, else 0 (at the kinks too, as
    ``torch.relu`` has it).

    Args:
        $REAL_AND_FAKE
        $REDUCTION_OF_BOTH
        $SCALE
        $WEIGHTS_OF_BOTH
        $LIST
        $TERMS

    $RETURNS

    $RAISES_OF_BOTH

    $COST

    Source: Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, "Spectral Normalization".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.hinge_d_loss(torch.tensor([0.5]), torch.tensor([-2.0]))
        tensor(0.5000)
        >>> weight = torch.tensor([1.0, 0.0])
        >>> gk.hinge_d_loss(torch.zeros(2), torch.zeros(2), real_weight=weight)
        tensor(1.5000)
        >>> gk.hinge_d_loss(torch.zeros(2), torch.zeros(2), real_mask=weight > 0)
        tensor(2.)
    """
    return run.of_two(
        "hinge_d_loss",
        real_logits,
        fake_logits,
        reduction,
        scale,
        None,
        None,
        real_weight,
        fake_weight,
        real_mask,
        fake_mask,
        average,
        per_output,
        return_terms,
    )


@shared
def hinge_d_real_loss(
    real_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The real half of :func:`hinge_d_loss`.

    .. math:: \max(0, 1 - r)

    Gradient: :math:`-1` where :math:`r < 1`, else 0 (at the kink too, as
    ``torch.relu`` has it).

    Args:
        $REAL
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, "Spectral Normalization".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.hinge_d_real_loss(torch.tensor([0.5, 2.0]))
        tensor(0.2500)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("hinge_d_real_loss", "real_logits", real_logits, reduction, *options)


@shared
def hinge_d_fake_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The fake half of :func:`hinge_d_loss`.

    .. math:: \max(0, 1 + f)

    Gradient: :math:`1` where :math:`f > -1`, else 0 (at the kink too, as
    ``torch.relu`` has it).

    Args:
        $FAKE
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, "Spectral Normalization".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.hinge_d_fake_loss(torch.tensor([0.5, -2.0]))
        tensor(0.7500)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("hinge_d_fake_loss", "fake_logits", fake_logits, reduction, *options)


@shared
def hinge_g_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Hinge loss of the generator: ``-f``.

    .. math:: -f

    Gradient: :math:`-1`.

    Args:
        $FAKE
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, "Spectral Normalization".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.hinge_g_loss(torch.tensor([2.0]))
        tensor(-2.)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("hinge_g_loss", "fake_logits", fake_logits, reduction, *options)
