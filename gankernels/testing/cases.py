"""What a call looks like: its case, and the arguments that are drawn for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]
"""The arguments of one call by name."""


@dataclass(frozen=True)
class Case:
    """A call, apart from its dtype, device and reduction. A row ignores what does not concern it.

    Args:
        shape: The shape of the logits (of the layer's input).
        dim: The class dimension.
        second_batch: Size of dim 0 of the second batch, where it differs.
        target: ``"shared"``: one distribution ``(K,)``; ``"keepdim"``: the same as ``(1, K, 1, ...)``;
            ``"rows"``: one per row.
        empty_bins: Whether about half of a target's bins are exactly zero.
        mass: The sum of a target; where an operator takes two, the second sums to its inverse.
        target_dtype: The target's dtype, if it is not that of the logits.
        options: Further keyword arguments, such as ``objective``.
    """

    shape: tuple[int, ...] = (6, 5)
    dim: int = 1
    second_batch: int | None = None
    target: str = "shared"
    empty_bins: bool = False
    mass: float = 1.0
    target_dtype: torch.dtype | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """Unique among a row's cases, and fit for ``pytest -k``."""
        parts = [f"{name}={value}" for name, value in self.options.items()]
        parts.append("x".join(map(str, self.shape)))
        plain = Case()
        if self.dim != plain.dim:
            parts.append(f"dim={self.dim}")
        if self.second_batch is not None:
            parts.append(f"second={self.second_batch}")
        if self.target != plain.target:
            parts.append(self.target)
        if self.empty_bins:
            parts.append("empty_bins")
        if self.mass != plain.mass:
            parts.append(f"mass={self.mass}")
        if self.target_dtype is not None:
            parts.append(str(self.target_dtype).removeprefix("torch."))
        return ",".join(parts)


class Draw:
    """A seeded source of tensors; the same numbers on every device, rounded to ``dtype``."""

    def __init__(
        self, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
    ) -> None:
        self.dtype = dtype
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 3.0) -> Tensor:
        x = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        return (scale * x).to(self.dtype).to(self.device)

    def distribution(self, case: Case, shape: tuple[int, ...], mass: float) -> Tensor:
        """A target for logits of ``shape``, as ``case`` wants it."""
        dim = case.dim % len(shape)
        if case.target == "rows":
            wanted = shape
        else:
            wanted = tuple(size if d == dim else 1 for d, size in enumerate(shape))
        weights = torch.randn(wanted, dtype=torch.float64, generator=self.generator).exp()
        if case.empty_bins:
            keep = torch.rand(wanted, dtype=torch.float64, generator=self.generator) < 0.5
            weights = weights * (keep | (weights == weights.amax(dim, keepdim=True)))
        target = mass * weights / weights.sum(dim, keepdim=True)
        if case.target == "shared":
            target = target.flatten()
        return target.to(case.target_dtype or self.dtype).to(self.device)


SHAPES = (
    Case((6, 5)),
    Case((4,), dim=0),
    Case((1, 7)),
    Case((5, 1)),
    Case((3, 17)),
    Case((3, 51)),
    Case((3, 64)),
    Case((2, 1025)),
    Case((33, 20)),
    Case((900, 20)),  # more than one unit of parallel work
    Case((17, 6), dim=0),
    Case((2, 5, 3)),
    Case((2, 3, 5), dim=-1),
    Case((3, 2, 5, 2), dim=2),
    Case((2, 20, 5, 4)),
)
"""For operators with a class dimension."""

TARGETS = tuple(
    replace(case, shape=shape)
    for shape in [(6, 20), (2, 6, 3)]
    for case in [
        Case(target="keepdim"),
        Case(target="rows"),
        Case(empty_bins=True),
        Case(target="rows", empty_bins=True),
        Case(mass=1.7),
        Case(target="keepdim", mass=0.4),
        Case(target="rows", mass=1.7, empty_bins=True),
        Case(target_dtype=torch.float16),
        Case(target_dtype=torch.float64, empty_bins=True),
        Case(target="rows", target_dtype=torch.float32, mass=0.4),
        Case(target="rows", target_dtype=torch.bfloat16),
    ]
)
"""The same for operators with targets."""

STATISTICS = (
    Case((6, 5)),
    Case((5, 1)),
    Case((33, 20), empty_bins=True),
    Case((900, 20), mass=1.7),
    Case((17, 6), dim=0),
    Case((2, 6, 3), target="rows", empty_bins=True),
    Case((2, 20, 5, 4), target="keepdim", target_dtype=torch.float64),
)
"""For operators on means and log-variances: what is not theirs is tested where it belongs."""

UNEVEN = (
    Case((6, 5), second_batch=9),
    Case((9, 20), second_batch=1),
    Case((2, 5, 3), second_batch=4, target="rows", mass=1.7),
)
"""The same for operators whose two batches may differ in size."""


FEW = (
    Case((6, 5)),
    Case((33, 20), target="rows", empty_bins=True, mass=1.7),
    Case((2, 5, 3)),
    Case((2, 1025), target="rows"),
    Case((3, 17, 2), dim=0, target="keepdim"),
)
"""One for each form of kernel, for settings that all of them take alike."""

PLAIN_SHAPES = (
    Case((7,)),
    Case(()),
    Case((1,)),
    Case((5, 1)),
    Case((33, 20)),
    Case((2, 1, 3, 4)),
    Case((20000,)),  # more than one unit of parallel work
)
"""For operators on tensors of any shape."""

SAMPLE_SHAPES = tuple(case for case in PLAIN_SHAPES if case.shape)
"""For operators with one entry per sample."""
