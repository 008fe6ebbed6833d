"""Samples scored against the data: damaged, of one class, drawn from a generator, of a mixture."""

import json

import pytest
import torch
from torch import nn

from gankernels.training import data, evaluation
from gankernels.training.data import ImageData
from gankernels.training.evaluation import (
    frechet_distance,
    scores,
)

# ---------------------------------------------------------------------------- evaluate_samples


def test_held_out_digits_score_better_than_damaged_and_those_than_noise(digits, network):
    images = digits.images.float() / 127.5 - 1
    real, good = images[:800], images[800:1600]
    noise = torch.rand(800, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    results = [
        evaluation.evaluate_samples(real, fake, network, classes=digits.classes, subsets=10)
        for fake in (good, 0.7 * good + 0.3 * noise, noise)
    ]
    for name, sign in (("frechet_distance", 1), ("kid_mean", 1), ("precision", -1)):
        scores = [sign * result[name] for result in results]
        assert scores == sorted(scores), (name, scores)
        assert scores[0] < scores[2]
    assert results[0]["classes_covered"] == 10
    assert results[0]["precision"] > 0.8 > 0.6 > results[2]["precision"]
    assert sum(results[0]["class_histogram"].values()) == 800
    assert (results[0]["n_real"], results[0]["n_fake"]) == (800, 800)
    assert json.loads(json.dumps(results[0])) == results[0]


def test_one_class_covers_one(digits, network):
    threes = digits.images[digits.labels == 3]
    result = evaluation.evaluate_samples(digits.images, threes, network, subsets=2)
    assert result["classes_covered"] == 1
    assert result["class_histogram"]["3"] > 0.95 * len(threes)
    assert result["precision"] > 0.9
    assert result["recall"] < 0.3


def test_uint8_and_any_value_range_are_the_same_images(digits, network):
    fake, real = digits.images[:60], digits.images[60:160]
    expected = evaluation.evaluate_samples(real, fake, network, subsets=2)
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        scaled = fake.float() / 255 * (high - low) + low
        found = evaluation.evaluate_samples(
            real, scaled, network, value_range=(low, high), subsets=2
        )
        assert found["frechet_distance"] == pytest.approx(expected["frechet_distance"], rel=1e-4)


class Flat(nn.Module):
    """A user's features: the pixels themselves, and no classes."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, images):
        self.modes.append((self.training, torch.is_grad_enabled(), len(images)))
        return images


def test_a_users_features_are_used_in_evaluation_mode_and_in_batches(digits):
    features = Flat()
    result = evaluation.evaluate_samples(
        digits.images[300:700], digits.images[:300], features, subsets=2
    )
    assert features.modes == [(False, False, n) for n in (256, 144, 256, 44)]
    assert features.training  # put back
    assert result["feature_network"] == "Flat"
    assert "class_histogram" not in result
    pixels = digits.images.flatten(1).double() / 127.5 - 1
    expected = frechet_distance(pixels[300:700], pixels[:300])
    assert result["frechet_distance"] == pytest.approx(expected, rel=1e-5)


def test_samples_of_another_shape_are_refused(digits, network):
    with pytest.raises(ValueError, match=r"fake_images must be \(N, 1, 8, 8\)"):
        evaluation.evaluate_samples(digits.images, torch.zeros(9, 3, 8, 8), network)
    with pytest.raises(ValueError, match="classes has 2 names, expected 10"):
        evaluation.evaluate_samples(
            digits.images[:9], digits.images[:9], network, classes=("a", "b"), subsets=1
        )


def test_a_class_counts_as_covered_from_a_tenth_of_its_share():
    logits = torch.eye(3)[[0] * 57 + [1] * 2 + [2] * 1]  # 60 samples: a share of 20, a tenth is 2
    found = scores._classes(logits, ("a", "b", "c"))
    assert found == {"class_histogram": {"a": 57, "b": 2, "c": 1}, "classes_covered": 2}


# -------------------------------------------------------------------------------- evaluate_run


def test_evaluate_run_samples_by_its_seed_and_trains_the_features(digits):
    sizes = []

    def generator(count):
        sizes.append(count)
        return digits.images[torch.randint(len(digits), (count,))].float() / 255

    before = torch.get_rng_state()
    run = {"value_range": (0.0, 1.0), "seed": 3, "feature_steps": 30}
    result = evaluation.evaluate_run(generator, digits, 600, "cpu", **run)
    assert sizes == [256, 256, 88]
    assert torch.equal(torch.get_rng_state(), before)
    assert (result["n_fake"], result["n_real"]) == (600, 1797)
    assert set(result["class_histogram"]) == set(digits.classes)
    assert result["precision"] == 1.0  # every sample is a real image
    assert "trained for 30 steps on digits" in result["feature_network"]
    torch.rand(7)
    assert evaluation.evaluate_run(generator, digits, 600, "cpu", **run) == result


def test_evaluate_run_uses_given_features_and_a_bounded_number_of_real_images(monkeypatch, digits):
    monkeypatch.setattr(scores, "_MAX_REAL", 400)
    unlabelled = ImageData(digits.images, name="pictures")
    result = evaluation.evaluate_run(
        lambda n: torch.zeros(n, 1, 8, 8), unlabelled, 20, "cpu",
        value_range=(-1, 1), seed=0, features=Flat(),
    )  # fmt: skip
    assert result["n_real"] == 400
    with pytest.raises(ValueError, match="seed must be an integer"):
        evaluation.evaluate_run(torch.zeros, unlabelled, 20, "cpu", value_range=(-1, 1), seed=2**63)
    with pytest.raises(ValueError, match="pictures has no labelled images"):
        evaluation.evaluate_run(
            lambda n: torch.zeros(n, 1, 8, 8), unlabelled, 20, "cpu", value_range=(-1, 1), seed=0
        )
    with pytest.raises(ValueError, match="n_samples must be at least 2"):
        evaluation.evaluate_run(
            lambda n: torch.zeros(n, 1, 8, 8), digits, 1, "cpu", value_range=(-1, 1), seed=0
        )


def test_evaluate_run_of_the_mixture_counts_modes():
    mixture = data.load("gaussians")
    result = evaluation.evaluate_run(
        lambda n: mixture.images[mixture.labels < 4][:n] + 0 * torch.rand(n, 1),
        mixture, 1000, "cpu", value_range=(-1, 1), seed=0,
    )  # fmt: skip
    assert result["modes_recovered"] == 4
    assert result["high_quality_share"] > 0.99
    with pytest.raises(ValueError, match="only 'gaussians' have centres"):
        evaluation.evaluate_run(
            lambda n: torch.zeros(n, 2), ImageData(torch.zeros(4, 2), name="mine"), 10, "cpu",
            value_range=(-1, 1), seed=0,
        )  # fmt: skip


# ------------------------------------------------------------------------------------- mixtures


def test_modes_need_a_hundredth_of_the_samples_within_four_sigma():
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    near, far = torch.tensor([0.1999, 0.0]), torch.tensor([0.2001, 0.0])  # sigma 0.05
    points = torch.cat(
        [
            (centres[0] + near).expand(10, 2),  # exactly a hundredth
            (centres[1] + near).expand(9, 2),  # one too few
            (centres[2] + far).expand(500, 2),  # many, but not near enough
            centres[3].expand(479, 2),
            torch.tensor([[float("nan"), 0.0], [float("inf"), 0.0]]),
        ]
    )
    found = evaluation.evaluate_mixture(points, centres, 0.05)
    assert found == {"modes_recovered": 2, "high_quality_share": pytest.approx(0.498)}
    wide = evaluation.evaluate_mixture(points, centres, 0.05, radius=4.1, minimum_share=0.009)
    assert wide["modes_recovered"] == 4


def test_real_points_recover_every_mode():
    points = data.load("gaussians").images[:10_000]
    found = evaluation.evaluate_mixture(points, data.gaussian_centres(), data.GAUSSIAN_SIGMA)
    assert found["modes_recovered"] == 9
    # exp(-8) = 3.4e-4 of a Gaussian in the plane lies beyond four sigma.
    assert found["high_quality_share"] == pytest.approx(1 - 3.4e-4, abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "sigma", "message"),
    [((4, 3), 0.1, "points"), ((0, 2), 0.1, "points"), ((4, 2), 0.0, "sigma")],
)
def test_mixture_refuses_what_it_cannot_measure(shape, sigma, message):
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate_mixture(torch.zeros(shape), torch.zeros(1, 2), sigma)
