"""Feature resampling."""

from __future__ import annotations

import torch
from torch import Tensor

from gankernels import _backend, _checks, reference

__all__ = [
    "resample_logits",
]


def resample_logits(
    mu_logvar: Tensor,
    dim: int = 1,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Feature resampling: logits drawn from the means and log-variances that D puts out.

    .. math:: z = \mu + \varepsilon \, e^{v / 2}, \quad \varepsilon \sim N(0, 1)

    Gradients: :math:`g` to the means, :math:`\tfrac12 g (z - \mu)` to the log-variances: neither the noise
    nor the exponential is saved (float16 and bfloat16 save the noise: a rounded ``z`` has lost it).

    Args:
        mu_logvar: ``(N, 2K, *)``: K means, then K log-variances along ``dim``; float16, bfloat16, float32 or
            float64.
        dim: The dimension they are stacked along. Of ``(B, S, 2V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        generator: Source of the noise, for repeatability.
        noise: The noise itself, ``(N, K, *)``, instead of drawing it; a constant for autograd.

    Returns:
        ``(N, K, *)`` in the dtype of ``mu_logvar``; differentiable any number of times.

    Raises:
        TypeError: not floating-point.
        ValueError: an odd number of channels, or noise of another shape.

    Cost: one pass forward, one backward, beside drawing the noise.

    Source: Xiangli et al. 2020, "feature resampling"; the log-variance is halved as in the official code.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.resample_logits(torch.tensor([[1.0, 0.0]]), noise=torch.tensor([[2.0]]))
        tensor([[3.]])
        >>> gk.resample_logits(torch.zeros(2, 7, 6), dim=-1).shape  # (B, S, 2V)
        torch.Size([2, 7, 3])
    """
    if _backend.reference_serves(mu_logvar):
        return reference.resample_logits(mu_logvar, dim, generator, noise)
    noise = noise_of("noise", noise, "mu_logvar", mu_logvar, dim, generator)
    return _backend.resample_logits(mu_logvar, noise, dim)


def noise_of(
    name: str,
    noise: Tensor | None,
    statistics_name: str,
    statistics: Tensor,
    dim: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The noise as given, or drawn."""
    if noise is not None:
        _checks.check_floating(name, noise)
        return noise
    index = _checks.check_statistics(statistics_name, statistics, dim)
    shape = list(statistics.shape)
    shape[index] //= 2
    return reference.standard_normal(shape, statistics, generator)


def noises_of(
    real_statistics: Tensor | None,
    fake_statistics: Tensor,
    dim: int,
    real_noise: Tensor | None,
    fake_noise: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """The noise of both batches, drawn where it is not given; None for a batch that is not used."""
    real = real_statistics
    return (
        None if real is None else noise_of("real_noise", real_noise, "real_statistics", real, dim),
        noise_of("fake_noise", fake_noise, "fake_statistics", fake_statistics, dim),
    )
