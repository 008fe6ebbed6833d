"""Problems that between them launch every kernel instance of csrc/cuda."""

from __future__ import annotations

import dataclasses

import torch

from gankernels._scalar import SCALAR_LOSSES
from gankernels.testing import OPERATORS, Arguments, Case, Operator

ROWS = {operator.name: operator for operator in OPERATORS}

# Shape of the logits by the instance that it needs. The widest rows in registers are half as wide for float64.
LAYOUTS: dict[str, tuple[int, ...]] = {
    "few classes": (37, 5),
    "odd classes": (5, 201),
    "aligned": (19, 64),
    "two warps a row": (5, 300),
    "one aligned row": (1, 1016),
    "side by side": (3, 20, 5, 3),
    "few side by side": (3, 7, 11),
    "two warps a row side by side": (2, 30, 7),
    "side by side, streamed": (1, 163, 7),
}
LONG_LAYOUTS: dict[str, tuple[int, ...]] = {
    "long aligned": (2, 4608),
    "long odd": (2, 4099),
    "streamed": (1, 8201),
    "packed": (2, 8200),
    "longest packed": (1, 16400),
    "aligned, streamed": (2, 32776),
    "split": (1, 24584),
}

# Operator and options by what stands before the || of its divergence.
DIVERGENCES: dict[str, tuple[str, Case]] = {
    "anchors": ("realness_d_loss", Case(empty_bins=True, mass=1.7)),
    "anchor by rows": ("realness_d_loss", Case(target="rows", empty_bins=True)),
    "two anchors": ("realness_g_loss", Case(options={"objective": 3})),
    "target": ("softmax_kl", Case(target="rows")),
    "softmax": ("softmax_kl_logits", Case()),
    "softmax and anchor": ("realness_g_loss", Case(empty_bins=True, options={"objective": 2})),
    "mixture": ("js_divergence", Case(options={"beta": 0.1, "temperature": 2.0, "scale": 0.6})),
}

ELEMENTS: dict[str, tuple[int, ...]] = {"aligned": (32, 16), "odd": (1037,)}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A call of an operator, but for the dtype; ``what`` it is differentiated in besides its logits."""

    name: str
    case: Case
    what: str = ""
    reduction: str | None = None

    def draw(self, dtype: torch.dtype) -> tuple[Operator, Arguments, tuple[str, ...]]:
        """The operator, its arguments, and those that it is differentiated in."""
        operator = ROWS[self.name]
        arguments = operator.draw(self.case, dtype, reduction=self.reduction)
        if self.name in SCALAR_LOSSES and self.case.shape[-1] % 2:
            arguments |= {n: unaligned(arguments[n]) for n in operator.inputs(arguments)}
        return operator, arguments, differentiated(operator, self.what, arguments)


def unaligned(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, an element off a multiple of 16 bytes."""
    memory = torch.empty(x.numel() + 1, dtype=x.dtype)
    return memory[1:].view(x.shape).copy_(x)


def differentiated(operator: Operator, what: str, arguments: dict[str, object]) -> tuple[str, ...]:
    """The logits, and where the divergence is from a target that too."""
    logits = operator.inputs(arguments)
    return (*logits, "target") if what == "target" else logits


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
