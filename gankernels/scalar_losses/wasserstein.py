"""Wasserstein losses."""

from __future__ import annotations

from typing import Any

from gankernels import _scalar_run as run
from gankernels._scalar_call import Logits, Weights
from gankernels.scalar_losses._shared import shared

__all__ = [
    "wasserstein_d_fake_loss",
    "wasserstein_d_loss",
    "wasserstein_d_real_loss",
    "wasserstein_g_loss",
]


@shared
def wasserstein_d_loss(
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
    r"""Wasserstein loss of the critic: ``f - r``.

    .. math:: -r + f

    Gradients: :math:`-1` and :math:`1`. The critic must be kept Lipschitz by other means, for instance
    ``gankernels.penalties.gradient_penalty``.

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

    Source: Arjovsky et al. 2017, "Wasserstein GAN".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.wasserstein_d_loss(torch.tensor([2.0]), torch.tensor([0.5]))
        tensor(-1.5000)
    """
    return run.of_two(
        "wasserstein_d_loss",
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
def wasserstein_d_real_loss(
    real_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The real half of :func:`wasserstein_d_loss`.

    .. math:: -r

    Gradient: :math:`-1`.

    Args:
        $REAL
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Arjovsky et al. 2017, "Wasserstein GAN".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.wasserstein_d_real_loss(torch.tensor([2.0]))
        tensor(-2.)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("wasserstein_d_real_loss", "real_logits", real_logits, reduction, *options)


@shared
def wasserstein_d_fake_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The fake half of :func:`wasserstein_d_loss`.

    .. math:: f

    Gradient: :math:`1`.

    Args:
        $FAKE
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Arjovsky et al. 2017, "Wasserstein GAN".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.wasserstein_d_fake_loss(torch.tensor([2.0]))
        tensor(2.)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("wasserstein_d_fake_loss", "fake_logits", fake_logits, reduction, *options)


@shared
def wasserstein_g_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Wasserstein loss of the generator: ``-f``.

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

    Source: Arjovsky et al. 2017, "Wasserstein GAN".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.wasserstein_g_loss(torch.tensor([2.0]))
        tensor(-2.)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("wasserstein_g_loss", "fake_logits", fake_logits, reduction, *options)
