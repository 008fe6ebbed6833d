"""What the losses of distributions ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from gankernels import _checks


def differ_beyond_the_batch(reduction: str, real: Tensor, fake: Tensor) -> bool:
    """Whether a batch's share of a mean over dimension 0 is another for the two batches."""
    return reduction == "batchmean" and real.shape[1:] != fake.shape[1:]


def those_present(
    real_logits: Tensor | None, fake_logits: Tensor, real_anchor: Tensor | None, fake_anchor: Tensor
) -> tuple[Tensor, ...]:
    """The arguments of a generator loss that may not be None, and those of the others that are not."""
    optional = tuple(x for x in (real_logits, real_anchor) if x is not None)
    return (fake_logits, fake_anchor, *optional)


def validate_anchors(real_anchor: Tensor | None, fake_anchor: Tensor) -> None:
    if real_anchor is not None:
        _checks.check_anchor_values("real_anchor", real_anchor)
    _checks.check_anchor_values("fake_anchor", fake_anchor)
