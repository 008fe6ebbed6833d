"""Least-squares losses."""

from __future__ import annotations

from typing import Any

from gankernels import _scalar_run as run
from gankernels._checks import check_factor
from gankernels._scalar_call import Logits, Weights
from gankernels.scalar_losses._shared import shared

__all__ = [
    "lsgan_d_fake_loss",
    "lsgan_d_loss",
    "lsgan_d_real_loss",
    "lsgan_g_loss",
]


@shared
def lsgan_d_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    scale: float = 1.0,
    real_weight: Weights = None,
    fake_weight: Weights = None,
    real_mask: Weights = None,
    fake_mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
    return_terms: bool = False,
) -> Any:
    r"""Least-squares loss of the discriminator.

    .. math:: \tfrac12 (r - b)^2 + \tfrac12 (f - a)^2

    Gradients: :math:`r - b` and :math:`f - a`.

    The terms carry a half, as in the paper; **the MSE form is** ``scale=2``.

    Args:
        $REAL_AND_FAKE
        $REDUCTION_OF_BOTH
        real_label: ``b``, what D is to say of real images.
        fake_label: ``a``, what D is to say of generated ones.
        $SCALE
        $WEIGHTS_OF_BOTH
        $LIST
        $TERMS

    $RETURNS

    $RAISES_OF_BOTH

    $COST

    Source: Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 2;
    the labels 1 and 0 are those of its equation 9.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.lsgan_d_loss(torch.tensor([0.0]), torch.tensor([2.0]))
        tensor(2.5000)
        >>> gk.lsgan_d_loss(torch.tensor([0.0]), torch.tensor([2.0]), scale=2)  # mse to 1 plus mse to 0
        tensor(5.)
    """
    check_factor("real_label", real_label)
    check_factor("fake_label", fake_label)
    return run.of_two(
        "lsgan_d_loss",
        real_logits,
        fake_logits,
        reduction,
        scale,
        real_label,
        fake_label,
        real_weight,
        fake_weight,
        real_mask,
        fake_mask,
        average,
        per_output,
        return_terms,
    )


@shared
def lsgan_d_real_loss(
    real_logits: Logits,
    reduction: str = "mean",
    *,
    real_label: float = 1.0,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The real half of :func:`lsgan_d_loss`.

    .. math:: \tfrac12 (r - b)^2

    Gradient: :math:`r - b`.

    The terms carry a half, as in the paper; **the MSE form is** ``scale=2``.

    Args:
        $REAL
        $REDUCTION
        real_label: ``b``, what D is to say of real images.
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 2.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.lsgan_d_real_loss(torch.tensor([3.0]))
        tensor(2.)
    """
    check_factor("real_label", real_label)
    options = (scale, real_label, weight, mask, average, per_output)
    return run.of_one("lsgan_d_real_loss", "real_logits", real_logits, reduction, *options)


@shared
def lsgan_d_fake_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    fake_label: float = 0.0,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The fake half of :func:`lsgan_d_loss`.

    .. math:: \tfrac12 (f - a)^2

    Gradient: :math:`f - a`.

    The terms carry a half, as in the paper; **the MSE form is** ``scale=2``.

    Args:
        $FAKE
        $REDUCTION
        fake_label: ``a``, what D is to say of generated images.
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 2.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.lsgan_d_fake_loss(torch.tensor([2.0]))
        tensor(2.)
    """
    check_factor("fake_label", fake_label)
    options = (scale, fake_label, weight, mask, average, per_output)
    return run.of_one("lsgan_d_fake_loss", "fake_logits", fake_logits, reduction, *options)


@shared
def lsgan_g_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    label: float = 1.0,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Least-squares loss of the generator.

    .. math:: \tfrac12 (f - c)^2

    Gradient: :math:`f - c`.

    The terms carry a half, as in the paper; **the MSE form is** ``scale=2``.

    Args:
        $FAKE
        $REDUCTION
        label: ``c``, what G wants D to say of generated images.
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 2.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.lsgan_g_loss(torch.tensor([3.0]))
        tensor(2.)
    """
    check_factor("label", label)
    options = (scale, label, weight, mask, average, per_output)
    return run.of_one("lsgan_g_loss", "fake_logits", fake_logits, reduction, *options)
