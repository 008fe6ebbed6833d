"""A kernel on a problem that tells about it, and what both compilers' lists of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from tools.ptxsim.execution import Execution

BF16, FP32 = torch.bfloat16, torch.float32
NAMES = {BF16: "bf16", FP32: "fp32"}
MEAN = 1


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel on a problem.

    Attributes:
        operator: what calls it.
        family: which of its forms: small rows, rows in registers, streamed ...
        shape: of each batch of the problem for which the bound is stated.
        dtype: of the logits.
        rows: of logits in that problem, all batches together; elements where every element is a row.
        row_bytes: that must cross DRAM for a row: its logits, targets and gradients once.
        sample_rows: rows of the launch in the emulator, counted likewise: enough for every program to have some.
        launch: runs it for an architecture; gives the launch and the bytes that it had to move.
    """

    operator: str
    family: str
    shape: str
    dtype: str
    rows: int
    row_bytes: float
    sample_rows: int
    launch: Callable[[int], tuple[Execution, int]]


def bytes_of(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
