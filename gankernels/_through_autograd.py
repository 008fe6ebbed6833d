"""Value and gradients of any loss, by differentiating it: the answer where no kernel serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]
ValueAndGrad = Callable[..., tuple[Tensor, Gradients]]


def wanted(*logits: Tensor | None) -> tuple[bool, ...]:
    """Gradients of the logits that require grad, or of all where none does."""
    required = tuple(x is not None and x.requires_grad for x in logits)
    return required if any(required) else tuple(x is not None for x in logits)


def can_require_grad(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def through_autograd(
    loss_fn: Callable[..., Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    places: tuple[int, ...],
    grad_scale: float,
) -> tuple[Tensor, Gradients]:
    """The same contract by differentiating the loss on detached logits, each a tensor or a list of them."""
    flat = [x for i in places for x in _flat(args[i])]
    if not all(x is None or can_require_grad(x) for x in flat):
        loss_fn(*args, **kwargs)  # whose checks name the argument
    asked_for = wanted(*flat)
    # Inference mode forbids autograd, to the tensors that were made in it too.
    with torch.inference_mode(False), torch.enable_grad():
        usable = [None if x is None else x.clone() if x.is_inference() else x for x in flat]
        leaves = [
            None if x is None else x.detach().requires_grad_(want)
            for x, want in zip(usable, asked_for, strict=True)
        ]
        rest = iter(leaves)
        detached = [_like(x, rest) if i in places else _usable(x) for i, x in enumerate(args)]
        loss = loss_fn(*detached, **kwargs)
        losses = loss if isinstance(loss, list) else [loss]
        sums = [x if x.ndim == 0 else x.sum() for x in losses]
        total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        asked = [x for x in leaves if x is not None and x.requires_grad]
        found = iter(torch.autograd.grad(total * grad_scale, asked, allow_unused=True))
    gradients = iter([next(found) if want else None for want in asked_for])
    value = [x.detach() for x in losses] if isinstance(loss, list) else loss.detach()
    return value, tuple(_like(args[i], gradients) for i in places)


def _flat(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _like(given: Any, values: Iterator[Any]) -> Any:
    """The next values in the shape of an argument: one, or a list."""
    return [next(values) for _ in given] if isinstance(given, (list, tuple)) else next(values)


def _usable(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
