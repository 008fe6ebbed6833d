"""What the compiled layers counted since the process started."""

from __future__ import annotations

from typing import NamedTuple

from gankernels import _backend


class GradientScaleCounts(NamedTuple):
    """Gradients that ``gradient_reversal`` and ``gradient_scale`` scaled, by path."""

    in_place: int
    allocated: int


def gradient_scale_counts() -> GradientScaleCounts:
    """How many gradients were scaled in place, and how many into new memory.

    Raises:
        RuntimeError: the extension is not loaded; the reference always allocates and does not count.

    Example:
        >>> import torch, gankernels as gk
        >>> from gankernels.testing import gradient_scale_counts
        >>> before = gradient_scale_counts()
        >>> x = torch.ones(2, requires_grad=True)
        >>> gradient = torch.ones(2)
        >>> gk.gradient_reversal(x).backward(gradient)  # `gradient` is still ours: it must not change
        >>> gradient_scale_counts().allocated - before.allocated
        1
    """
    if _backend.EXTENSION is None:
        raise RuntimeError(f"gradient_scale_counts needs the extension: {_backend.REASON}")
    return GradientScaleCounts(*_backend.EXTENSION.gradient_scale_counts())
