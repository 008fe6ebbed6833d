"""Distances between features against closed forms, plain loops and known geometry."""

import pytest
import torch

from gankernels.training.evaluation import (
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------- Fréchet distance


def diagonal(means, deviations):
    """2 D points with exactly these means and deviations, and no covariance."""
    count = len(means)
    axes = torch.cat([torch.eye(count), -torch.eye(count)]).double()
    return means + axes * deviations * ((2 * count - 1) / 2) ** 0.5


@pytest.mark.parametrize("count", [1, 3, 20])
def test_frechet_distance_of_diagonal_gaussians(count):
    means, deviations = normal(2, count), normal(2, count, seed=1).abs()
    deviations[0, 0] = 0.0  # a feature that never changes: singular
    real, fake = (diagonal(m, d) for m, d in zip(means, deviations, strict=True))
    expected = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert frechet_distance(real, fake) == pytest.approx(float(expected), rel=1e-12)


def test_frechet_distance_of_general_gaussians():
    """Against the symmetric form of the definition, by eigenvalues of definite matrices."""
    real, fake = normal(400, 6) @ normal(6, 6, seed=1), normal(300, 6, seed=2) + 1
    first, second = torch.cov(real.T), torch.cov(fake.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).sqrt().sum()
    mean = (real.mean(0) - fake.mean(0)).square().sum()
    expected = float(mean + first.trace() + second.trace() - 2 * cross)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_keeps_its_digits_where_covariances_are_singular():
    """50 samples of 128 features: the product's eigenvalues give -4e-3 for a set and itself."""
    real = normal(50, 128) * 30
    assert frechet_distance(real, real) <= 1e-12 * real.square().sum() / 50
    shifted = torch.cat([real[25:], real[:25]]) + 2.0
    assert frechet_distance(real, shifted) == pytest.approx(128 * 4.0, rel=1e-10)
    assert frechet_distance(real, 3 * real) == pytest.approx(
        float((2 * real.mean(0)).square().sum() + 4 * torch.cov(real.T).trace()), rel=1e-10
    )


def test_frechet_distance_computes_in_float64():
    real = normal(100, 4).float() + 1e4
    fake = real + 1e-2  # float32 squares of 1e4 have no digit left for it
    expected = float((fake.double() - real.double()).mean(0).square().sum())
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("metric", ["frechet", "kid", "pr"])
@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(5, 3), r"real_features must be.*got \(1, 3\)"),
        (torch.zeros(5, 3), torch.zeros(5, 4), r"fake_features must be.*got \(5, 4\)"),
        (torch.zeros(5, 3), torch.full((5, 3), float("nan")), "fake_features hold values"),
    ],
)
def test_features_that_do_not_fit_are_refused(metric, real, fake, message):
    call = {
        "frechet": frechet_distance,
        "kid": lambda r, f: kernel_distance(r, f, seed=0),
        "pr": precision_recall,
    }[metric]
    with pytest.raises(ValueError, match=message):
        call(real, fake)


# ------------------------------------------------------------------------------------------ KID


def test_kernel_distance_is_the_unbiased_estimate():
    real, fake = normal(12, 5), normal(12, 5, seed=1) + 0.5

    def kernel(x, y):
        return float((x @ y / 5 + 1) ** 3)

    # One subset that is the whole set: the U-statistics, term by term.
    within = [
        sum(kernel(s[i], s[j]) for i in range(12) for j in range(12) if i != j) / (12 * 11)
        for s in (real, fake)
    ]
    across = sum(kernel(x, y) for x in real for y in fake) / 144
    mean, std = kernel_distance(real, fake, seed=0, subsets=3, subset_size=12)
    assert mean == pytest.approx(sum(within) - 2 * across, rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_seeded_and_leaves_the_global_generator():
    real, fake = normal(60, 5), normal(50, 5, seed=1)
    before = torch.get_rng_state()
    first = kernel_distance(real, fake, seed=1, subsets=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert kernel_distance(real, fake, seed=1, subsets=5) == first
    assert kernel_distance(real, fake, seed=2, subsets=5) != first
    assert first[1] > 0


@pytest.mark.parametrize("size", [1, 51])
def test_kernel_distance_refuses_subsets_it_cannot_draw(size):
    with pytest.raises(ValueError, match=rf"subset_size must lie in 2\.\.50, got {size}"):
        kernel_distance(normal(60, 5), normal(50, 5), seed=0, subset_size=size)


# -------------------------------------------------------------------------- precision and recall


def plain_share(points, centres, neighbours):
    """The definition in loops: in the ball of some centre."""

    def distance(x, y):
        return float((x - y).norm())

    radii = [sorted(distance(c, other) for other in centres)[neighbours] for c in centres]
    hits = [any(distance(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
    return sum(hits) / len(points)


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("block", [7, 1024])
def test_precision_and_recall_follow_the_definition(neighbours, block):
    real, fake = normal(40, 3), normal(30, 3, seed=1) * 1.5 + 0.5
    found = precision_recall(real, fake, neighbours=neighbours, block=block)
    expected = (plain_share(fake, real, neighbours), plain_share(real, fake, neighbours))
    assert found == pytest.approx(expected)
    assert 0 < expected[0] < expected[1] < 1  # wide samples: less precision than recall


def test_precision_and_recall_at_the_extremes():
    real = normal(50, 4) + 1000
    assert precision_recall(real, real.flip(0)) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    one_spot = real[:1] + 1e-3 * normal(50, 4, seed=1)
    precision, recall = precision_recall(real, one_spot)
    assert precision > 0.9
    assert recall <= 0.1
    copies = real[:1].expand(50, 4)
    assert precision_recall(copies, copies) == (1.0, 1.0)  # balls of radius zero hold their centre


def test_precision_and_recall_need_the_neighbour():
    with pytest.raises(ValueError, match=r"neighbours must lie in 1\.\.4, got 5"):
        precision_recall(normal(9, 2), normal(5, 2), neighbours=5)
