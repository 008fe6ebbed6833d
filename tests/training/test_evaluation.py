"""Distances against closed forms, plain loops and known geometry; the feature network on digits."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from gankernels.training import data, evaluation
from gankernels.training.data import ImageData
from gankernels.training.evaluation import (
    classifier,
    frechet_distance,
    kernel_distance,
    precision_recall,
    scores,
)
from gankernels.training.evaluation.features import standard


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


# ------------------------------------------------------------------------------ feature network


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def network(digits):
    return evaluation.train_feature_network(digits, seed=0, steps=80)


def test_feature_network_reports_the_accuracy_on_images_it_has_not_seen(digits, network):
    train, test = classifier._split(digits, 0.1, 0)
    assert len(test) == 179
    assert torch.cat([train, test]).sort().values.tolist() == list(range(1797))
    with torch.no_grad():
        _, logits = network(digits.images[test].float() / 127.5 - 1)
    accuracy = float((logits.argmax(1) == digits.labels[test]).double().mean())
    assert network.accuracy == pytest.approx(accuracy)
    assert accuracy > 0.95
    assert "classifier features" in network.description
    assert "FID" not in network.description
    assert f"{accuracy:.3f} on 179 held-out" in network.description


def test_feature_network_gives_features_and_logits_and_is_frozen(network):
    features, logits = network(torch.zeros(3, 1, 8, 8))
    assert (features.shape, logits.shape) == ((3, 128), (3, 10))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_feature_network_depends_on_its_seed_alone(digits):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = evaluation.train_feature_network(digits, seed=1, steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    second = evaluation.train_feature_network(digits, seed=1, steps=2)
    other = evaluation.train_feature_network(digits, seed=2, steps=2)
    weights = [net.classifier.weight for net in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 28, 32])
def test_feature_network_takes_every_shape(channels, size):
    images = torch.randint(0, 256, (20, channels, size, size), dtype=torch.uint8)
    labelled = ImageData(images, torch.arange(20) % 2, "noise", ("a", "b"))
    network = evaluation.train_feature_network(labelled, seed=0, steps=1, batch_size=4)
    assert network(torch.zeros(2, channels, size, size))[1].shape == (2, 2)


def test_feature_network_refuses_what_it_cannot_learn(digits):
    with pytest.raises(ValueError, match="no labelled images"):
        evaluation.train_feature_network(ImageData(digits.images), seed=0)
    with pytest.raises(ValueError, match=r"held_out=0\.0 keeps 0 of 1797"):
        evaluation.train_feature_network(digits, seed=0, held_out=0.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        evaluation.train_feature_network(digits, seed=0, steps=0)


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


# ------------------------------------------------------------------------------------ Inception


def test_inception_without_torch_fidelity_says_what_to_install(monkeypatch):
    from torchmetrics.utilities import imports

    monkeypatch.setattr(imports, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(
        ImportError, match=r"Inception features need torch-fidelity .*classifier features"
    ):
        evaluation.inception_features()


def test_inception_receives_colour_bytes(monkeypatch):
    from torchmetrics.image import fid
    from torchmetrics.utilities import imports

    seen = {}

    class Network(nn.Module):
        def __init__(self, name, features_list, weights):
            super().__init__()
            seen["arguments"] = (name, features_list, weights)

        def forward(self, images):
            seen["images"] = images
            return images.float().flatten(1)

    monkeypatch.setattr(imports, "_TORCH_FIDELITY_AVAILABLE", True)
    monkeypatch.setattr(fid, "NoTrainInceptionV3", Network)
    features = evaluation.inception_features("weights.pth")
    assert seen["arguments"] == ("inception-v3-compat", ["2048"], "weights.pth")
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    features(standard(levels))
    assert seen["images"].dtype == torch.uint8
    assert torch.equal(seen["images"], levels.expand(1, 3, 16, 16))
    assert "Inception" in features.description


def test_importing_evaluation_does_not_import_torchmetrics():
    code = (
        "import sys; import gankernels.training.evaluation\n"
        "assert 'torchmetrics' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
