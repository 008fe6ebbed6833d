"""The losses of RealnessGAN on resampled logits."""

from __future__ import annotations

from torch import Tensor

from gankernels import _backend, reference
from gankernels._rows import alike
from gankernels.divergence_losses._arguments import (
    differ_beyond_the_batch,
    those_present,
)
from gankernels.resampling import noises_of

__all__ = [
    "resampled_realness_d_loss",
    "resampled_realness_g_loss",
]


def resampled_realness_d_loss(
    real_statistics: Tensor,
    fake_statistics: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    real_noise: Tensor | None = None,
    fake_noise: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> Tensor:
    r"""Feature resampling and RealnessGAN's discriminator loss as one operator.

    :func:`realness_d_loss` of :func:`resample_logits` of both batches; the logits in between are never
    rounded to 16 bits. Gradients: with :math:`g` the loss's gradient to the drawn logits :math:`z`,
    :math:`g` to the means and :math:`\tfrac12 g (z - \mu)` to the log-variances.

    Args:
        real_statistics: ``(N, 2K, *)``: D's K means, then K log-variances, for real images; float16,
            bfloat16, float32 or float64.
        fake_statistics: The same for generated images, same device. Of two dtypes the narrower is widened first.
        real_anchor: ``A1``, ``(K,)`` or one per row; a constant.
        fake_anchor: ``A0``, likewise.
        dim: The class dimension. Of ``(B, S, 2V)`` the default is the sequence: the vocabulary is ``dim=-1``.
        reduction: ``"mean"``, ``"batchmean"``, ``"sum"`` or ``"none"``, as in :func:`realness_d_loss`.
        real_noise: ``(N, K, *)``; drawn where it is not given.
        fake_noise: Likewise.
        scale: A factor on the loss and its gradients, inside the kernel.

    Returns:
        The loss in float32, or float64 for float64 statistics; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: an odd number of channels, shapes, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices; an anchor that requires grad.

    Cost: one autograd node instead of three; beside drawing the noise a third cheaper than resampling first
    at (128, 2 x 51) on a CPU (``benchmarks/results``).

    Source: Xiangli et al. 2020, equation 3 and "feature resampling".

    Example:
        >>> import torch, gankernels as gk
        >>> statistics, noise = torch.zeros(4, 4), torch.zeros(4, 2)
        >>> anchors = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> gk.resampled_realness_d_loss(
        ...     statistics, statistics, *anchors, real_noise=noise, fake_noise=noise
        ... )  # 2 log 2
        tensor(1.3863)
        >>> sequences, anchor = torch.zeros(2, 7, 6), torch.full((3,), 1 / 3)  # (B, S, 2V)
        >>> gk.resampled_realness_d_loss(
        ...     sequences, sequences, anchor, anchor, dim=-1, reduction="none"
        ... ).shape
        torch.Size([2, 7])
    """
    tensors = (real_statistics, fake_statistics, real_anchor, fake_anchor)
    if _backend.reference_serves(*tensors) or differ_beyond_the_batch(reduction, *tensors[:2]):
        return reference.resampled_realness_d_loss(
            *tensors, dim, reduction, real_noise, fake_noise, scale=scale
        )
    noises = noises_of(real_statistics, fake_statistics, dim, real_noise, fake_noise)
    if real_statistics.dtype != fake_statistics.dtype:
        real_statistics, fake_statistics = alike(real_statistics, fake_statistics)
    code, scale = _backend.in_kernel(reduction, scale, real_statistics, dim)
    return _backend.resampled_realness_d_loss(
        real_statistics, fake_statistics, real_anchor, fake_anchor, *noises, dim, code, scale
    )


def resampled_realness_g_loss(
    real_statistics: Tensor | None,
    fake_statistics: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    real_noise: Tensor | None = None,
    fake_noise: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> Tensor:
    r"""Feature resampling and RealnessGAN's generator loss as one operator.

    :func:`realness_g_loss` of :func:`resample_logits`; gradients as in
    :func:`resampled_realness_d_loss`.

    Args:
        real_statistics: ``(N, 2K, *)``; used by objective 2 only, may be ``None`` otherwise.
        fake_statistics: ``(N, 2K, *)``: K means, then K log-variances, for generated images.
        real_anchor: ``A1``; used by objective 3 only, may be ``None`` otherwise; a constant.
        fake_anchor: ``A0``; a constant.
        objective: 1, 2 or 3.
        dim: The class dimension. Of ``(B, S, 2V)`` the default is the sequence: the vocabulary is ``dim=-1``.
        reduction: ``"mean"``, ``"batchmean"``, ``"sum"`` or ``"none"``, as in :func:`realness_g_loss`.
        real_noise: ``(N, K, *)``; drawn where it is not given and used.
        fake_noise: Likewise.
        scale: A factor on the loss and its gradients, inside the kernel.

    Returns:
        The loss in float32, or float64 for float64 statistics; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: an unknown objective, a ``None`` that it needs, an odd number of channels, shapes, anchor
            length or reduction that do not fit.
        RuntimeError: tensors on different devices; an anchor that requires grad.

    Cost: one autograd node instead of two or three.

    Source: Xiangli et al. 2020, equations 18, 19 and 20 and "feature resampling".

    Example:
        >>> import torch, gankernels as gk
        >>> fake, noise = torch.zeros(1, 4), torch.zeros(1, 2)
        >>> gk.resampled_realness_g_loss(
        ...     None, fake, None, torch.tensor([1.0, 0.0]), objective=1, fake_noise=noise
        ... )  # -log 2
        tensor(-0.6931)
        >>> sequences, anchor = torch.zeros(2, 7, 6), torch.full((3,), 1 / 3)  # (B, S, 2V)
        >>> gk.resampled_realness_g_loss(
        ...     sequences, sequences, anchor, anchor, dim=-1, reduction="none"
        ... ).shape
        torch.Size([2, 7])
    """
    tensors = (real_statistics, fake_statistics, real_anchor, fake_anchor)
    if _backend.reference_serves(*those_present(*tensors)):
        return reference.resampled_realness_g_loss(
            *tensors, objective, dim, reduction, real_noise, fake_noise, scale=scale
        )
    used = real_statistics if objective == 2 else None
    noises = noises_of(used, fake_statistics, dim, real_noise, fake_noise)
    if used is not None and used.dtype != fake_statistics.dtype:
        used, fake_statistics = alike(used, fake_statistics)
    code, scale = _backend.in_kernel(reduction, scale, fake_statistics, dim)
    return _backend.resampled_realness_g_loss(
        used, fake_statistics, real_anchor, fake_anchor, *noises, objective, dim, code, scale
    )
