"""Anchors against the normal CDF, numpy's histogram, and the official index arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gankernels as gk
from gankernels import anchors

F64 = torch.float64


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def official_projection(anchor: Tensor, skew: float, low: float, high: float) -> Tensor:
    """One row, with the floor and ceil arithmetic of the official ``training/loss.py``."""
    K = anchor.shape[0]
    delta = (high - low) / (K - 1)
    out = torch.zeros(K, dtype=F64)
    for j, atom in enumerate(np.linspace(low, high, K)):
        b = (min(max(atom + skew, low), high) - low) / delta
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper and upper > 0:
            lower -= 1
        if lower == upper and lower < K - 1:
            upper += 1
        out[lower] += anchor[j] * (upper - b)
        out[upper] += anchor[j] * (b - lower)
    return out


# --- gaussian and uniform ------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [(1.0, 1.0), (-1.0, 1.0), (0.0, 0.3), (0.7, 5.0)])
def test_gaussian_is_the_difference_of_the_cdf(mean: float, std: float) -> None:
    edges = [-2 + 0.2 * k for k in range(21)]
    mass = [phi((b - mean) / std) - phi((a - mean) / std) for a, b in pairwise(edges)]
    expected = torch.tensor(mass, dtype=F64) / sum(mass)
    got = anchors.gaussian(20, mean, std, -2, 2, dtype=F64)
    # The plain difference of the CDF loses the digits of the far upper tail, not ours.
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-15)


def test_gaussian_has_full_support_and_mirrors() -> None:
    real, fake = anchors.gaussian(51, 1, 0.25, -2, 2), anchors.gaussian(51, -1, 0.25, -2, 2)
    assert real.dtype == torch.float32
    assert real.min() > 0  # the far tail is 12 standard deviations away
    assert real.sum().item() == pytest.approx(1)
    torch.testing.assert_close(real, fake.flip(0))


@pytest.mark.parametrize("distance", [9.0, 100.0])
def test_gaussian_far_outside_the_range_is_still_a_distribution(distance: float) -> None:
    # A plain difference of the CDF is 0 beyond 8.3 standard deviations on the upper side.
    above = anchors.gaussian(4, distance, 1, -2, 0, dtype=F64)
    below = anchors.gaussian(4, -distance, 1, 0, 2, dtype=F64)
    torch.testing.assert_close(above, below.flip(0), rtol=1e-10, atol=0)
    assert above.argmax() == 3
    assert above.min() > 0
    assert above.sum().item() == pytest.approx(1)


def test_gaussian_is_the_limit_of_the_articles_histogram() -> None:
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=F64) + 1
    limit = anchors.gaussian(20, 1, 1, -2, 2, dtype=F64)
    difference = (anchors.histogram(draws, 20, -2, 2, dtype=F64) - limit).abs()
    # Five standard deviations of a binomial share; 84 % of the draws fall in the range.
    assert bool((difference < 5 * (limit / (0.84 * 400_000)).sqrt()).all())


def test_uniform() -> None:
    assert anchors.uniform(4, dtype=F64).tolist() == [0.25] * 4
    assert anchors.uniform(1).tolist() == [1.0]


# --- histograms ----------------------------------------------------------------------------------


@given(
    samples=st.lists(st.floats(-3, 3).map(lambda x: round(x, 2)), min_size=2, max_size=60),
    K=st.integers(1, 51),
    given_range=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_histogram_counts_as_numpy_does(samples: list[float], K: int, given_range: bool) -> None:
    low, high = (-2.0, 2.0) if given_range else (min(samples), max(samples))
    counts = np.histogram(samples, K, (low, high))[0]
    if low == high or counts.sum() == 0:
        return
    x = torch.tensor(samples, dtype=F64)
    got = anchors.histogram(x, K, *((low, high) if given_range else ()), dtype=F64)
    assert got.tolist() == pytest.approx((counts / counts.sum()).tolist(), abs=1e-15)


def test_the_articles_anchors_are_seeded_histograms_over_plus_minus_two() -> None:
    real, fake = anchors.article(20, seed=5)
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn(1000, generator=generator, dtype=F64).numpy() + 1
    counts = np.histogram(draws, 20, (-2, 2))[0]
    np.testing.assert_allclose(real.numpy(), counts / counts.sum(), rtol=1e-6)
    again = anchors.article(20, generator=torch.Generator().manual_seed(5))
    assert torch.equal(real, again[0])
    assert torch.equal(fake, again[1])
    # N(+1, 1) and N(-1, 1) cut to (-2, 2): mean +-0.725, five standard errors of 840 draws
    centres = torch.linspace(-1.9, 1.9, 20)
    assert (real * centres).sum().item() == pytest.approx(0.725, abs=0.15)
    assert (fake * centres).sum().item() == pytest.approx(-0.725, abs=0.15)


def test_the_official_anchors_fill_their_own_range() -> None:
    real, fake = anchors.official(51, seed=5)
    for anchor in (real, fake):
        assert anchor.shape == (51,)
        assert anchor.sum().item() == pytest.approx(1)
        # the smallest and the largest draw are the ends of the range
        assert anchor[0] > 0
        assert anchor[-1] > 0
    assert real.max() < 0.05  # uniform: 1/51 each, sd 0.0044
    assert fake.max() > 0.05  # normal
    assert (fake == 0).any()


@pytest.mark.parametrize("draw", [anchors.article, anchors.official])
def test_draws_use_the_global_generator_unless_told(draw: Callable[..., tuple]) -> None:
    torch.manual_seed(0)
    first, second = draw(), draw()
    torch.manual_seed(0)
    assert torch.equal(first[0], draw()[0])
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(draw(seed=1)[0], draw(seed=2)[0])
    assert draw(seed=1, dtype=torch.float16)[1].dtype == torch.float16
    assert draw(seed=1, device="meta")[0].device.type == "meta"


# --- skewing and smoothing -----------------------------------------------------------------------


@given(
    K=st.integers(2, 51),
    skew=st.floats(-25, 25),
    seed=st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_skewed_is_the_official_projection(K: int, skew: float, seed: int) -> None:
    anchor = torch.rand(K, dtype=F64, generator=torch.Generator().manual_seed(seed))
    got = anchors.skewed(anchor, skew, -10, 10)
    torch.testing.assert_close(
        got, official_projection(anchor, skew, -10, 10), rtol=1e-12, atol=1e-12
    )
    assert got.sum().item() == pytest.approx(anchor.sum().item())


def test_skewed_by_hand() -> None:
    anchor = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)  # atoms at 0, 1, 2, 3

    def skew(by: float) -> list[float]:
        return anchors.skewed(anchor, by, 0, 3).tolist()

    assert skew(0.0) == anchor.tolist()  # exactly
    assert skew(1.0) == pytest.approx([0, 0.1, 0.2, 0.7])
    assert skew(-1.0) == pytest.approx([0.3, 0.3, 0.4, 0])
    assert skew(0.25) == pytest.approx([0.075, 0.175, 0.275, 0.475])
    assert skew(9.0) == pytest.approx([0, 0, 0, 1])
    assert skew(-9.0) == pytest.approx([1, 0, 0, 0])


def test_skewed_is_linear_and_works_on_rows() -> None:
    rows = torch.rand(3, 6, dtype=F64, requires_grad=True)
    got = anchors.skewed(rows, 0.7, -1, 1)
    one_by_one = torch.stack([anchors.skewed(row, 0.7, -1, 1) for row in rows])
    torch.testing.assert_close(got, one_by_one)
    (gradient,) = torch.autograd.grad(got[:, 5].sum(), rows)
    torch.testing.assert_close(gradient[0], anchors.skew_matrix(6, 0.7, -1, 1, dtype=F64)[:, 5])


def test_smoothed() -> None:
    rows = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    torch.testing.assert_close(anchors.smoothed(rows, 0.2), torch.tensor([[0.1, 0.9], [0.5, 0.5]]))
    torch.testing.assert_close(anchors.smoothed(torch.eye(4)[:2], 0.4).sum(1), torch.ones(2))
    assert torch.equal(anchors.smoothed(rows, 0), rows)


def test_empty_bins_let_logits_drift_and_full_support_stops_them() -> None:
    """Why the module offers full support: an empty bin pushes its logit down for ever."""
    empty = torch.tensor([0.0, 0.5, 0.5], dtype=F64)

    def gradient_at_the_optimum(anchor: Tensor, depth: float) -> float:
        logits = torch.tensor([[-depth, 0.0, 0.0]], dtype=F64, requires_grad=True)
        (g,) = torch.autograd.grad(gk.softmax_kl(logits, anchor), logits)
        return g[0, 0].item()

    assert gradient_at_the_optimum(empty, 5) > gradient_at_the_optimum(empty, 15) > 0
    smooth = anchors.smoothed(empty, 0.03)  # 0.01 in the first bin
    assert gradient_at_the_optimum(smooth, 3) > 0 > gradient_at_the_optimum(smooth, 15)


# --- errors --------------------------------------------------------------------------------------

BAD = [
    (lambda: anchors.gaussian(0, 0, 1, -1, 1), "K must be at least 1, got 0"),
    (lambda: anchors.gaussian(5, 0, 0, -1, 1), "std must be finite and positive, got 0"),
    (lambda: anchors.gaussian(5, 0, 1, 1, 1), "low must be below high, both finite, got 1 and 1"),
    (
        lambda: anchors.gaussian(5, 0, 1, -math.inf, 1),
        "low must be below high, both finite, got -inf and 1",
    ),
    (lambda: anchors.uniform(0), "K must be at least 1, got 0"),
    (lambda: anchors.histogram(torch.zeros(0), 4), "samples must not be empty, got 0 of them"),
    (
        lambda: anchors.histogram(torch.tensor([0.0, math.nan]), 4),
        "samples must be finite, got NaN or inf among them",
    ),
    (
        lambda: anchors.histogram(torch.zeros(3), 4),
        "low must be below high, both finite, got 0.0 and 0.0",
    ),
    (
        lambda: anchors.histogram(torch.zeros(3), 4, 1.0, 2.0),
        "samples must fall in [1.0, 2.0], got none of 3 there",
    ),
    (
        lambda: anchors.article(generator=torch.Generator(), seed=3),
        "generator must be None when seed is given, got both (seed=3)",
    ),
    (
        lambda: anchors.skewed(torch.ones(1), 0.5, -1, 1),
        "K must be at least 2, got 1",
    ),
    (
        lambda: anchors.skewed(torch.ones(3), math.nan, -1, 1),
        "skew must be a number, got nan",
    ),
    (lambda: anchors.smoothed(torch.ones(3), 1.5), "eps must be in [0, 1], got 1.5"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ([0.5, -0.25], "real_anchor must not be negative, got a minimum of -0.25"),
        ([0.5, math.nan], "real_anchor must be finite, got values in [nan, nan]"),
        ([0.5, math.inf], "real_anchor must be finite, got values in [0.5, inf]"),
        ([0.0, 0.0], "real_anchor must have a positive entry, got 0 everywhere"),
    ],
)
def test_validate_refuses_bad_values(anchor: list[float], message: str) -> None:
    fake = torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        gk.RealnessLoss(torch.tensor(anchor), fake)
    assert str(caught.value) == message
    gk.RealnessLoss(torch.tensor(anchor), fake, validate=False)
