"""Losses over distributions, value and gradients at once: each takes what its loss takes, and ``grad_scale``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gankernels import _backend, _checks, reference
from gankernels._rows import alike
from gankernels._through_autograd import Gradients, through_autograd, wanted
from gankernels.divergence_losses import kl, realness, resampled
from gankernels.divergence_losses._arguments import (
    differ_beyond_the_batch,
    those_present,
    validate_anchors,
)
from gankernels.resampling import noises_of


def _of_two_logits(
    operator: Callable[..., Any],
    first: Tensor | None,
    second: Tensor,
    arguments: tuple[Any, ...],
    grad_scale: float,
    *numbers: float,
) -> tuple[Tensor, Gradients]:
    """The same for losses over distributions, whose logits may be of two dtypes."""
    one, two = wanted(first, second)
    flags = (one, two, True, grad_scale)
    if first is None or first.dtype == second.dtype:
        loss, g_one, g_two = operator(first, second, *arguments, *flags, *numbers)
        return loss, (g_one if one else None, g_two if two else None)
    both = alike(first.detach(), second.detach())
    loss, g_one, g_two = operator(*both, *arguments, *flags, *numbers)
    return loss, (g_one.to(first.dtype) if one else None, g_two.to(second.dtype) if two else None)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    if validate:
        _checks.check_anchor_values("target", target)
    if _backend.reference_serves(logits, target) or not (weight is None and mask is None):
        options = {"temperature": temperature, "weight": weight, "mask": mask, "scale": scale}
        args = (logits, target, dim, reduction)
        return through_autograd(kl.softmax_kl, args, options, (0,), grad_scale)
    temperature = _checks.check_positive_number("temperature", temperature)
    code, scale = _backend.in_kernel(reduction, scale, logits, dim)
    loss, grad, _ = _backend.VALUE_AND_GRAD["softmax_kl"](
        logits, target, dim, code, True, False, True, grad_scale, temperature, scale
    )
    return loss, (grad,)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    if _backend.reference_serves(p_logits, q_logits) or not (weight is None and mask is None):
        options = {
            "temperature": temperature,
            "p_temperature": p_temperature,
            "q_temperature": q_temperature,
            "weight": weight,
            "mask": mask,
            "scale": scale,
        }
        args = (p_logits, q_logits, dim, reduction)
        return through_autograd(kl.softmax_kl_logits, args, options, (0, 1), grad_scale)
    of_p, of_q = _checks.check_temperatures(temperature, p_temperature, q_temperature)
    code, scale = _backend.in_kernel(reduction, scale, p_logits, dim)
    operator = _backend.VALUE_AND_GRAD["softmax_kl_logits"]
    both, arguments = (p_logits, q_logits), (dim, code)
    return _of_two_logits(operator, *both, arguments, grad_scale, of_p, of_q, scale)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    if _backend.reference_serves(p_logits, q_logits) or not (weight is None and mask is None):
        options = {"temperature": temperature, "weight": weight, "mask": mask, "scale": scale}
        args = (p_logits, q_logits, beta, dim, reduction)
        return through_autograd(kl.js_divergence, args, options, (0, 1), grad_scale)
    share = _checks.check_beta(beta)
    temperature = _checks.check_positive_number("temperature", temperature)
    code, scale = _backend.in_kernel(reduction, scale, p_logits, dim)
    operator = _backend.VALUE_AND_GRAD["js_divergence"]
    both, arguments = (p_logits, q_logits), (share, dim, code)
    return _of_two_logits(operator, *both, arguments, grad_scale, temperature, scale)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    if validate:
        validate_anchors(real_anchor, fake_anchor)
    tensors = (real_logits, fake_logits, real_anchor, fake_anchor)
    if (
        not (real_weight is fake_weight is real_mask is fake_mask is None)
        or _backend.reference_serves(*tensors)
        or differ_beyond_the_batch(reduction, real_logits, fake_logits)
    ):
        options = {
            "real_weight": real_weight,
            "fake_weight": fake_weight,
            "real_mask": real_mask,
            "fake_mask": fake_mask,
            "scale": scale,
        }
        fn, args = realness.realness_d_loss, (*tensors, dim, reduction)
        return through_autograd(fn, args, options, (0, 1), grad_scale)
    code, scale = _backend.in_kernel(reduction, scale, real_logits, dim)
    operator, arguments = (
        _backend.VALUE_AND_GRAD["realness_d_loss"],
        (real_anchor, fake_anchor, dim, code),
    )
    return _of_two_logits(operator, real_logits, fake_logits, arguments, grad_scale, scale)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    if validate:
        validate_anchors(real_anchor, fake_anchor)
    used = real_logits if objective == 2 else None
    tensors = (used, fake_logits, real_anchor, fake_anchor)
    if _backend.reference_serves(*those_present(*tensors)):
        args = (*tensors, objective, dim, reduction)
        return through_autograd(
            reference.realness_g_loss, args, {"scale": scale}, (0, 1), grad_scale
        )
    code, scale = _backend.in_kernel(reduction, scale, fake_logits, dim)
    operator = _backend.VALUE_AND_GRAD["realness_g_loss"]
    arguments = (real_anchor, fake_anchor, objective, dim, code)
    return _of_two_logits(operator, used, fake_logits, arguments, grad_scale, scale)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    tensors = (real_statistics, fake_statistics, real_anchor, fake_anchor)
    if (
        _backend.reference_serves(*tensors)
        or _learnable(real_anchor, fake_anchor)
        or differ_beyond_the_batch(reduction, *tensors[:2])
    ):
        args = (*tensors, dim, reduction, real_noise, fake_noise)
        fn = resampled.resampled_realness_d_loss
        return through_autograd(fn, args, {"scale": scale}, (0, 1), grad_scale)
    noises = noises_of(real_statistics, fake_statistics, dim, real_noise, fake_noise)
    code, scale = _backend.in_kernel(reduction, scale, real_statistics, dim)
    operator = _backend.VALUE_AND_GRAD["resampled_realness_d_loss"]
    arguments = (real_anchor, fake_anchor, *noises, dim, code)
    return _of_two_logits(operator, *tensors[:2], arguments, grad_scale, scale)


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
    grad_scale: float = 1.0,
) -> tuple[Tensor, Gradients]:
    used = real_statistics if objective == 2 else None
    tensors = (used, fake_statistics, real_anchor, fake_anchor)
    present = those_present(*tensors)
    if _backend.reference_serves(*present) or _learnable(real_anchor, fake_anchor):
        args = (*tensors, objective, dim, reduction, real_noise, fake_noise)
        fn = resampled.resampled_realness_g_loss
        return through_autograd(fn, args, {"scale": scale}, (0, 1), grad_scale)
    noises = noises_of(used, fake_statistics, dim, real_noise, fake_noise)
    code, scale = _backend.in_kernel(reduction, scale, fake_statistics, dim)
    operator = _backend.VALUE_AND_GRAD["resampled_realness_g_loss"]
    arguments = (real_anchor, fake_anchor, *noises, objective, dim, code)
    return _of_two_logits(operator, used, fake_statistics, arguments, grad_scale, scale)


def _learnable(*anchors: Tensor | None) -> bool:
    """Whether an anchor requires grad, which the loss itself refuses with a reason."""
    return any(x is not None and x.requires_grad for x in anchors)
