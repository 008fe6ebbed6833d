"""Losses as value and gradients at once, without a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gankernels import _backend, _checks, _scalar_run, functional, reference
from gankernels._rows import alike
from gankernels._scalar import SCALAR_LOSSES
from gankernels._scalar_call import bound, by_name, check_outputs
from gankernels.divergence_losses._arguments import (
    differ_beyond_the_batch,
    those_present,
    validate_anchors,
)
from gankernels.resampling import noises_of

Gradients = tuple[Tensor | None, ...]
ValueAndGrad = Callable[..., tuple[Tensor, Gradients]]


def value_and_grad(loss_fn: Callable[..., Tensor]) -> ValueAndGrad:
    r"""A function that returns the loss and its gradients to the logits, from one kernel and without a graph.

    ``value_and_grad(loss)(*args)`` returns ``(value, gradients)`` with one gradient for each logits argument
    of ``loss``, in order. Continue the backward pass through the networks with
    ``torch.autograd.backward(logits, gradients)``: same numbers as ``loss(*args).backward()``, but no loss
    node, no saved tensors, and no multiplication by a gradient of one.

    Args:
        loss_fn: A loss of this package, a bound ``discriminator`` or ``generator`` of one of its modules, or
            any function of tensors (then through autograd, one gradient per floating-point tensor among its
            positional arguments).

    Returns:
        A function of the same arguments. Losses of this package take one more, ``grad_scale=1.0``: a factor
        on the gradients applied before they are rounded to the logits' dtype, for instance
        ``GradScaler.get_scale()``; the value is not scaled.
        If any logits argument requires grad, gradients of those that do not are ``None`` and cost nothing;
        if none does, all are computed. With ``reduction="none"`` the gradients are those of the sum.
        The gradients are plain tensors: they cannot be differentiated again (use the loss itself for that).

    Raises:
        What the loss raises; TypeError if ``loss_fn`` is not callable.

    Example:
        >>> import torch, gankernels as gk
        >>> real, fake = torch.zeros(4, 2), torch.zeros(4, 2)
        >>> anchors = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
        >>> loss, (g_real, g_fake) = gk.value_and_grad(gk.realness_d_loss)(real, fake, *anchors)
        >>> loss
        tensor(1.3863)
        >>> g_real[0]  # (softmax - A1) / 4
        tensor([ 0.1250, -0.1250])
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be callable, got {type(loss_fn).__name__}")
    fused = _FUSED.get(loss_fn)
    if fused is not None:
        return fused
    owner = getattr(loss_fn, "__self__", None)
    method: ValueAndGrad | None = (
        getattr(owner, f"{loss_fn.__name__}_value_and_grad", None) if owner else None
    )
    return method if method is not None else _of_any(loss_fn)


def _of_any(loss_fn: Callable[..., Tensor]) -> ValueAndGrad:
    def compute(*args: Any, **kwargs: Any) -> tuple[Tensor, Gradients]:
        places = tuple(i for i, x in enumerate(args) if _can_require_grad(x))
        return _through_autograd(loss_fn, args, kwargs, places, 1.0)

    return compute


def _wanted(*logits: Tensor | None) -> tuple[bool, ...]:
    """Gradients of the logits that require grad, or of all where none does."""
    required = tuple(x is not None and x.requires_grad for x in logits)
    return required if any(required) else tuple(x is not None for x in logits)


def _can_require_grad(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _through_autograd(
    loss_fn: Callable[..., Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    places: tuple[int, ...],
    grad_scale: float,
) -> tuple[Tensor, Gradients]:
    """The same contract by differentiating the loss on detached logits, each a tensor or a list of them."""
    flat = [x for i in places for x in _flat(args[i])]
    if not all(x is None or _can_require_grad(x) for x in flat):
        loss_fn(*args, **kwargs)  # whose checks name the argument
    wanted = _wanted(*flat)
    # Inference mode forbids autograd, to the tensors that were made in it too.
    with torch.inference_mode(False), torch.enable_grad():
        usable = [None if x is None else x.clone() if x.is_inference() else x for x in flat]
        leaves = [
            None if x is None else x.detach().requires_grad_(want)
            for x, want in zip(usable, wanted, strict=True)
        ]
        rest = iter(leaves)
        detached = [_like(x, rest) if i in places else _usable(x) for i, x in enumerate(args)]
        loss = loss_fn(*detached, **kwargs)
        losses = loss if isinstance(loss, list) else [loss]
        sums = [x if x.ndim == 0 else x.sum() for x in losses]
        total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        asked = [x for x in leaves if x is not None and x.requires_grad]
        found = iter(torch.autograd.grad(total * grad_scale, asked, allow_unused=True))
    gradients = iter([next(found) if want else None for want in wanted])
    value = [x.detach() for x in losses] if isinstance(loss, list) else loss.detach()
    return value, tuple(_like(args[i], gradients) for i in places)


def _flat(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _like(given: Any, values: Iterator[Any]) -> Any:
    """The next values in the shape of an argument: one, or a list."""
    return [next(values) for _ in given] if isinstance(given, (list, tuple)) else next(values)


def _usable(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x


def _of_two(
    operator: Callable[..., Any],
    first: Tensor | None,
    second: Tensor,
    *arguments: Any,
    grad_scale: float,
) -> tuple[Tensor, Gradients]:
    """A fused operator's loss and gradients of its first two arguments, as far as they are wanted."""
    one, two = _wanted(first, second)
    loss, g_one, g_two = operator(first, second, *arguments, one, two, True, grad_scale)
    return loss, (g_one if one else None, g_two if two else None)


def _of_two_logits(
    operator: Callable[..., Any],
    first: Tensor | None,
    second: Tensor,
    arguments: tuple[Any, ...],
    grad_scale: float,
    *numbers: float,
) -> tuple[Tensor, Gradients]:
    """The same for losses over distributions, whose logits may be of two dtypes."""
    one, two = _wanted(first, second)
    flags = (one, two, True, grad_scale)
    if first is None or first.dtype == second.dtype:
        loss, g_one, g_two = operator(first, second, *arguments, *flags, *numbers)
        return loss, (g_one if one else None, g_two if two else None)
    both = alike(first.detach(), second.detach())
    loss, g_one, g_two = operator(*both, *arguments, *flags, *numbers)
    return loss, (g_one.to(first.dtype) if one else None, g_two.to(second.dtype) if two else None)


def _softmax_kl(
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
        return _through_autograd(functional.softmax_kl, args, options, (0,), grad_scale)
    temperature = _checks.check_positive_number("temperature", temperature)
    code, scale = _backend.in_kernel(reduction, scale, logits, dim)
    loss, grad, _ = _backend.VALUE_AND_GRAD["softmax_kl"](
        logits, target, dim, code, True, False, True, grad_scale, temperature, scale
    )
    return loss, (grad,)


def _softmax_kl_logits(
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
        return _through_autograd(functional.softmax_kl_logits, args, options, (0, 1), grad_scale)
    of_p, of_q = _checks.check_temperatures(temperature, p_temperature, q_temperature)
    code, scale = _backend.in_kernel(reduction, scale, p_logits, dim)
    operator = _backend.VALUE_AND_GRAD["softmax_kl_logits"]
    both, arguments = (p_logits, q_logits), (dim, code)
    return _of_two_logits(operator, *both, arguments, grad_scale, of_p, of_q, scale)


def _js_divergence(
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
        return _through_autograd(functional.js_divergence, args, options, (0, 1), grad_scale)
    share = _checks.check_beta(beta)
    temperature = _checks.check_positive_number("temperature", temperature)
    code, scale = _backend.in_kernel(reduction, scale, p_logits, dim)
    operator = _backend.VALUE_AND_GRAD["js_divergence"]
    both, arguments = (p_logits, q_logits), (share, dim, code)
    return _of_two_logits(operator, *both, arguments, grad_scale, temperature, scale)


def _realness_d_loss(
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
        fn, args = functional.realness_d_loss, (*tensors, dim, reduction)
        return _through_autograd(fn, args, options, (0, 1), grad_scale)
    code, scale = _backend.in_kernel(reduction, scale, real_logits, dim)
    operator, arguments = (
        _backend.VALUE_AND_GRAD["realness_d_loss"],
        (real_anchor, fake_anchor, dim, code),
    )
    return _of_two_logits(operator, real_logits, fake_logits, arguments, grad_scale, scale)


def _realness_g_loss(
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
        return _through_autograd(
            reference.realness_g_loss, args, {"scale": scale}, (0, 1), grad_scale
        )
    code, scale = _backend.in_kernel(reduction, scale, fake_logits, dim)
    operator = _backend.VALUE_AND_GRAD["realness_g_loss"]
    arguments = (real_anchor, fake_anchor, objective, dim, code)
    return _of_two_logits(operator, used, fake_logits, arguments, grad_scale, scale)


def _resampled_realness_d_loss(
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
        fn = functional.resampled_realness_d_loss
        return _through_autograd(fn, args, {"scale": scale}, (0, 1), grad_scale)
    noises = noises_of(real_statistics, fake_statistics, dim, real_noise, fake_noise)
    code, scale = _backend.in_kernel(reduction, scale, real_statistics, dim)
    operator = _backend.VALUE_AND_GRAD["resampled_realness_d_loss"]
    arguments = (real_anchor, fake_anchor, *noises, dim, code)
    return _of_two_logits(operator, *tensors[:2], arguments, grad_scale, scale)


def _resampled_realness_g_loss(
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
        fn = functional.resampled_realness_g_loss
        return _through_autograd(fn, args, {"scale": scale}, (0, 1), grad_scale)
    noises = noises_of(used, fake_statistics, dim, real_noise, fake_noise)
    code, scale = _backend.in_kernel(reduction, scale, fake_statistics, dim)
    operator = _backend.VALUE_AND_GRAD["resampled_realness_g_loss"]
    arguments = (real_anchor, fake_anchor, *noises, objective, dim, code)
    return _of_two_logits(operator, used, fake_statistics, arguments, grad_scale, scale)


def _learnable(*anchors: Tensor | None) -> bool:
    """Whether an anchor requires grad, which the loss itself refuses with a reason."""
    return any(x is not None and x.requires_grad for x in anchors)


def _scalar(name: str) -> ValueAndGrad:
    """A loss of one logit per sample or patch."""
    loss, function = SCALAR_LOSSES[name], getattr(functional, name)
    count = len(loss.arguments)

    def compute(*args: Any, grad_scale: float = 1.0, **kwargs: Any) -> tuple[Tensor, Gradients]:
        named = len(kwargs) == 1 and "reduction" in kwargs and len(args) == count
        if named or (not kwargs and count <= len(args) <= count + 1):
            reduction = kwargs["reduction"] if named else (*args, "mean")[count]
            logits = args[:count]
            if not _backend.reference_serves(*logits):
                wanted = _wanted(*logits)
                found = _scalar_run.plain_value_and_grad(
                    name, logits, reduction, wanted, grad_scale
                )
                if found is not None:
                    return found
        return general(args, grad_scale, kwargs)

    def general(
        args: tuple[Any, ...], grad_scale: float, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Gradients]:
        given = by_name(name, loss, args, kwargs)
        call = bound(name, loss, given)
        check_outputs(call)
        for option in ("per_output", "return_terms"):
            if getattr(call.options, option):
                raise ValueError(f"{option} must be False in value_and_grad, got True")
        logits = [
            x
            for x, n in ((call.real, "real_logits"), (call.fake, "fake_logits"))
            if n in loss.arguments
        ]
        if all(isinstance(x, Tensor) for x in logits):
            found = _scalar_run.value_and_grad(name, call, _wanted(*logits), grad_scale)
            if found is not None:
                return found
        tensors = tuple(given.pop(argument) for argument in loss.arguments)
        return _through_autograd(function, tensors, given, tuple(range(len(tensors))), grad_scale)

    return compute


_FUSED: dict[Callable[..., Tensor], ValueAndGrad] = {
    functional.softmax_kl: _softmax_kl,
    functional.softmax_kl_logits: _softmax_kl_logits,
    functional.js_divergence: _js_divergence,
    functional.realness_d_loss: _realness_d_loss,
    functional.realness_g_loss: _realness_g_loss,
    functional.resampled_realness_d_loss: _resampled_realness_d_loss,
    functional.resampled_realness_g_loss: _resampled_realness_g_loss,
    **{getattr(functional, name): _scalar(name) for name in SCALAR_LOSSES},
}
