"""The operators as functions: each is its documentation and one call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from gankernels import _backend, _checks, reference
from gankernels._divergence import check_realness_d
from gankernels._rows import RowWeights, alike
from gankernels.feature_matching import feature_matching_loss
from gankernels.scalar_losses import (
    hinge_d_fake_loss,
    hinge_d_loss,
    hinge_d_real_loss,
    hinge_g_loss,
    logistic_d_fake_loss,
    logistic_d_loss,
    logistic_d_real_loss,
    lsgan_d_fake_loss,
    lsgan_d_loss,
    lsgan_d_real_loss,
    lsgan_g_loss,
    nonsaturating_g_loss,
    relativistic_d_loss,
    relativistic_g_loss,
    relativistic_pairing_d_loss,
    relativistic_pairing_g_loss,
    saturating_g_loss,
    wasserstein_d_fake_loss,
    wasserstein_d_loss,
    wasserstein_d_real_loss,
    wasserstein_g_loss,
)

__all__ = [
    "feature_matching_loss",
    "gradient_reversal",
    "gradient_scale",
    "hinge_d_fake_loss",
    "hinge_d_loss",
    "hinge_d_real_loss",
    "hinge_g_loss",
    "js_divergence",
    "logistic_d_fake_loss",
    "logistic_d_loss",
    "logistic_d_real_loss",
    "lsgan_d_fake_loss",
    "lsgan_d_loss",
    "lsgan_d_real_loss",
    "lsgan_g_loss",
    "negate_",
    "nonsaturating_g_loss",
    "nonsaturating_ratio",
    "realness_d_loss",
    "realness_g_loss",
    "relativistic_d_loss",
    "relativistic_g_loss",
    "relativistic_pairing_d_loss",
    "relativistic_pairing_g_loss",
    "resample_logits",
    "resampled_realness_d_loss",
    "resampled_realness_g_loss",
    "saturating_g_loss",
    "softmax_kl",
    "softmax_kl_logits",
    "wasserstein_d_fake_loss",
    "wasserstein_d_loss",
    "wasserstein_d_real_loss",
    "wasserstein_g_loss",
]


def softmax_kl(
    logits: Tensor,
    target: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float = 1.0,
    validate: bool = False,
) -> Tensor:
    r"""Kullback-Leibler divergence of a target distribution from the softmax of logits.

    .. math::
        \mathrm{KL}(A \| \mathrm{softmax}(z)) = \sum_k A_k \log A_k - \sum_k A_k z_k + S \, \mathrm{lse}(z),
        \quad z = logits / T, \quad S = \sum_k A_k, \quad 0 \log 0 = 0

    Gradients: :math:`(S \, \mathrm{softmax}(z) - A) / T` to the logits; to the target, where it requires grad,
    :math:`\log A + 1 - \log \mathrm{softmax}(z)`, and 0 at empty bins.
    Computed in log space: the gradient does not vanish however far the logits are off. An empty bin
    contributes nothing, whatever its logit, even ``-inf``; a target that does not sum to one is allowed.

    Args:
        logits: Raw logits, float16, bfloat16, float32 or float64; one distribution per row along ``dim``.
        target: ``(K,)`` for all rows (never materialised per row), or the shape of ``logits``. Any float
            dtype: it is read in the accumulation dtype.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``. Dense layouts, ``(N, K, H, W)`` and channels-last among them, are read
            as they lie.
        reduction: ``"mean"`` over rows, ``"batchmean"`` (the sum divided by the size of dimension 0, whichever
            dimension the classes have, as ``torch.nn.functional.kl_div`` does), ``"sum"``, or ``"none"`` (one
            loss per row).
        temperature: T, finite and positive. The loss is not multiplied by its square: distillation adds
            ``scale=T**2``.
        weight: A factor for each row, ``(N, *)`` as the rows are, or ``(N,)``; any float dtype. A mean divides by
            the number of rows. Differentiable.
        mask: Which rows count, bool, of the same shapes. A mean divides by the number of rows kept, and is 0
            where none is; nothing of the others reaches value or gradients, not even a NaN.
        scale: A factor on the loss and its gradients, inside the kernel.
        validate: Check that the target is finite, non-negative and not all zero (a host synchronisation on
            a GPU, so off by default).

    Shape:
        logits ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits. Differentiable any number of times. An empty
        batch gives NaN for ``"mean"``, 0 for ``"sum"``.

    Raises:
        TypeError: an argument is not a floating-point tensor, a mask not a bool one, a factor not a number.
        ValueError: a shape, dimension, reduction or temperature that does not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for value and gradient; logits read once, gradient written once, one exponential per
    element. Bitwise repeatable for any number of CPU threads.
    With ``weight`` or ``mask`` the kernel gives the row losses, and operations of the rows' size follow: two more
    for a weight, six for a mask, half as many backward, and the gradient is read and written once more.

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
        >>> sequences = torch.zeros(2, 7, 4)  # (B, S, V): one distribution per position
        >>> gk.softmax_kl(sequences, torch.full((4,), 0.25), dim=-1, reduction="none").shape
        torch.Size([2, 7])
        >>> gk.softmax_kl(sequences, torch.full((4,), 0.25), dim=-1, mask=torch.ones(2, 7) > 0)
        tensor(0.)
    """
    if validate:
        _checks.check_anchor_values("target", target)
    if _backend.reference_serves(logits, target):
        return reference.softmax_kl(
            logits,
            target,
            dim,
            reduction,
            temperature=temperature,
            weight=weight,
            mask=mask,
            scale=scale,
        )
    temperature = _checks.check_positive_number("temperature", temperature)
    if weight is not None or mask is not None:
        _checks.check_divergence_reduction(reduction)
        code, scale = _backend.in_kernel("none", scale, logits, dim)
        rows = _backend.softmax_kl(logits, target, dim, code, temperature, scale)
        return RowWeights(logits, dim % logits.ndim, weight, mask).reduce(rows, reduction)
    code, scale = _backend.in_kernel(reduction, scale, logits, dim)
    return _backend.softmax_kl(logits, target, dim, code, temperature, scale)


def softmax_kl_logits(
    p_logits: Tensor,
    q_logits: Tensor,
    dim: int = 1,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    p_temperature: float | None = None,
    q_temperature: float | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    r"""Kullback-Leibler divergence between the softmaxes of two tensors of logits.

    .. math::
        \mathrm{KL}(p \| q) = \sum_k p_k (\log p_k - \log q_k),
        \quad p = \mathrm{softmax}(p\_logits / T_p), \; q = \mathrm{softmax}(q\_logits / T_q)

    Gradients: :math:`(q - p) / T_q` to ``q_logits``; :math:`p \circ (\log p - \log q - \mathrm{KL}) / T_p` to
    ``p_logits``.

    Args:
        p_logits: Raw logits of the first distribution, float16, bfloat16, float32 or float64.
        q_logits: Raw logits of the second, same shape and device; rows are compared pairwise. Of two dtypes the
            narrower is widened first, and each gradient has the dtype of its logits.
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` over rows, ``"batchmean"`` (the sum divided by the size of dimension 0, whichever
            dimension the classes have, as ``torch.nn.functional.kl_div`` does), ``"sum"``, or ``"none"`` (one
            loss per row).
        temperature: T of both, finite and positive. The loss is not multiplied by its square: distillation adds
            ``scale=T**2``.
        p_temperature: Of the first alone, where it differs.
        q_temperature: Of the second alone.
        weight: A factor for each row, ``(N, *)`` as the rows are, or ``(N,)``; any float dtype. A mean divides by
            the number of rows. Differentiable.
        mask: Which rows count, bool, of the same shapes. A mean divides by the number of rows kept, and is 0
            where none is; nothing of the others reaches value or gradients, not even a NaN.
        scale: A factor on the loss and its gradients, inside the kernel.

    Shape:
        both ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 for float64 logits; differentiable any number of times. Of nearly
        equal distributions rounding may leave a row below 0, by less than ``8 eps (1 + r + log K)`` with the
        eps of the loss's dtype and ``r`` the range of the row's logits.

    Raises:
        TypeError: an argument is not a floating-point tensor, a mask not a bool one, a factor not a number.
        ValueError: shapes that differ, a dimension, reduction or temperature that does not fit.
        RuntimeError: tensors on different devices.

    Cost: one kernel for value and both gradients; gradients that are not required are not computed.
    Two dtypes cost a conversion of the narrower logits, and one of their gradient.
    With ``weight`` or ``mask`` the kernel gives the row losses, and operations of the rows' size follow: two more
    for a weight, six for a mask, half as many backward, and the gradient is read and written once more.

    Source: the first term of Xiangli et al. 2020, equation 19.

    Example:
        >>> import torch, gankernels as gk
        >>> p, q = torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75]]))
        >>> gk.softmax_kl_logits(p, q)  # log(4/3) / 2
        tensor(0.1438)
        >>> sequences = torch.zeros(2, 7, 4)  # (B, S, V): one distribution per position
        >>> gk.softmax_kl_logits(sequences, sequences, dim=-1, reduction="none").shape
        torch.Size([2, 7])
        >>> teacher, student, T = torch.randn(2, 7, 4), torch.randn(2, 7, 4, requires_grad=True), 4.0
        >>> gk.softmax_kl_logits(teacher, student, dim=-1, temperature=T, scale=T**2).backward()
    """
    if _backend.reference_serves(p_logits, q_logits):
        return reference.softmax_kl_logits(
            p_logits,
            q_logits,
            dim,
            reduction,
            temperature=temperature,
            p_temperature=p_temperature,
            q_temperature=q_temperature,
            weight=weight,
            mask=mask,
            scale=scale,
        )
    of_p, of_q = _checks.check_temperatures(temperature, p_temperature, q_temperature)
    if p_logits.dtype != q_logits.dtype:
        p_logits, q_logits = alike(p_logits, q_logits)
    if weight is not None or mask is not None:
        _checks.check_divergence_reduction(reduction)
        code, scale = _backend.in_kernel("none", scale, p_logits, dim)
        rows = _backend.softmax_kl_logits(p_logits, q_logits, dim, code, of_p, of_q, scale)
        return RowWeights(p_logits, dim % p_logits.ndim, weight, mask).reduce(rows, reduction)
    code, scale = _backend.in_kernel(reduction, scale, p_logits, dim)
    return _backend.softmax_kl_logits(p_logits, q_logits, dim, code, of_p, of_q, scale)


def js_divergence(
    p_logits: Tensor,
    q_logits: Tensor,
    beta: float = 0.5,
    dim: int = 1,
    reduction: str = "mean",
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    r"""Generalised Jensen-Shannon divergence between the softmaxes of two tensors of logits.

    .. math::
        \mathrm{JSD}_\beta(p, q) = \beta \, \mathrm{KL}(p \| m) + (1 - \beta) \, \mathrm{KL}(q \| m),
        \quad m = \beta p + (1 - \beta) q,
        \quad p = \mathrm{softmax}(p\_logits / T), \; q = \mathrm{softmax}(q\_logits / T)

    Gradients: :math:`\beta \, p \circ (\log p - \log m - \mathrm{KL}(p \| m)) / T` to ``p_logits``, and
    :math:`(1 - \beta) \, q \circ (\log q - \log m - \mathrm{KL}(q \| m)) / T` to ``q_logits``. Bounded by
    :math:`-\beta \log \beta - (1 - \beta) \log (1 - \beta)`; exchanging the two and ``beta`` with
    ``1 - beta`` changes nothing; divided by ``beta`` it tends to :math:`\mathrm{KL}(p \| q)` for ``beta`` to 0.

    Args:
        p_logits: Raw logits of the first distribution, float16, bfloat16, float32 or float64.
        q_logits: Raw logits of the second, same shape and device; each gradient has the dtype of its logits.
        beta: The first distribution's share of the mixture, in (0, 1).
        dim: The class dimension; all others index rows. Of ``(B, S, V)`` the default is the sequence: the
            vocabulary is ``dim=-1``.
        reduction: ``"mean"`` over rows, ``"batchmean"`` (the sum divided by the size of dimension 0, whichever
            dimension the classes have, as ``torch.nn.functional.kl_div`` does), ``"sum"``, or ``"none"``.
        temperature: T, finite and positive.
        weight: A factor for each row, ``(N, *)`` as the rows are, or ``(N,)``; any float dtype. A mean divides by
            the number of rows. Differentiable.
        mask: Which rows count, bool, of the same shapes. A mean divides by the number of rows kept, and is 0
            where none is; nothing of the others reaches value or gradients, not even a NaN.
        scale: A factor on the loss and its gradients, one more operation on the row losses.

    Shape:
        both ``(N, K, *)``; output ``()``, or ``(N, *)`` for ``"none"``.

    Returns:
        The loss in float32, or float64 where either has float64 logits; differentiable any number of times.

    Raises:
        TypeError: an argument is not a floating-point tensor, a mask not a bool one, a factor not a number.
        ValueError: ``beta`` outside (0, 1), shapes that differ, a dimension, reduction or temperature that does
            not fit.
        RuntimeError: tensors on different devices.

    Cost: no kernel of its own: some thirty operations of PyTorch on log-probabilities, and as many backward.

    Source: Agarwal et al. 2024, "On-Policy Distillation of Language Models" (GKD), the divergence JSD(beta).

    Example:
        >>> import torch, gankernels as gk
        >>> p, q = torch.tensor([[0.0, -100.0]]), torch.tensor([[-100.0, 0.0]])
        >>> gk.js_divergence(p, q)  # log 2
        tensor(0.6931)
        >>> sequences = torch.zeros(2, 7, 4)  # (B, S, V): one distribution per position
        >>> gk.js_divergence(sequences, sequences, 0.1, dim=-1, reduction="none").shape
        torch.Size([2, 7])
    """
    return reference.js_divergence(
        p_logits,
        q_logits,
        beta,
        dim,
        reduction,
        temperature=temperature,
        weight=weight,
        mask=mask,
        scale=scale,
    )


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
        _validate_anchors(real_anchor, fake_anchor)
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
        _validate_anchors(real_anchor, fake_anchor)
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    if _backend.reference_serves(*_present(*tensors)):
        return reference.realness_g_loss(*tensors, objective, dim, reduction, scale=scale)
    if objective == 2 and real_logits is not None and real_logits.dtype != fake_logits.dtype:
        real_logits, fake_logits = alike(real_logits, fake_logits)
    code, scale = _backend.in_kernel(reduction, scale, fake_logits, dim)
    return _backend.realness_g_loss(
        real_logits, fake_logits, real_anchor, fake_anchor, objective, dim, code, scale
    )


def negate_(t: Tensor) -> Tensor:
    r"""Negates a tensor in place and returns it.

    .. math:: t \leftarrow -t

    Under autograd an ordinary in-place operation: the version counter moves on, and the gradient of what
    follows is negated.

    Args:
        t: float16, bfloat16, float32 or float64; any strides whose elements do not share memory.

    Returns:
        ``t`` itself.

    Raises:
        TypeError: not floating-point.
        RuntimeError: a leaf that requires grad (outside ``torch.no_grad()``), or a tensor whose elements
            overlap in memory, such as an expanded one.

    Cost: one pass; no allocation.

    Example:
        >>> import torch, gankernels as gk
        >>> gk.negate_(torch.tensor([1.0, -2.0]))
        tensor([-1.,  2.])
    """
    if _backend.reference_serves(t):
        return reference.negate_(t)
    return _backend.negate_(t)


def gradient_reversal(x: Tensor, alpha: float | Tensor = 1.0) -> Tensor:
    r"""Identity forward, the negated gradient backward.

    .. math:: R(x) = x, \qquad \text{backward: } g \mapsto -\alpha g

    Between generator and discriminator it lets one optimizer and one backward pass train both on the
    minimax loss. It is *not* the derivative of its forward: ``gradcheck`` fails on it by design, and two
    reversals in a row, or its double backward, multiply by :math:`\alpha^2`.

    The forward copies, whatever the input's memory belongs to (NumPy, a DataLoader worker, a file, the input
    buffer of a CUDA graph), so that an in-place layer (``ReLU(inplace=True)``) may follow. A view would make
    that layer an error; memory that is shared without being a view would let it change ``x`` for whoever else
    reads ``x``, a second head on the same features say, with gradients that know nothing of it; and memory
    that is copied on the first write moves away from under those who hold its address. The backward negates
    in place when, and only when, nobody else can see the gradient, and allocates otherwise.

    ``torch.fx.symbolic_trace`` records the call as one node.

    Args:
        x: float16, bfloat16, float32 or float64, any shape.
        alpha: A number, or a tensor with one element (read on its device, without a host synchronisation).

    Returns:
        A tensor equal to ``x``.

    Raises:
        TypeError: ``x`` is not a dense floating-point tensor, or ``alpha`` is neither a number nor a tensor.
        ValueError: ``alpha`` is a tensor with another number of elements than one.

    Cost: forward one copy of ``x``; backward one pass over the gradient, in place where it may.

    Source: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", the gradient reversal layer.

    Example:
        >>> import torch, gankernels as gk
        >>> x = torch.ones(2, requires_grad=True)
        >>> gk.gradient_reversal(x, alpha=0.5).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000])
    """
    if _backend.reference_serves(x):
        if has_torch_function_unary(x):
            return handle_torch_function(gradient_reversal, (x,), x, alpha)
        return reference.gradient_reversal(x, alpha)
    alpha = _checks.check_alpha(alpha)
    if isinstance(alpha, Tensor):
        return _backend.gradient_scale(x, alpha, -1.0)
    return _backend.gradient_scale(x, None, float(-alpha))


def gradient_scale(x: Tensor, scale: float | Tensor) -> Tensor:
    r"""Identity forward, a scaled gradient backward: one factor for all, or one per sample.

    .. math:: y = x, \qquad \text{backward: } g_n \mapsto s_n \, g_n

    Like :func:`gradient_reversal` it is not the derivative of its forward, returns memory of its own, and
    scales in place only what nobody else can see.

    Args:
        x: float16, bfloat16, float32 or float64, ``(N, *)``.
        scale: A number, a 0-dim tensor, or a tensor ``(N,)``; a constant for autograd.

    Returns:
        A tensor equal to ``x``.

    Raises:
        TypeError: ``x`` or ``scale`` is not a dense floating-point tensor (``scale`` may be a number).
        ValueError: ``scale`` has another shape than ``()`` or ``(N,)``.

    Cost: forward one copy of ``x``; backward one pass over the gradient, in place where it may.

    Example:
        >>> import torch, gankernels as gk
        >>> x = torch.ones(2, 2, requires_grad=True)
        >>> gk.gradient_scale(x, torch.tensor([1.0, -3.0])).sum().backward()
        >>> x.grad
        tensor([[ 1.,  1.],
                [-3., -3.]])
    """
    if _backend.reference_serves(x):
        if has_torch_function_unary(x):
            return handle_torch_function(gradient_scale, (x,), x, scale)
        return reference.gradient_scale(x, scale)
    if isinstance(scale, Tensor):
        return _backend.gradient_scale(x, scale, 1.0)
    _checks.check_number("scale", scale, "a tensor")
    return _backend.gradient_scale(x, None, float(scale))


def nonsaturating_ratio(fake_logits: Tensor, limit: float = 80.0) -> Tensor:
    r"""The factor that turns the discriminator's gradient at a generated image into the generator's.

    .. math::
        \frac{d L_G}{d f} \Big/ \frac{d L_D}{d f} = \frac{-\sigma(-f)}{\sigma(f)} = -e^{-f}

    for the non-saturating loss :math:`L_G = \mathrm{softplus}(-f)` against
    :math:`L_D = \mathrm{softplus}(f)`: with :class:`DeferredGradientScale` one backward pass trains both
    networks. Computed in float32 and clamped to :math:`e^{limit}`, so it stays finite for every logit.

    .. warning::
        Exact only where D treats samples independently. BatchNorm in D mixes them and makes the generator's
        gradient wrong; spectral, layer, instance and group normalisation are fine. Where D is so sure that
        its own gradient :math:`\sigma(f)` underflows (f < -100 in float32, f < -16 in float16) no factor
        brings the generator's back: ``training.steps.one_pass_step`` is exact there too.

    Args:
        fake_logits: One logit per sample, ``(N,)`` or ``(N, 1, ...)`` with ones.
        limit: Largest exponent, at most 88.

    Returns:
        ``(N,)``, float32 (float64 for float64 logits), detached.

    Raises:
        TypeError: not floating-point.
        ValueError: more than one logit per sample, or a limit outside (0, 88].

    Source: Shen et al. 2021, "Training Generative Adversarial Networks in One Stage" (CVPR).

    Example:
        >>> import torch, gankernels as gk
        >>> gk.nonsaturating_ratio(torch.tensor([0.0, 1.0]))
        tensor([-1.0000, -0.3679])
    """
    _checks.check_floating("fake_logits", fake_logits)
    _checks.check_one_logit_per_sample("fake_logits", fake_logits)
    if not 0 < _checks.check_factor("limit", limit) <= 88:
        raise ValueError(f"limit must be in (0, 88], got {limit}")
    logits = fake_logits.detach().to(reference.accumulation_dtype(fake_logits.dtype))
    return -(-logits.reshape(-1)).clamp(max=limit).exp()


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
    noise = _noise("noise", noise, "mu_logvar", mu_logvar, dim, generator)
    return _backend.resample_logits(mu_logvar, noise, dim)


def _noise(
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


def _noises(
    real_statistics: Tensor | None,
    fake_statistics: Tensor,
    dim: int,
    real_noise: Tensor | None,
    fake_noise: Tensor | None,
) -> tuple[Tensor | None, Tensor]:
    """The noise of both batches, drawn where it is not given; None for a batch that is not used."""
    real = real_statistics
    return (
        None if real is None else _noise("real_noise", real_noise, "real_statistics", real, dim),
        _noise("fake_noise", fake_noise, "fake_statistics", fake_statistics, dim),
    )


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
    if _backend.reference_serves(*tensors) or _differ_beyond_the_batch(reduction, *tensors[:2]):
        return reference.resampled_realness_d_loss(
            *tensors, dim, reduction, real_noise, fake_noise, scale=scale
        )
    noises = _noises(real_statistics, fake_statistics, dim, real_noise, fake_noise)
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
    if _backend.reference_serves(*_present(*tensors)):
        return reference.resampled_realness_g_loss(
            *tensors, objective, dim, reduction, real_noise, fake_noise, scale=scale
        )
    used = real_statistics if objective == 2 else None
    noises = _noises(used, fake_statistics, dim, real_noise, fake_noise)
    if used is not None and used.dtype != fake_statistics.dtype:
        used, fake_statistics = alike(used, fake_statistics)
    code, scale = _backend.in_kernel(reduction, scale, fake_statistics, dim)
    return _backend.resampled_realness_g_loss(
        used, fake_statistics, real_anchor, fake_anchor, *noises, objective, dim, code, scale
    )


def _differ_beyond_the_batch(reduction: str, real: Tensor, fake: Tensor) -> bool:
    """Whether a batch's share of a mean over dimension 0 is another for the two batches."""
    return reduction == "batchmean" and real.shape[1:] != fake.shape[1:]


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
