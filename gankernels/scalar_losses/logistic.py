"""Binary cross-entropy with logits: the standard GAN's losses."""

from __future__ import annotations

from typing import Any

from gankernels import _checks as check
from gankernels import _scalar_run as run
from gankernels._scalar import OneLess
from gankernels._scalar_call import Logits, Weights
from gankernels.scalar_losses._shared import shared

__all__ = [
    "logistic_d_fake_loss",
    "logistic_d_loss",
    "logistic_d_real_loss",
    "nonsaturating_g_loss",
    "saturating_g_loss",
]


@shared
def logistic_d_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
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
    r"""The standard GAN's discriminator loss: binary cross-entropy with logits on both batches.

    .. math:: \mathrm{softplus}(-r) + (1 - t_1) \, r + \mathrm{softplus}(f) - t_0 \, f

    Gradients: :math:`\sigma(r) - t_1` and :math:`\sigma(f) - t_0`. Equal to two ``BCEWithLogitsLoss`` terms
    with targets :math:`t_1` (real) and :math:`t_0` (fake); finite and exact however large the logits.

    Args:
        $REAL_AND_FAKE
        $REDUCTION_OF_BOTH
        label_smoothing: ``s`` in [0, 1): real images get the target ``1 - s``; the same as ``real_label=1 - s``.
        real_label: ``t1`` in [0, 1], the target of the real logits.
        fake_label: ``t0`` in [0, 1], the target of the fake logits.
        $SCALE
        $WEIGHTS_OF_BOTH
        $LIST
        $TERMS

    $RETURNS

    $RAISES_OF_BOTH

    $COST

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets", the minimax value, on logits; one-sided
    label smoothing: Salimans et al. 2016, "Improved Techniques for Training GANs".

    Example:
        >>> import torch, gankernels as gk
        >>> gk.logistic_d_loss(torch.zeros(4), torch.zeros(4))  # 2 log 2
        tensor(1.3863)
        >>> outputs = [torch.zeros(2, 8), torch.zeros(2, 4)]  # two discriminators
        >>> gk.logistic_d_loss(outputs, outputs, average=True)
        tensor(1.3863)
        >>> real, fake = gk.logistic_d_loss(torch.zeros(4), torch.ones(4), return_terms=True)
        >>> real, fake
        (tensor(0.6931), tensor(1.3133))
    """
    if label_smoothing != 0 or real_label != 1 or fake_label != 0:
        check.check_targets(real_label, fake_label, label_smoothing)
    return run.of_two(
        "logistic_d_loss",
        real_logits,
        fake_logits,
        reduction,
        scale,
        OneLess(label_smoothing) if label_smoothing else real_label,
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
def logistic_d_real_loss(
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
    r"""The real half of :func:`logistic_d_loss`: binary cross-entropy with logits, target 1.

    .. math:: \mathrm{softplus}(-r) + (1 - t) \, r

    Gradient: :math:`\sigma(r) - t`.

    Args:
        $REAL
        $REDUCTION
        real_label: ``t`` in [0, 1], the target.
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets", the minimax value, on logits.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.logistic_d_real_loss(torch.zeros(4))  # log 2
        tensor(0.6931)
    """
    if real_label != 1:
        check.check_label("real_label", real_label)
    options = (scale, real_label, weight, mask, average, per_output)
    return run.of_one("logistic_d_real_loss", "real_logits", real_logits, reduction, *options)


@shared
def logistic_d_fake_loss(
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
    r"""The fake half of :func:`logistic_d_loss`: binary cross-entropy with logits, target 0.

    .. math:: \mathrm{softplus}(f) - t \, f

    Gradient: :math:`\sigma(f) - t`.

    Args:
        $FAKE
        $REDUCTION
        fake_label: ``t`` in [0, 1], the target.
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets", the minimax value, on logits.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.logistic_d_fake_loss(torch.zeros(4))  # log 2
        tensor(0.6931)
    """
    if fake_label != 0:
        check.check_label("fake_label", fake_label)
    options = (scale, fake_label, weight, mask, average, per_output)
    return run.of_one("logistic_d_fake_loss", "fake_logits", fake_logits, reduction, *options)


@shared
def nonsaturating_g_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The generator loss that does not saturate: ``-log sigmoid(f)``.

    .. math:: \mathrm{softplus}(-f)

    Gradient: :math:`-\sigma(-f)`, which tends to -1, not to 0, where D is sure that the image is fake.

    Args:
        $FAKE
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets": maximise log D(G(z)).

    Example:
        >>> import torch, gankernels as gk
        >>> gk.nonsaturating_g_loss(torch.zeros(4))  # log 2
        tensor(0.6931)
        >>> gk.nonsaturating_g_loss(torch.zeros(4), scale=0.1)  # an adversarial term of weight 0.1
        tensor(0.0693)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("nonsaturating_g_loss", "fake_logits", fake_logits, reduction, *options)


@shared
def saturating_g_loss(
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""The minimax generator loss, which gradient reversal trains: ``log(1 - sigmoid(f))``.

    .. math:: -\mathrm{softplus}(f)

    Gradient: :math:`-\sigma(f)`, which vanishes where D is sure that the image is fake.

    Args:
        $FAKE
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES

    $COST

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets", the minimax value.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.saturating_g_loss(torch.zeros(4))  # -log 2
        tensor(-0.6931)
    """
    options = (scale, None, weight, mask, average, per_output)
    return run.of_one("saturating_g_loss", "fake_logits", fake_logits, reduction, *options)
