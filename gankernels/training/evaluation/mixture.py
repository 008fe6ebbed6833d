"""Samples of a mixture of Gaussians against its centres."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gankernels._checks import check_positive_number

__all__ = ["evaluate_mixture"]


def evaluate_mixture(
    points: Tensor,
    centres: Tensor,
    sigma: float,
    *,
    radius: float = 4.0,
    minimum_share: float = 0.01,
) -> dict[str, Any]:
    """Count the modes of a mixture of Gaussians that samples recover.

    A sample is of high quality within ``radius`` standard deviations of its nearest centre. A mode
    is recovered when ``minimum_share`` of all samples or more are high-quality ones of its own: 100
    of 10,000, where an equal share of nine modes is 1,111. The share is this project's choice: one
    stray sample is no mode.

    Args:
        points: ``(N, D)``; points that are not finite count as low quality.
        centres: ``(M, D)``.
        sigma: Standard deviation of each mode.
        radius: In standard deviations.
        minimum_share: Of all samples.

    Returns:
        ``modes_recovered`` (an integer) and ``high_quality_share`` (in 0..1).

    Raises:
        TypeError: An argument is not of its type.
        ValueError: A shape or ``sigma`` is wrong.

    Example:
        >>> import torch
        >>> evaluate_mixture(torch.tensor([[0.0, 0.1], [9.0, 9.0]]), torch.zeros(1, 2), 0.05)
        {'modes_recovered': 1, 'high_quality_share': 0.5}
    """
    if points.dim() != 2 or not len(points) or points.shape[1:] != centres.shape[1:]:
        raise ValueError(
            f"points must be (N, D) like the centres {tuple(centres.shape)}, "
            f"got {tuple(points.shape)}"
        )
    for name, value in (("sigma", sigma), ("radius", radius), ("minimum_share", minimum_share)):
        check_positive_number(name, value)
    offsets = points.double().cpu().unsqueeze(1) - centres.double().cpu()
    distance, nearest = offsets.norm(dim=2).min(1)
    good = distance <= radius * sigma
    counts = nearest[good].bincount(minlength=len(centres))
    return {
        "modes_recovered": int((counts >= max(1.0, minimum_share * len(points))).sum()),
        "high_quality_share": float(good.double().mean()),
    }
