"""Kullback-Leibler and Jensen-Shannon divergences."""

from __future__ import annotations

from torch import Tensor

from gankernels import _backend, _checks, reference
from gankernels._rows import RowWeights, alike

__all__ = [
    "js_divergence",
    "softmax_kl",
    "softmax_kl_logits",
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

    Cost: one kernel for value and both gradients; gradients that are not required are not computed. Two
        exponentials and two logarithms per class, no other memory than the gradients. Logits are read once, on a
        GPU three times where a row leaves the registers. The backward pass scales the gradients that were kept.

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
    if _backend.reference_serves(p_logits, q_logits):
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
    share = _checks.check_beta(beta)
    temperature = _checks.check_positive_number("temperature", temperature)
    if p_logits.dtype != q_logits.dtype:
        p_logits, q_logits = alike(p_logits, q_logits)
    if weight is not None or mask is not None:
        _checks.check_divergence_reduction(reduction)
        code, scale = _backend.in_kernel("none", scale, p_logits, dim)
        rows = _backend.js_divergence(p_logits, q_logits, share, dim, code, temperature, scale)
        return RowWeights(p_logits, dim % p_logits.ndim, weight, mask).reduce(rows, reduction)
    code, scale = _backend.in_kernel(reduction, scale, p_logits, dim)
    return _backend.js_divergence(p_logits, q_logits, share, dim, code, temperature, scale)
