"""The losses of RealnessGAN."""

from __future__ import annotations

from torch import Tensor

from gankernels import _backend, reference
from gankernels._divergence import check_realness_d
from gankernels._rows import RowWeights, alike
from gankernels.divergence_losses._arguments import (
    those_present,
    validate_anchors,
)

__all__ = [
    "realness_d_loss",
    "realness_g_loss",
]


def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
    real_mask: Tensor | None = None,
    fake_mask: Tensor | None = None,
    scale: float = 1.0,
    validate: bool = False,
) -> Tensor:
    r"""RealnessGAN's discriminator loss: both divergences from their anchors, in one call.

    .. math::
        L_D = \mathrm{KL}(A_1 \| \mathrm{softmax}(r)) + \mathrm{KL}(A_0 \| \mathrm{softmax}(f))

    Gradients: :math:`S_1 \mathrm{softmax}(r) - A_1` to the real logits,
    :math:`S_0 \mathrm{softmax}(f) - A_0` to the fake ones, each divided by its own number of rows for
    ``"mean"``; to the anchors, where they require grad, as in :func:`softmax_kl`. With the anchors
    ``A1 = [0, 1]`` and ``A0 = [1, 0]`` this is the logistic GAN loss of the logit difference.

    Args:
        real_logits: D's raw output for real images, float16, bfloat16, float32 or float64.
        fake_logits: D's raw output for generated images; same number of dimensions and classes, same device.
            The batches may differ in size. Of two dtypes the narrower is widened first, and each gradient has
            the dtype of its logits.
        real_anchor: ``A1``, ``(K,)`` or the shape of ``real_logits``; any float dtype.
        fake_anchor: ``A0``, ``(K,)`` or the shape of ``fake_logits``.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` (over the rows of each batch), ``"batchmean"`` (each batch's sum divided by the size
            of its dimension 0), ``"sum"``, or ``"none"`` (the sum of both terms row by row: equal shapes needed).
        real_weight: A factor for each row of the real batch, and ``fake_weight`` of the generated one, as in
            :func:`softmax_kl`; so are the masks.
        fake_weight: Likewise.
        real_mask: Which rows of the real batch count.
        fake_mask: Likewise.
        scale: A factor on the loss and its gradients, inside the kernel.
        validate: Check the anchors' values (a host synchronisation on a GPU).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: an argument is not a floating-point tensor, a mask not a bool one, a factor not a number.
        ValueError: shapes, dimension, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for the value and both gradients; each logit read once, each gradient written once.
    Weights, masks and a ``"batchmean"`` of batches that differ beyond dimension 0 take a kernel for each batch,
    with the costs that :func:`softmax_kl` names.

    Source: Xiangli et al. 2020, equation 3.

    Example:
        >>> import torch, gankernels as gk
        >>> real_anchor, fake_anchor = gk.anchors.gaussian(20, 1, 1, -2, 2), gk.anchors.gaussian(20, -1, 1, -2, 2)
        >>> logits = torch.zeros(8, 20)
        >>> gk.realness_d_loss(logits, logits, real_anchor, fake_anchor).shape
        torch.Size([])
        >>> logits, anchor = torch.zeros(2, 7, 4), torch.full((4,), 0.25)  # one distribution per position
        >>> gk.realness_d_loss(logits, logits, anchor, anchor, dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    if validate:
        validate_anchors(real_anchor, fake_anchor)
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    if _backend.reference_serves(*tensors):
        return reference.realness_d_loss(
            *tensors,
            dim,
            reduction,
            real_weight=real_weight,
            fake_weight=fake_weight,
            real_mask=real_mask,
            fake_mask=fake_mask,
            scale=scale,
        )
    if real_logits.dtype != fake_logits.dtype:
        real_logits, fake_logits = alike(real_logits, fake_logits)
    alone = real_weight is fake_weight is real_mask is fake_mask is None
    if not alone or (reduction == "batchmean" and real_logits.shape[1:] != fake_logits.shape[1:]):
        tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
        weights, masks = (real_weight, fake_weight), (real_mask, fake_mask)
        return _realness_d_in_two(*tensors, dim, reduction, weights, masks, scale)
    code, scale = _backend.in_kernel(reduction, scale, real_logits, dim)
    return _backend.realness_d_loss(
        real_logits, fake_logits, real_anchor, fake_anchor, dim, code, scale
    )


def _realness_d_in_two(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int,
    reduction: str,
    weights: tuple[Tensor | None, Tensor | None],
    masks: tuple[Tensor | None, Tensor | None],
    scale: float,
) -> Tensor:
    """One divergence for each batch, where its rows count each as they are told."""
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    index = check_realness_d(*tensors, dim, reduction)
    losses = []
    for i, prefix in enumerate(("real_", "fake_")):
        logits, anchor = tensors[i], tensors[2 + i]
        rows = RowWeights(logits, index, weights[i], masks[i], prefix)
        code, factor = _backend.in_kernel("none", scale, logits, dim)
        losses.append(
            rows.reduce(_backend.softmax_kl(logits, anchor, dim, code, 1.0, factor), reduction)
        )
    return losses[0] + losses[1]


def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    *,
    scale: float = 1.0,
    validate: bool = False,
) -> Tensor:
    r"""RealnessGAN's generator loss, in its three objectives.

    With :math:`p = \mathrm{softmax}(r)` and :math:`q = \mathrm{softmax}(f)`:

    ========= ===================================================== ==============================================
    objective loss                                                  gradient to the fake logits
    ========= ===================================================== ==============================================
    1         :math:`-\mathrm{KL}(A_0 \| q)`                        :math:`A_0 - S_0 q`
    2         :math:`\mathrm{KL}(p \| q) - \mathrm{KL}(A_0 \| q)`   :math:`A_0 - p + (1 - S_0) q`
    3         :math:`\mathrm{KL}(A_1 \| q) - \mathrm{KL}(A_0 \| q)` :math:`A_0 - A_1 + (S_1 - S_0) q`
    ========= ===================================================== ==============================================

    For anchors that sum to one, objectives 2 and 3 are linear in the fake logits and no softmax of them is
    taken. Objective 2 also gives :math:`p \circ (\log p - \log q - \mathrm{KL}(p \| q))` to the real logits
    where they require grad. Objectives 1 and 3 are unbounded below; 2 is the paper's choice.

    Args:
        real_logits: D's raw output for real images, the shape of ``fake_logits``; used by objective 2 only,
            may be ``None`` otherwise. Of two dtypes the narrower is widened first, and each gradient has the
            dtype of its logits.
        fake_logits: D's raw output for generated images, float16, bfloat16, float32 or float64.
        real_anchor: ``A1``, ``(K,)`` or the shape of ``fake_logits``; used by objective 3 only, may be
            ``None`` otherwise.
        fake_anchor: ``A0``, ``(K,)`` or the shape of ``fake_logits``.
        objective: 1, 2 or 3.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` over rows, ``"batchmean"`` (the sum divided by the size of dimension 0), ``"sum"``,
            or ``"none"``.
        scale: A factor on the loss and its gradients, inside the kernel.
        validate: Check the anchors' values (a host synchronisation on a GPU).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or a factor that is not a number.
        ValueError: an objective that is not 1, 2 or 3, a ``None`` that the objective needs, shapes,
            dimension, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for the value and every gradient; each logit read once, each gradient written once.

    Source: Xiangli et al. 2020, equations 18, 19 and 20.

    Example:
        >>> import torch, gankernels as gk
        >>> fake = torch.zeros(1, 2, requires_grad=True)
        >>> gk.realness_g_loss(None, fake, None, torch.tensor([1.0, 0.0]), objective=1)  # -log 2
        tensor(-0.6931, grad_fn=<...>)
        >>> logits, anchor = torch.zeros(2, 7, 4), torch.full((4,), 0.25)  # one distribution per position
        >>> gk.realness_g_loss(logits, logits, anchor, anchor, dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    if validate:
        validate_anchors(real_anchor, fake_anchor)
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    if _backend.reference_serves(*those_present(*tensors)):
        return reference.realness_g_loss(*tensors, objective, dim, reduction, scale=scale)
    if objective == 2 and real_logits is not None and real_logits.dtype != fake_logits.dtype:
        real_logits, fake_logits = alike(real_logits, fake_logits)
    code, scale = _backend.in_kernel(reduction, scale, fake_logits, dim)
    return _backend.realness_g_loss(
        real_logits, fake_logits, real_anchor, fake_anchor, objective, dim, code, scale
    )
