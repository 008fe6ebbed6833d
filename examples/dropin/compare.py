"""Runs a script of either version: what it computed, to be compared.

python -m examples.dropin.compare dcgan_logits
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from examples.dropin.shared import Run

FOLDER = Path(__file__).parent
STYLES = sorted(p.stem for p in (FOLDER / "plain").glob("*.py"))
NEEDS = {"lightning_manual": "pytorch_lightning", "accelerate_loop": "accelerate"}


def missing(style: str) -> str | None:
    """The package that a script needs and that is not installed."""
    needed = NEEDS.get(style)
    return needed if needed is not None and find_spec(needed) is None else None


def run(version: str, style: str, dtype: torch.dtype, steps: int = 20) -> tuple[Tensor, Tensor]:
    """All losses of a script, and all trained weights, both in float64.

    Args:
        version: ``"plain"`` or ``"switched"``.
        style: One of :data:`STYLES`.
        dtype: What the script computes in.
        steps: Of its training loop.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        made: Run = import_module(f"examples.dropin.{version}.{style}").train(steps)
    finally:
        torch.set_default_dtype(before)
    weights = [p.detach().flatten() for n in made.networks for p in n.parameters()]
    return torch.tensor(made.losses, dtype=torch.float64), torch.cat(weights).double()


def difference(style: str, dtype: torch.dtype) -> float:
    """The largest difference between a loss of the plain and of the switched script."""
    plain, switched = (run(version, style, dtype)[0] for version in ("plain", "switched"))
    return float((plain - switched).abs().max())


if __name__ == "__main__":
    for dtype in (torch.float64, torch.float32):
        print(dtype, difference(sys.argv[1], dtype))
