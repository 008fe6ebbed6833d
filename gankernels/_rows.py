"""Rows of logits in plain PyTorch: the dtype they are computed in, what each counts, how losses become one."""

from __future__ import annotations

import torch
from torch import Tensor

from gankernels import _checks as check


def upcast(x: Tensor) -> Tensor:
    # Once per input: the gradients of several uses must add up before they are rounded.
    return x.to(check.accumulation_dtype(x.dtype))


def reduce(rows: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return rows.mean()
    return rows.sum() if reduction == "sum" else rows


class RowWeights:
    """The rows of logits: what each counts, and how their losses become one.

    Args:
        logits: One distribution per row along ``dim``, which is not negative.
        weight: A factor for each row; of the rows' shape, or ``(N,)``.
        mask: Which rows count at all; likewise.
        prefix: Of the names in errors.
    """

    def __init__(
        self,
        logits: Tensor,
        dim: int,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        prefix: str = "",
    ) -> None:
        self.dim, self.batch = dim, logits.shape[0]
        self.shape = [size for d, size in enumerate(logits.shape) if d != dim]
        self.weight = self._each(f"{prefix}weight", weight, logits, False)
        self.mask = self._each(f"{prefix}mask", mask, logits, True)

    def _each(self, name: str, x: Tensor | None, logits: Tensor, mask: bool) -> Tensor | None:
        if x is None:
            return None
        check.check_of_rows(name, x, self.shape, mask=mask)
        check.check_same_device(name, x, "logits", logits)
        return x.reshape(list(x.shape) + [1] * (len(self.shape) - x.ndim))

    def kept(self, of_rows: Tensor) -> Tensor:
        """Without what masked rows hold, whose NaN would reach the gradients; a shared target as it is."""
        rows = [size for d, size in enumerate(of_rows.shape) if d != self.dim]
        if self.mask is None or of_rows.ndim == 1 or rows != self.shape:
            return of_rows
        return of_rows.masked_fill(~self.mask.unsqueeze(self.dim), 0)

    def reduce(self, losses: Tensor, reduction: str, scale: float = 1.0) -> Tensor:
        """The losses of the rows as one; a mean is over those that the mask keeps, 0 if it keeps none."""
        scale = check.check_factor("scale", scale)
        if scale != 1:
            losses = losses * scale
        if self.mask is not None:
            losses = torch.where(self.mask, losses, 0.0)
        if self.weight is not None:
            weight = self.weight.to(losses.dtype)
            losses = losses * (weight if self.mask is None else torch.where(self.mask, weight, 0.0))
        if reduction == "batchmean":
            return losses.sum() / self.batch
        if reduction == "mean" and self.mask is not None:
            return losses.sum() / self.mask.expand(losses.shape).sum().clamp(min=1)
        return reduce(losses, reduction)


def alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider dtype of the two, each with a gradient in its own; others are not touched."""
    if a.dtype == b.dtype or not {a.dtype, b.dtype} <= set(check.FLOAT_DTYPES):
        return a, b
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)
