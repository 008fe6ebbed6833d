"""Losses as value and gradients at once, without a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gankernels import _backend, _scalar_run, functional
from gankernels._scalar import SCALAR_LOSSES
from gankernels._scalar_call import bound, by_name, check_outputs
from gankernels._through_autograd import (
    Gradients,
    ValueAndGrad,
    can_require_grad,
    through_autograd,
    wanted,
)
from gankernels.divergence_losses import _value_and_grad as _of_distributions
from gankernels.divergence_losses import kl, realness, resampled


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
        places = tuple(i for i, x in enumerate(args) if can_require_grad(x))
        return through_autograd(loss_fn, args, kwargs, places, 1.0)

    return compute


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
                found = _scalar_run.plain_value_and_grad(
                    name, logits, reduction, wanted(*logits), grad_scale
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
            found = _scalar_run.value_and_grad(name, call, wanted(*logits), grad_scale)
            if found is not None:
                return found
        tensors = tuple(given.pop(argument) for argument in loss.arguments)
        return through_autograd(function, tensors, given, tuple(range(len(tensors))), grad_scale)

    return compute


_OF_DISTRIBUTIONS = (*kl.__all__, *realness.__all__, *resampled.__all__)
_FUSED: dict[Callable[..., Tensor], ValueAndGrad] = {
    **{getattr(functional, name): getattr(_of_distributions, name) for name in _OF_DISTRIBUTIONS},
    **{getattr(functional, name): _scalar(name) for name in SCALAR_LOSSES},
}
