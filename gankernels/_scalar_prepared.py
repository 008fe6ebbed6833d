"""The parts of a call as kernels and the reference take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gankernels import _checks as check
from gankernels._rows import alike
from gankernels._scalar_call import Part, changed


def prepared(parts: Sequence[Part], reduction: str) -> list[Part]:
    """In one accumulation dtype, means taken, weight and mask as one weight of every element."""
    given = [x for part in parts for x in (part.logits, part.other) if x is not None]
    wide = any(x.dtype == torch.float64 for x in given)
    # Once for each: the gradients of both uses must add up before they are rounded.
    loss_dtype = torch.float64 if wide else torch.float32
    upcast = {
        name: x.to(loss_dtype)
        for part in parts
        if part.means is not None
        for name, x in ((part.name, part.logits), (part.other_name, part.other))
        if x is not None
    }
    return [_weighted(_in_one_dtype(part, wide, upcast), reduction) for part in parts]


def _in_one_dtype(part: Part, wide: bool, upcast: Mapping[str, Tensor]) -> Part:
    """float64 beside others: those are converted. Gradients come back in each tensor's own dtype."""
    dtype = torch.float64 if wide else part.logits.dtype
    if part.other is None:
        return changed(part, logits=part.logits.to(dtype))
    if part.means is not None:
        other = upcast[part.other_name]
        other = other.detach() if part.means.detach else other
        mean = other.mean() if part.means.dim is None else other.mean(0)
        logits = upcast[part.name]
        return changed(part, logits=logits, other=mean.expand(logits.shape))
    logits, other = alike(part.logits.to(dtype), part.other)
    return changed(part, logits=logits, other=other)


def _weighted(part: Part, reduction: str) -> Part:
    """A mean divides by the number of elements, as PyTorch's cross-entropies do, and with a mask by the
    number that it keeps; where none is kept it is 0.
    """
    weight, mask = part.weight, part.mask
    if weight is None and mask is None:
        return part
    shape = part.logits.shape
    dtype = check.accumulation_dtype(part.logits.dtype)
    if weight is not None:
        weight = _over(weight.to(dtype), shape)
    if mask is not None:
        one = torch.ones((), dtype=dtype, device=part.logits.device)
        # Not a product: an infinite weight that is masked out would be NaN.
        weight = torch.where(_over(mask, shape), one if weight is None else weight, 0.0)
        if reduction == "mean":
            weight = weight * (mask.numel() / mask.sum(dtype=dtype).clamp(min=1))
    return changed(part, weight=weight, mask=None)


def _over(x: Tensor, shape: torch.Size) -> Tensor:
    """One per sample as one per element."""
    if x.shape == shape:
        return x
    return x.reshape([-1] + [1] * (len(shape) - 1)).expand(shape)
