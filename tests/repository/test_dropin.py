"""Training scripts that were switched to this package learn what they learnt: examples/dropin."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks import dropin, switching
from examples.dropin.compare import FOLDER, NEEDS, STYLES, difference, missing, run

STEPS = 20


def test_every_script_has_its_twin_and_is_timed() -> None:
    assert len(STYLES) >= 13
    assert sorted(p.stem for p in (FOLDER / "switched").glob("*.py")) == STYLES
    assert set(NEEDS) <= set(STYLES)
    for style in STYLES:
        assert "gankernels" not in (FOLDER / "plain" / f"{style}.py").read_text()
        assert "gankernels" in (FOLDER / "switched" / f"{style}.py").read_text()
    assert {case.style for case in dropin.CASES} == set(STYLES)


@pytest.mark.parametrize("style", STYLES)
def test_the_switched_script_learns_the_same(style: str) -> None:
    """Losses of all steps and the weights after them.

    float64: to 4,096 ulp, the rounding of a sum over the largest tensor of the scripts. float32: at most
    twice as far from float64 as the plain script is, and an ulp for every loss that came before.
    """
    if package := missing(style):
        pytest.skip(f"{package} is not installed: pip install gankernels[dropin]")
    (exact, exact_weights), (ours, our_weights) = (
        run(version, style, torch.float64, STEPS) for version in ("plain", "switched")
    )
    assert len(exact.unique()) == len(exact) >= STEPS  # it does learn
    ulp = torch.finfo(torch.float64).eps
    tolerance = 4096 * ulp * float(exact.abs().max().clamp(min=1))
    torch.testing.assert_close(ours, exact, rtol=0, atol=tolerance)
    torch.testing.assert_close(our_weights, exact_weights, rtol=0, atol=4096 * ulp)

    plain, switched = (
        run(version, style, torch.float32, STEPS) for version in ("plain", "switched")
    )
    ulps = len(exact) * torch.finfo(torch.float32).eps
    for theirs, mine, truth in zip(plain, switched, (exact, exact_weights), strict=True):
        error, rival = (float((x - truth).norm()) for x in (mine, theirs))
        assert error <= 2 * rival + ulps * float(truth.norm())


def test_the_difference_of_two_scripts_is_that_of_their_losses() -> None:
    style = "softplus_r1"
    losses = [run(v, style, torch.float32)[0] for v in ("plain", "switched")]
    assert difference(style, torch.float32) == float((losses[0] - losses[1]).abs().max()) > 0


@pytest.mark.parametrize("case", dropin.CASES, ids=lambda c: c.style)
def test_every_timed_loss_is_the_script_s(case: dropin.Case) -> None:
    rows = dropin.rows_of(case, threads=1, rounds=1, seconds_per_block=0.0)
    assert rows["style"] == case.style
    assert min(rows["eager_us"], rows["ours_us"], rows["ratio"]) > 0


@pytest.mark.parametrize("style", STYLES)
def test_a_diff_has_every_line_that_changes(style: str) -> None:
    lines = switching.diff(style).splitlines()[1:-1]
    gone, come = (Counter(x[1:] for x in lines if x[0:1] == sign) for sign in "-+")
    before, after = (
        Counter((FOLDER / version / f"{style}.py").read_text().splitlines())
        for version in ("plain", "switched")
    )
    assert gone
    assert before - gone + come == after
