"""The operators as functions: each is its documentation and one call."""

from __future__ import annotations

from torch import Tensor

from gankernels import _checks, _ops, reference
from gankernels.reference import (
    hinge_d_loss,
    hinge_g_loss,
    logistic_d_loss,
    lsgan_d_loss,
    lsgan_g_loss,
    nonsaturating_g_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    saturating_g_loss,
    wasserstein_d_loss,
    wasserstein_g_loss,
)


def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    validate: bool = False,
) -> Tensor:
    r"""Kullback-Leibler divergence of a target distribution from the softmax of logits.

    .. math::
        \mathrm{KL}(A \| \mathrm{softmax}(z)) = \sum_k A_k \log A_k - \sum_k A_k z_k + S \, \mathrm{lse}(z),
        \quad S = \sum_k A_k, \quad 0 \log 0 = 0

    Gradients: :math:`S \, \mathrm{softmax}(z) - A` to the logits; to the target, where it requires grad,
    :math:`\log A + 1 - \log \mathrm{softmax}(z)`, and 0 at empty bins (as ``torch.nn.functional.kl_div``).
    Computed in log space: the gradient does not vanish however far the logits are off. An empty bin
    contributes nothing, whatever its logit, even ``-inf``; a target that does not sum to one is allowed.

    Args:
        logits: Raw logits, float16, bfloat16, float32 or float64; one distribution per row along ``dim``.
        target: ``(K,)`` for all rows (never materialised per row), or the shape of ``logits``. Any float
            dtype: it is read in the accumulation dtype.
        dim: The class dimension; all others index rows. Dense layouts, ``(N, K, H, W)`` and channels-last
            among them, are read as they lie.
        reduction: ``"mean"`` over rows, ``"sum"``, or ``"none"`` (one loss per row).
        validate: Check that the target is finite, non-negative and not all zero (a host synchronisation on
            a GPU, so off by default).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits. Differentiable any number of times. An empty
        batch gives NaN for ``"mean"``, 0 for ``"sum"``.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: a shape, dimension or reduction that does not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for value and gradient; logits read once, gradient written once, one exponential per
    element. Bitwise repeatable for any number of CPU threads.

    Source: the divergences of Xiangli et al. 2020, "Real or Not Real, that is the Question", equation 3.

    Example:
        >>> import torch, gankernels as gk
        >>> logits = torch.zeros(3, 4, requires_grad=True)
        >>> loss = gk.softmax_kl(logits, torch.tensor([0.0, 0.5, 0.5, 0.0]))  # log 4 - log 2
        >>> loss
        tensor(0.6931, grad_fn=<...>)
        >>> loss.backward()
        >>> logits.grad[0] * 3  # softmax - target
        tensor([ 0.2500, -0.2500, -0.2500,  0.2500])
    """
    if validate:
        _checks.check_anchor_values("target", target)
    if _ops.reference_serves(logits, target):
        return reference.softmax_kl(logits, target, dim, reduction)
    return _ops.softmax_kl(logits, target, dim, _ops.reduction_code(reduction))


def softmax_kl_logits(
    p_logits: Tensor, q_logits: Tensor, dim: int = 1, reduction: str = "mean"
) -> Tensor:
    r"""Kullback-Leibler divergence between the softmaxes of two tensors of logits.

    .. math::
        \mathrm{KL}(p \| q) = \sum_k p_k (\log p_k - \log q_k),
        \quad p = \mathrm{softmax}(p\_logits), \; q = \mathrm{softmax}(q\_logits)

    Gradients: :math:`q - p` to ``q_logits``; :math:`p \circ (\log p - \log q - \mathrm{KL})` to ``p_logits``.

    Args:
        p_logits: Raw logits of the first distribution, float16, bfloat16, float32 or float64.
        q_logits: Raw logits of the second, same shape, dtype and device; rows are compared pairwise.
        dim: The class dimension; all others index rows.
        reduction: ``"mean"`` over rows, ``"sum"``, or ``"none"``.

    Shape:
        both ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: shapes that differ, a dimension or reduction that does not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for value and both gradients; gradients that are not required are not computed.

    Source: the first term of Xiangli et al. 2020, equation 19.

    Example:
        >>> import torch, gankernels as gk
        >>> p, q = torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75]]))
        >>> gk.softmax_kl_logits(p, q)  # log(4/3) / 2
        tensor(0.1438)
    """
    if _ops.reference_serves(p_logits, q_logits):
        return reference.softmax_kl_logits(p_logits, q_logits, dim, reduction)
    return _ops.softmax_kl_logits(p_logits, q_logits, dim, _ops.reduction_code(reduction))


def realness_d_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    real_anchor: Tensor,
    fake_anchor: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
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
        fake_logits: D's raw output for generated images; same number of dimensions and classes, same dtype
            and device. The batches may differ in size.
        real_anchor: ``A1``, ``(K,)`` or the shape of ``real_logits``; any float dtype.
        fake_anchor: ``A0``, ``(K,)`` or the shape of ``fake_logits``.
        dim: The class dimension; all others index rows.
        reduction: ``"mean"`` (over the rows of each batch), ``"sum"``, or ``"none"`` (the sum of both terms
            row by row: equal shapes needed).
        validate: Check the anchors' values (a host synchronisation on a GPU).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
        ValueError: shapes, dimension, anchor length or reduction that do not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for the value and both gradients; each logit read once, each gradient written once.

    Source: Xiangli et al. 2020, equation 3.

    Example:
        >>> import torch, gankernels as gk
        >>> real_anchor, fake_anchor = gk.anchors.gaussian(20, 1, 1, -2, 2), gk.anchors.gaussian(20, -1, 1, -2, 2)
        >>> logits = torch.zeros(8, 20)
        >>> gk.realness_d_loss(logits, logits, real_anchor, fake_anchor).shape
        torch.Size([])
    """
    if validate:
        _validate_anchors(real_anchor, fake_anchor)
    if _ops.reference_serves(real_logits, fake_logits, real_anchor, fake_anchor):
        return reference.realness_d_loss(
            real_logits, fake_logits, real_anchor, fake_anchor, dim, reduction
        )
    return _ops.realness_d_loss(
        real_logits, fake_logits, real_anchor, fake_anchor, dim, _ops.reduction_code(reduction)
    )


def realness_g_loss(
    real_logits: Tensor | None,
    fake_logits: Tensor,
    real_anchor: Tensor | None,
    fake_anchor: Tensor,
    objective: int = 2,
    dim: int = 1,
    reduction: str = "mean",
    *,
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
            may be ``None`` otherwise.
        fake_logits: D's raw output for generated images, float16, bfloat16, float32 or float64.
        real_anchor: ``A1``, ``(K,)`` or the shape of ``fake_logits``; used by objective 3 only, may be
            ``None`` otherwise.
        fake_anchor: ``A0``, ``(K,)`` or the shape of ``fake_logits``.
        objective: 1, 2 or 3.
        dim: The class dimension; all others index rows.
        reduction: ``"mean"`` over rows, ``"sum"``, or ``"none"``.
        validate: Check the anchors' values (a host synchronisation on a GPU).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times.

    Raises:
        TypeError: not floating-point, or different dtypes.
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
    """
    if validate:
        _validate_anchors(real_anchor, fake_anchor)
    if _ops.reference_serves(*_present(real_logits, fake_logits, real_anchor, fake_anchor)):
        return reference.realness_g_loss(
            real_logits, fake_logits, real_anchor, fake_anchor, objective, dim, reduction
        )
    return _ops.realness_g_loss(
        real_logits,
        fake_logits,
        real_anchor,
        fake_anchor,
        objective,
        dim,
        _ops.reduction_code(reduction),
    )


def _present(
    real_logits: Tensor | None, fake_logits: Tensor, real_anchor: Tensor | None, fake_anchor: Tensor
) -> tuple[Tensor, ...]:
    """The arguments of a generator loss that may not be None, and those of the others that are not."""
    optional = tuple(x for x in (real_logits, real_anchor) if x is not None)
    return (fake_logits, fake_anchor, *optional)


def _validate_anchors(real_anchor: Tensor | None, fake_anchor: Tensor) -> None:
    if real_anchor is not None:
        _checks.check_anchor_values("real_anchor", real_anchor)
    _checks.check_anchor_values("fake_anchor", fake_anchor)
