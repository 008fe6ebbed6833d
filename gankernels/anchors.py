"""Anchors: the distributions over realness that a discriminator is trained towards.

An anchor is a vector of ``K`` non-negative numbers, one per outcome, from the least to the most
real. The real anchor (``A1``) and the fake anchor (``A0``) should be far apart: the larger their
divergence, the stronger the signal (Xiangli et al. 2020, "Real or Not Real, that is the
Question").

**Empty bins make the logits drift.** Where an anchor has a bin of mass 0, the loss falls for as
long as the logit of that bin does, so the logits spread without bound as training goes on. A
histogram of few draws has empty bins as a rule (69 % of seeds of :func:`article`, nearly all of
:func:`official`); :func:`gaussian` has mass in every bin, and :func:`smoothed` gives it to any
anchor. The losses of this package are exact with empty bins, whichever you choose.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gankernels import _checks as check

__all__ = [
    "article",
    "gaussian",
    "histogram",
    "official",
    "skew_matrix",
    "skewed",
    "smoothed",
    "uniform",
]

# Both the third article and the official repository draw this many samples.
DRAWS = 1000


def gaussian(
    K: int,
    mean: float,
    std: float,
    low: float,
    high: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""The masses of :math:`N(mean, std^2)` in ``K`` equal bins of ``[low, high]``, normalised.

    .. math::
        A_k \propto \Phi\left(\frac{e_{k+1} - mean}{std}\right)
        - \Phi\left(\frac{e_k - mean}{std}\right), \qquad e_k = low + k \, (high - low) / K

    Every bin has mass (full support), so the logits trained towards it stay bounded; this is what
    :func:`histogram` of ever more draws tends to. The masses are computed in log space: they are
    positive down to the smallest number of ``dtype`` (about 13 standard deviations in float32),
    below which a bin is 0; see :func:`smoothed`.

    Args:
        K: Number of outcomes.
        mean: Mean of the distribution.
        std: Standard deviation, positive.
        low: Lower edge of the first bin.
        high: Upper edge of the last bin, above ``low``.
        dtype: Float dtype of the result.
        device: Device of the result.

    Returns:
        ``(K,)``, summing to 1.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``K < 1``, ``std <= 0`` or ``low >= high``.

    Example:
        >>> gaussian(4, mean=1.0, std=1.0, low=-2.0, high=2.0)
        tensor([0.0255, 0.1618, 0.4064, 0.4064])
    """
    _check_bins(K)
    _check_range(low, high)
    if not math.isfinite(check.check_factor("mean", mean)):
        raise ValueError(f"mean must be finite, got {mean!r}")
    check.check_positive_number("std", std)
    edges = (torch.linspace(low, high, K + 1, dtype=torch.float64, device="cpu") - mean) / std
    a, b = edges[:-1], edges[1:]
    # Phi(b) - Phi(a) = Phi(-a) - Phi(-b): use the tail in which both terms are small.
    a, b = torch.where(a + b > 0, -b, a), torch.where(a + b > 0, -a, b)
    upper = torch.special.log_ndtr(b)
    log_mass = upper + torch.log(-torch.expm1(torch.special.log_ndtr(a) - upper))
    return _placed(log_mass.softmax(0), dtype, device)


def uniform(
    K: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The same mass ``1 / K`` for each of ``K`` outcomes.

    Args:
        K: Number of outcomes.
        dtype: Float dtype of the result.
        device: Device of the result.

    Returns:
        ``(K,)``, summing to 1.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``K < 1``.

    Example:
        >>> uniform(4)
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    _check_bins(K)
    return torch.full((K,), 1 / K, dtype=dtype, device=device)


def histogram(
    samples: Tensor,
    K: int,
    low: float | None = None,
    high: float | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The share of the samples in each of ``K`` equal bins of ``[low, high]``.

    Bins are half-open but for the last, which holds ``high`` too; samples outside are left out of
    the count, as in ``numpy.histogram``. The third article gives the range, the official
    repository takes the samples' own. Some bins are empty as a rule: see the note at the top of
    this module.

    Args:
        samples: Any shape, any float dtype, any device (counted on the CPU in float64).
        K: Number of outcomes.
        low: Lower edge; ``None`` for the smallest sample.
        high: Upper edge; ``None`` for the largest sample.
        dtype: Float dtype of the result.
        device: Device of the result.

    Returns:
        ``(K,)``, summing to 1.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``K < 1``, ``low >= high``, no sample in the range, or a sample that is NaN or
            inf.

    Example:
        >>> histogram(torch.tensor([-1.5, -0.5, -0.25, 1.0, 7.0]), 4, -2.0, 2.0)
        tensor([0.2500, 0.5000, 0.0000, 0.2500])
        >>> histogram(torch.tensor([-1.5, -0.5, -0.25, 1.0, 7.0]), 4)
        tensor([0.6000, 0.2000, 0.0000, 0.2000])
    """
    _check_bins(K)
    check.check_floating("samples", samples)
    samples = samples.detach().to(device="cpu", dtype=torch.float64).flatten()
    if not bool(samples.isfinite().all()):
        raise ValueError("samples must be finite, got NaN or inf among them")
    if samples.numel() == 0:
        raise ValueError("samples must not be empty, got 0 of them")
    low = float(samples.min()) if low is None else low
    high = float(samples.max()) if high is None else high
    _check_range(low, high)
    counts = _bin_counts(samples, K, low, high)
    total = int(counts.sum())
    if total == 0:
        raise ValueError(
            f"samples must fall in [{low}, {high}], got none of {samples.numel()} there"
        )
    return _placed(counts.double() / total, dtype, device)


def article(
    K: int = 20,
    *,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The anchors of the third article: histograms over [-2, 2] of 1,000 draws each.

    Real: N(+1, 1), fake: N(-1, 1). Their full-support limit is ``gaussian(K, 1, 1, -2, 2)`` and
    ``gaussian(K, -1, 1, -2, 2)``.

    Args:
        K: Number of outcomes; 20 in the article.
        generator: A CPU generator to draw with.
        seed: Draws with a fresh generator of this seed instead; the global one serves if both are
            ``None``.
        dtype: Float dtype of the result.
        device: Device of the result; the draws do not depend on it.

    Returns:
        ``(real_anchor, fake_anchor)``, each ``(K,)``, each summing to 1.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``K < 1``, or both ``generator`` and ``seed`` are given.

    Example:
        >>> real_anchor, fake_anchor = article(20, seed=0)
        >>> real_anchor.shape, bool(real_anchor.argmax() > fake_anchor.argmax())
        (torch.Size([20]), True)
    """
    generator = _generator(generator, seed)
    real = _draw(torch.randn, generator) + 1
    fake = _draw(torch.randn, generator) - 1
    return (
        histogram(real, K, -2.0, 2.0, dtype=dtype, device=device),
        histogram(fake, K, -2.0, 2.0, dtype=dtype, device=device),
    )


def official(
    K: int = 51,
    *,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The anchors of the official repository: histograms of 1,000 draws, each over its own range.

    Real (its ``anchor1``): U(-1, 1), fake (its ``anchor0``): N(0, 0.1). Each range runs from the
    smallest to the largest draw, so the two share bin numbers but not realness values, and the
    distance between them comes from the skew that ``compat.CategoricalLoss`` applies afterwards
    (github.com/kam1107/RealnessGAN, ``train.py``).

    Args:
        K: Number of outcomes; 51 in the repository.
        generator: A CPU generator to draw with.
        seed: Draws with a fresh generator of this seed instead; the global one serves if both are
            ``None``.
        dtype: Float dtype of the result.
        device: Device of the result; the draws do not depend on it.

    Returns:
        ``(real_anchor, fake_anchor)``, each ``(K,)``, each summing to 1.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``K < 1``, or both ``generator`` and ``seed`` are given.

    Example:
        >>> real_anchor, fake_anchor = official(51, seed=0)
        >>> bool(real_anchor.max() < fake_anchor.max())  # flat against peaked
        True
    """
    generator = _generator(generator, seed)
    fake = _draw(torch.randn, generator) * 0.1
    real = _draw(torch.rand, generator) * 2 - 1
    return (
        histogram(real, K, dtype=dtype, device=device),
        histogram(fake, K, dtype=dtype, device=device),
    )


def skew_matrix(
    K: int,
    skew: float,
    low: float,
    high: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""The linear map that :func:`skewed` applies: row ``j`` says where atom ``j``'s mass goes.

    .. math::
        M_{jk} = \max(0, 1 - |b_j - k|), \qquad
        b_j = \mathrm{clamp}\left(j + skew \cdot \frac{K - 1}{high - low}, 0, K - 1\right)

    Args:
        K: Number of atoms, at least 2.
        skew: Distance to move, in units of ``low`` and ``high``; negative is towards ``low``.
        low: Position of the first atom.
        high: Position of the last atom, above ``low``.
        dtype: Float dtype of the result.
        device: Device of the result.

    Returns:
        ``(K, K)``; each row sums to 1.

    Raises:
        TypeError: an argument that is not of its type.
        ValueError: ``K < 2``, ``low >= high`` or a skew that is NaN.

    Example:
        >>> skew_matrix(3, 0.25, -1.0, 1.0)
        tensor([[0.7500, 0.2500, 0.0000],
                [0.0000, 0.7500, 0.2500],
                [0.0000, 0.0000, 1.0000]])
    """
    check.check_integer("K", K, 2)
    _check_range(low, high)
    if math.isnan(check.check_factor("skew", skew)):
        raise ValueError(f"skew must be a number, got {skew!r}")
    atoms = torch.arange(K, dtype=torch.float64, device="cpu")
    # In units of the atoms' spacing; adding to whole numbers keeps a skew of 0 exact.
    positions = (atoms + skew * (K - 1) / (high - low)).clamp(0, K - 1)
    weights = (1 - (positions[:, None] - atoms).abs()).clamp(min=0)
    return _placed(weights, dtype, device)


def skewed(anchor: Tensor, skew: float, low: float, high: float) -> Tensor:
    """Moves an anchor by ``skew`` along its atoms and projects it back onto them.

    The atoms lie on ``linspace(low, high, K)``. Each moves by ``skew``, stops at ``low`` or
    ``high``, and hands its mass to the two atoms around it in proportion to nearness (all of it to
    one when it lands there). No mass is lost. This is the projection inside the official
    repository's ``CategoricalLoss`` (``training/loss.py``), which does it again at every step for
    every row: as a fixed linear map, once is enough.

    Args:
        anchor: ``(..., K)``, atoms in the last dimension; differentiable.
        skew: Distance to move, in units of ``low`` and ``high``; negative is towards ``low``.
        low: Position of the first atom.
        high: Position of the last atom, above ``low``.

    Returns:
        The anchor's shape, dtype, device and total mass.

    Raises:
        TypeError: ``anchor`` is not a float tensor.
        ValueError: fewer than 2 atoms, ``low >= high`` or a skew that is NaN.

    Example:
        >>> skewed(torch.tensor([0.0, 0.5, 0.5]), 0.5, -1.0, 1.0)
        tensor([0.0000, 0.2500, 0.7500])
    """
    check.check_floating("anchor", anchor)
    check.check_dim("anchor", anchor, -1)
    matrix = skew_matrix(
        anchor.shape[-1], skew, low, high, dtype=anchor.dtype, device=anchor.device
    )
    return anchor @ matrix


def smoothed(anchor: Tensor, eps: float) -> Tensor:
    """``(1 - eps) * anchor + eps / K``: gives every bin some mass, so that logits stay bounded.

    Args:
        anchor: ``(..., K)``, outcomes in the last dimension, summing to 1; differentiable.
        eps: Share of the mass that is spread evenly, in [0, 1].

    Returns:
        The anchor's shape, dtype and device, summing to 1.

    Raises:
        TypeError: ``anchor`` is not a float tensor.
        ValueError: ``eps`` outside [0, 1].

    Example:
        >>> smoothed(torch.tensor([0.0, 1.0]), 0.1)
        tensor([0.0500, 0.9500])
    """
    check.check_logits("anchor", anchor, -1)
    if not 0 <= check.check_factor("eps", eps) <= 1:
        raise ValueError(f"eps must be in [0, 1], got {eps!r}")
    return (1 - eps) * anchor + eps / anchor.shape[-1]


def _check_bins(K: int) -> None:
    check.check_integer("K", K, 1)


def _check_range(low: float, high: float) -> None:
    check.check_factor("low", low)
    check.check_factor("high", high)
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"low must be below high, both finite, got {low!r} and {high!r}")


def _bin_counts(samples: Tensor, K: int, low: float, high: float) -> Tensor:
    """Counts by comparison with the edges ``low + k (high - low) / K``, as ``numpy.histogram``."""
    edges = low + torch.arange(K + 1, dtype=samples.dtype, device="cpu") * ((high - low) / K)
    inside = samples[(samples >= low) & (samples <= high)]
    bins = torch.searchsorted(edges, inside, right=True) - 1
    return torch.bincount(bins.clamp(max=K - 1), minlength=K)


def _placed(x: Tensor, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    # torch.get_default_device() fails in torch 2.6 once the default was reset.
    return x.to(dtype=dtype, device=torch.empty(0).device if device is None else device)


def _draw(sampler: Callable[..., Tensor], generator: torch.Generator | None) -> Tensor:
    # Always on the CPU: the same seed gives the same anchors everywhere.
    return sampler(DRAWS, dtype=torch.float64, device="cpu", generator=generator)


def _generator(generator: torch.Generator | None, seed: int | None) -> torch.Generator | None:
    if seed is None:
        return generator
    if generator is not None:
        raise ValueError(f"generator must be None when seed is given, got both (seed={seed!r})")
    return torch.Generator().manual_seed(check.check_integer("seed", seed))
