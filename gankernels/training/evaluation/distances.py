"""Distances between two sets of features, and how far either covers the other."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from gankernels._checks import check_integer
from gankernels._extras import require
from gankernels.training.field_checks import check_seed
from gankernels.training.modes import plain_defaults, seeded

__all__ = ["frechet_distance", "kernel_distance", "precision_recall"]


def frechet_distance(real_features: Tensor, fake_features: Tensor) -> float:
    r"""Fréchet distance between Gaussians fitted to two sets of features.

    .. math:: |\mu_r - \mu_f|^2 + \operatorname{tr}(\Sigma_r + \Sigma_f - 2(\Sigma_r\Sigma_f)^{1/2})

    With :math:`\Sigma = R^\top R` from a QR decomposition of the centred features, the last trace
    is the sum of the singular values of :math:`R_r R_f^\top`. Forming no covariance and taking no
    root of an eigenvalue keeps float64 precision where a covariance is singular, as it always is
    with fewer samples than features; torchmetrics' eigenvalues lose half of the digits there.

    Args:
        real_features: ``(N, D)``.
        fake_features: ``(M, D)``.

    Returns:
        The squared distance, computed in float64; at least 0.

    Raises:
        ValueError: A shape is wrong, a set has fewer than two rows, or a value is not finite.

    Source:
        Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium", where the features are Inception's.

    Example:
        >>> round(frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]])), 9)
        9.0
    """
    real, fake = _check_features(real_features, fake_features)
    real_mean, fake_mean = real.mean(0), fake.mean(0)
    real_root = (real - real_mean) / (len(real) - 1) ** 0.5
    fake_root = (fake - fake_mean) / (len(fake) - 1) ** 0.5
    traces = real_root.square().sum() + fake_root.square().sum()
    _, real_r = torch.linalg.qr(real_root, mode="r")
    _, fake_r = torch.linalg.qr(fake_root, mode="r")
    cross = torch.linalg.svdvals(real_r @ fake_r.T).sum()
    return max(0.0, float((real_mean - fake_mean).square().sum() + traces - 2 * cross))


def _check_features(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    for name, value in (("real_features", real), ("fake_features", fake)):
        if value.dim() != 2 or len(value) < 2 or value.shape[1] != real.shape[1]:
            raise ValueError(
                f"{name} must be (at least 2, the same D), got {tuple(value.shape)} beside "
                f"{tuple(real.shape)}"
            )
        if not value.isfinite().all():
            raise ValueError(f"{name} hold values that are not finite")
    return real.detach().double(), fake.detach().double()


@plain_defaults()
def kernel_distance(
    real_features: Tensor,
    fake_features: Tensor,
    *,
    seed: int,
    subsets: int = 100,
    subset_size: int | None = None,
) -> tuple[float, float]:
    """Squared maximum mean discrepancy with the cubic kernel (KID), over random subsets.

    Args:
        real_features: ``(N, D)``.
        fake_features: ``(M, D)``.
        seed: Seed of the subsets.
        subsets: How many.
        subset_size: Rows of each; by default half of the smaller set, at most 1,000.

    Returns:
        Mean and standard deviation over the subsets; the estimate is unbiased and may be below 0.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: As :func:`frechet_distance`, or a subset is smaller than 2 or larger than a set.

    Source:
        Bińkowski et al. 2018, "Demystifying MMD GANs"; computed by torchmetrics in float64.
    """
    kid = require("torchmetrics.image.kid")

    real, fake = _check_features(real_features, fake_features)
    check_seed(seed)
    check_integer("subsets", subsets, 1)
    if subset_size is not None:
        check_integer("subset_size", subset_size, otherwise=" or None")
    smaller = min(len(real), len(fake))
    size = min(1000, max(2, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise ValueError(f"subset_size must lie in 2..{smaller}, got {size}")
    with warnings.catch_warnings():  # it says that it keeps the features, which exist already
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = kid.KernelInceptionDistance(nn.Identity(), subsets=subsets, subset_size=size)
    metric.set_dtype(torch.float64).to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with seeded(seed, "cpu"):  # the metric draws its subsets from the global CPU generator
        mean, std = metric.compute()
    return float(mean), float(std)


def precision_recall(
    real_features: Tensor, fake_features: Tensor, *, neighbours: int = 3, block: int = 1024
) -> tuple[float, float]:
    """Improved precision and recall: the share of one set inside the k-nearest balls of the other.

    Each point of a set carries a ball that reaches to its k-th nearest neighbour in that set;
    precision is the share of fake points inside some real ball, recall the share of real points
    inside some fake ball.

    Args:
        real_features: ``(N, D)``.
        fake_features: ``(M, D)``.
        neighbours: k.
        block: Rows whose distances are held at a time.

    Returns:
        Precision and recall, each in 0..1.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: As :func:`frechet_distance`, or a set has no k-th neighbour.

    Source:
        Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
        Models".
    """
    real, fake = _check_features(real_features, fake_features)
    check_integer("block", block, 1)
    if not check_integer("neighbours", neighbours, 1) < min(len(real), len(fake)):
        raise ValueError(
            f"neighbours must lie in 1..{min(len(real), len(fake)) - 1}, got {neighbours}"
        )
    middle = real.mean(0)  # small norms keep the rounding of squared distances small
    real, fake = real - middle, fake - middle
    precision = _share_inside(fake, real, _radii(real, neighbours, block), block)
    recall = _share_inside(real, fake, _radii(fake, neighbours, block), block)
    return precision, recall


def _squared_distances(rows: Tensor, points: Tensor) -> Tensor:
    """|x - y|^2 = |x|^2 - 2 x.y + |y|^2: one matrix product, much faster than differences."""
    norms = rows.square().sum(1, keepdim=True) + points.square().sum(1)
    return torch.addmm(norms, rows, points.T, alpha=-2)


def _radii(points: Tensor, neighbours: int, block: int) -> Tensor:
    """Squared distance of each point to its k-th nearest neighbour, rounding allowed for."""
    # The nearest neighbour of all is the point itself.
    parts = [
        _squared_distances(rows, points).kthvalue(neighbours + 1, dim=1).values
        for rows in torch.split(points, block)
    ]
    # A sum of D products rounds by at most D ulps of the largest norm, on either side of "inside".
    rounding = 8 * points.shape[1] * torch.finfo(points.dtype).eps
    return torch.cat(parts) + rounding * points.square().sum(1).max()


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor, block: int) -> float:
    parts = torch.split(points, block)
    inside = sum(int((_squared_distances(rows, centres) <= radii).any(1).sum()) for rows in parts)
    return inside / len(points)
