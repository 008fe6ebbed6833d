"""Training scripts that were switched to this package learn what they learnt: examples/dropin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.dropin.shared import Run

FOLDER = Path(__file__).parents[2] / "examples" / "dropin"
STYLES = sorted(p.stem for p in (FOLDER / "plain").glob("*.py"))
NEEDS = {"lightning_manual": "pytorch_lightning", "accelerate_loop": "accelerate"}
STEPS = 20


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run(version: str, style: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All losses of a script, and all trained weights, in float64."""
    with default_dtype(dtype):
        made: Run = import_module(f"examples.dropin.{version}.{style}").train(STEPS)
    weights = [p.detach().flatten() for n in made.networks for p in n.parameters()]
    return torch.tensor(made.losses, dtype=torch.float64), torch.cat(weights).double()


def test_every_script_has_its_twin() -> None:
    assert len(STYLES) >= 13
    assert sorted(p.stem for p in (FOLDER / "switched").glob("*.py")) == STYLES
    assert set(NEEDS) <= set(STYLES)
    for style in STYLES:
        assert "gankernels" not in (FOLDER / "plain" / f"{style}.py").read_text()
        assert "gankernels" in (FOLDER / "switched" / f"{style}.py").read_text()


@pytest.mark.parametrize("style", STYLES)
def test_the_switched_script_learns_the_same(style: str) -> None:
    """Losses of all steps and the weights after them.

    float64: to 4,096 ulp, the rounding of a sum over the largest tensor of the scripts. float32: at most
    twice as far from float64 as the plain script is, and an ulp for every loss that came before.
    """
    if style in NEEDS and find_spec(NEEDS[style]) is None:
        pytest.skip(f"{NEEDS[style]} is not installed: pip install gankernels[dropin]")
    (exact, exact_weights), (ours, our_weights) = (
        run(version, style, torch.float64) for version in ("plain", "switched")
    )
    assert len(exact.unique()) == len(exact) >= STEPS  # it does learn
    ulp = torch.finfo(torch.float64).eps
    tolerance = 4096 * ulp * float(exact.abs().max().clamp(min=1))
    torch.testing.assert_close(ours, exact, rtol=0, atol=tolerance)
    torch.testing.assert_close(our_weights, exact_weights, rtol=0, atol=4096 * ulp)

    plain, switched = (run(version, style, torch.float32) for version in ("plain", "switched"))
    ulps = len(exact) * torch.finfo(torch.float32).eps
    for theirs, mine, truth in zip(plain, switched, (exact, exact_weights), strict=True):
        error, rival = (float((x - truth).norm()) for x in (mine, theirs))
        assert error <= 2 * rival + ulps * float(truth.norm())
