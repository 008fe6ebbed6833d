"""Losses of logits against those of the other batch."""

from __future__ import annotations

from typing import Any

from gankernels import _scalar_run as run
from gankernels._scalar_call import Logits, Means, Options, Weights
from gankernels.scalar_losses._shared import shared

__all__ = [
    "relativistic_d_loss",
    "relativistic_g_loss",
    "relativistic_pairing_d_loss",
    "relativistic_pairing_g_loss",
]


@shared
def relativistic_d_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    detach_means: bool = False,
    mean_dim: int | None = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Relativistic average loss of the discriminator: each logit against the other batch's mean.

    .. math:: \mathrm{softplus}(-(r - \bar f)) + \mathrm{softplus}(f - \bar r)

    The means are differentiated through.

    Args:
        $REAL_AND_FAKE
        $REDUCTION_OF_BOTH
        $SCALE
        detach_means: Hold the means constant: no gradient goes through them (ESRGAN's code, where the other
            batch is detached).
        mean_dim: ``0``: means over the batch alone, each place of a map against the same place of the other
            batch; by default over all elements.
        $LIST

    $RETURNS

    $RAISES_OF_BOTH

    Cost: one operator for the value and both gradients, one exponential per element at most; with
    ``detach_means``, ``mean_dim`` or ``one_sided`` the means and one tensor each beside it; of a list one
    operator for each discriminator.

    Source: Jolicoeur-Martineau 2019, "The relativistic discriminator", RaSGAN.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.relativistic_d_loss(torch.zeros(4), torch.zeros(4))  # 2 log 2
        tensor(1.3863)
    """
    return run.relativistic(
        "relativistic_d_loss",
        real_logits,
        fake_logits,
        reduction,
        Options(scale, average=average, per_output=per_output),
        Means(detach_means, mean_dim),
    )


@shared
def relativistic_g_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    detach_means: bool = False,
    mean_dim: int | None = None,
    one_sided: bool = False,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Relativistic average loss of the generator: the discriminator's with the roles exchanged.

    .. math:: \mathrm{softplus}(-(f - \bar r)) + \mathrm{softplus}(r - \bar f)

    The means are differentiated through.

    Args:
        $REAL_AND_FAKE
        $REDUCTION_OF_BOTH
        $SCALE
        detach_means: Hold the means constant: no gradient goes through them (ESRGAN's code, where the other
            batch is detached).
        mean_dim: ``0``: means over the batch alone, each place of a map against the same place of the other
            batch; by default over all elements.
        one_sided: The term of the fake logits alone.
        $LIST

    $RETURNS

    $RAISES_OF_BOTH

    Cost: one operator for the value and both gradients, one exponential per element at most; with
    ``detach_means``, ``mean_dim`` or ``one_sided`` the means and one tensor each beside it; of a list one
    operator for each discriminator.

    Source: Jolicoeur-Martineau 2019, "The relativistic discriminator", RaSGAN.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.relativistic_g_loss(torch.zeros(4), torch.zeros(4))  # 2 log 2
        tensor(1.3863)
        >>> gk.relativistic_g_loss(torch.zeros(4), torch.zeros(4), one_sided=True)
        tensor(0.6931)
    """
    return run.relativistic(
        "relativistic_g_loss",
        real_logits,
        fake_logits,
        reduction,
        Options(scale, average=average, per_output=per_output),
        Means(detach_means, mean_dim, one_sided),
    )


@shared
def relativistic_pairing_d_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Relativistic loss of the discriminator on pairs: each real logit against one fake logit.

    .. math:: \mathrm{softplus}(-(r - f))

    Gradients: :math:`-\sigma(f - r)` to the real logits, :math:`\sigma(f - r)` to the fake ones.

    Args:
        $PAIR
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES_OF_PAIRS

    $COST

    Source: Jolicoeur-Martineau 2019, "The relativistic discriminator", RSGAN; Huang et al. 2024, "The GAN
    is dead; long live the GAN! A Modern GAN Baseline" (R3GAN), which trains with it, R1 and R2.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.relativistic_pairing_d_loss(torch.ones(4), torch.zeros(4))  # log(1 + 1/e)
        tensor(0.3133)
    """
    options = (scale, weight, mask, average, per_output)
    return run.of_pairs(
        "relativistic_pairing_d_loss", real_logits, fake_logits, reduction, *options
    )


@shared
def relativistic_pairing_g_loss(
    real_logits: Logits,
    fake_logits: Logits,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    weight: Weights = None,
    mask: Weights = None,
    average: bool = False,
    per_output: bool = False,
) -> Any:
    r"""Relativistic loss of the generator on pairs: the discriminator's with the roles exchanged.

    .. math:: \mathrm{softplus}(-(f - r))

    Gradients: :math:`\sigma(r - f)` to the real logits, :math:`-\sigma(r - f)` to the fake ones.

    Args:
        $PAIR
        $REDUCTION
        $SCALE
        $WEIGHTS
        $LIST

    $RETURNS

    $RAISES_OF_PAIRS

    $COST

    Source: Jolicoeur-Martineau 2019, "The relativistic discriminator", RSGAN; Huang et al. 2024, "The GAN
    is dead; long live the GAN! A Modern GAN Baseline" (R3GAN), which trains with it, R1 and R2.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.relativistic_pairing_g_loss(torch.ones(4), torch.zeros(4))  # log(1 + e)
        tensor(1.3133)
    """
    options = (scale, weight, mask, average, per_output)
    return run.of_pairs(
        "relativistic_pairing_g_loss", real_logits, fake_logits, reduction, *options
    )
