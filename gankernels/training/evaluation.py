"""How good the samples are: distances between feature distributions, coverage, modes of a mixture.

Features come from a small classifier trained here on the same labelled data unless the caller
brings a network. Such distances rank runs on one data set with one feature network; they are not
FID, which is the name for Inception features only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankernels.training.data import GAUSSIAN_SIGMA, ImageData
from gankernels.training.extras import require
from gankernels.training.modes import evaluation_mode, plain_defaults, same_randomness

__all__ = [
    "FeatureNetwork",
    "evaluate_mixture",
    "evaluate_run",
    "evaluate_samples",
    "frechet_distance",
    "inception_features",
    "kernel_distance",
    "precision_recall",
    "train_feature_network",
]

_BATCH = 256  # images through a network at a time
_MAX_REAL = 10_000  # real images at most: precision and recall take all pairs


class FeatureNetwork(nn.Module):
    """A small convolutional classifier whose last hidden layer gives the features.

    Args:
        channels: Channels of the images.
        num_classes: Classes of the labels.
        num_features: Width of the last hidden layer.
        stride: Of the first convolution; two more halve the sides again.

    Shape:
        Images ``(N, channels, H, W)`` in -1..1, at least 4x4; features ``(N, num_features)``,
        logits ``(N, num_classes)``.
    """

    def __init__(
        self, channels: int, num_classes: int, num_features: int = 128, stride: int = 1
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.accuracy = float("nan")
        self.description = "classifier features (untrained)"
        self.hidden = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=stride, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(512, num_features),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the logits of the classes."""
        features = self.hidden(images)
        return features, self.classifier(features)


@plain_defaults()
def train_feature_network(
    image_data: ImageData,
    *,
    seed: int,
    steps: int = 500,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    held_out: float = 0.1,
    device: torch.device | str = "cpu",
) -> FeatureNetwork:
    """Train a classifier on the labelled data and measure it on images it has not seen.

    The global random state is left as it was found.

    Args:
        image_data: Labelled images.
        seed: Seed of the split, the weights and the order.
        steps: Adam steps; the learning rate falls to zero linearly.
        batch_size: Images of a step, drawn with replacement.
        learning_rate: Adam's at the start.
        held_out: Share of the images kept for measuring the accuracy.
        device: Where to train.

    Returns:
        The network in evaluation mode, its parameters frozen, with ``accuracy`` (held out) and a
        one-line ``description``.

    Raises:
        ValueError: The data have no labels or are not images, or ``steps`` or ``held_out`` leaves
            nothing to train or to measure on.

    Example:
        >>> from gankernels.training import data
        >>> network = train_feature_network(data.load("digits"), seed=0, steps=100)
        >>> network.accuracy > 0.9
        True
    """
    train, test = _split(image_data, held_out, seed)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    with _seeded(seed, device):
        channels, _, width = image_data.sample_shape
        network = FeatureNetwork(channels, len(image_data.classes), stride=1 + (width >= 16))
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(train), (batch_size,), generator=generator)
        images, labels = _pick(image_data, train[rows], device)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(network(images)[1], labels))
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)
    network.accuracy = _accuracy(network, image_data, test, device)
    network.description = (
        f"classifier features: {network.num_features} units of a small CNN trained for {steps} "
        f"steps on {image_data.name}, accuracy {network.accuracy:.3f} on {len(test):,} held-out "
        "images"
    )
    return network


def _split(image_data: ImageData, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    if image_data.labels is None or image_data.images.dim() != 4:
        raise ValueError(
            f"{image_data.name} has no labelled images to train a classifier on; "
            "evaluate_run takes another feature network as features"
        )
    tests = int(len(image_data) * held_out)
    if not 1 <= tests <= len(image_data) - 2:
        raise ValueError(
            f"held_out={held_out} keeps {tests} of {len(image_data)} images; expected at least 1, "
            "and 2 left to train on"
        )
    order = torch.randperm(
        len(image_data), generator=torch.Generator().manual_seed(seed), device="cpu"
    )
    return order[tests:], order[:tests]


def _pick(image_data: ImageData, rows: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    assert image_data.labels is not None
    images = _standard(image_data.images[rows.to(image_data.images.device)].to(device))
    return images, image_data.labels[rows.to(image_data.labels.device)].to(device)


def _standard(images: Tensor, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """Bring ``uint8`` images, or floating-point ones in ``value_range``, to float32 in -1..1."""
    low, high = (0.0, 255.0) if images.dtype == torch.uint8 else value_range
    return images.float().sub(low).mul(2 / (high - low)).sub(1).clamp(-1, 1)


@torch.no_grad()
def _accuracy(
    network: FeatureNetwork, image_data: ImageData, rows: Tensor, device: torch.device | str
) -> float:
    correct = 0
    for part in torch.split(rows, _BATCH):
        images, labels = _pick(image_data, part, device)
        correct += int((network(images)[1].argmax(1) == labels).sum())
    return correct / len(rows)


@contextmanager
def _seeded(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed the global generators and put their states back afterwards."""
    with same_randomness(torch.device(device)):
        torch.manual_seed(seed)
        yield


# ------------------------------------------------------------------- distances between features


def frechet_distance(real_features: Tensor, fake_features: Tensor) -> float:
    r"""Fréchet distance between Gaussians fitted to two sets of features.

    .. math:: |\mu_r - \mu_f|^2 + \operatorname{tr}(\Sigma_r + \Sigma_f - 2(\Sigma_r\Sigma_f)^{1/2})

    With :math:`\Sigma = R^\top R` from a QR decomposition of the centred features, the last trace
    is the sum of the singular values of :math:`R_r R_f^\top`. Forming no covariance and taking no
    root of an eigenvalue keeps float64 precision where a covariance is singular, as it always is
    with fewer samples than features; torchmetrics' eigenvalues lose half of the digits there.

    Args:
        real_features: ``(N, D)``.
        fake_features: ``(M, D)``.

    Returns:
        The squared distance, computed in float64; at least 0.

    Raises:
        ValueError: A shape is wrong, a set has fewer than two rows, or a value is not finite.

    Source:
        Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium", where the features are Inception's.

    Example:
        >>> round(frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]])), 9)
        9.0
    """
    real, fake = _check_features(real_features, fake_features)
    real_mean, fake_mean = real.mean(0), fake.mean(0)
    real_root = (real - real_mean) / (len(real) - 1) ** 0.5
    fake_root = (fake - fake_mean) / (len(fake) - 1) ** 0.5
    traces = real_root.square().sum() + fake_root.square().sum()
    _, real_r = torch.linalg.qr(real_root, mode="r")
    _, fake_r = torch.linalg.qr(fake_root, mode="r")
    cross = torch.linalg.svdvals(real_r @ fake_r.T).sum()
    return max(0.0, float((real_mean - fake_mean).square().sum() + traces - 2 * cross))


def _check_features(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    for name, value in (("real_features", real), ("fake_features", fake)):
        if value.dim() != 2 or len(value) < 2 or value.shape[1] != real.shape[1]:
            raise ValueError(
                f"{name} must be (at least 2, the same D), got {tuple(value.shape)} beside "
                f"{tuple(real.shape)}"
            )
        if not value.isfinite().all():
            raise ValueError(f"{name} hold values that are not finite")
    return real.detach().double(), fake.detach().double()


@plain_defaults()
def kernel_distance(
    real_features: Tensor,
    fake_features: Tensor,
    *,
    seed: int,
    subsets: int = 100,
    subset_size: int | None = None,
) -> tuple[float, float]:
    """Squared maximum mean discrepancy with the cubic kernel (KID), over random subsets.

    Args:
        real_features: ``(N, D)``.
        fake_features: ``(M, D)``.
        seed: Seed of the subsets.
        subsets: How many.
        subset_size: Rows of each; by default half of the smaller set, at most 1,000.

    Returns:
        Mean and standard deviation over the subsets; the estimate is unbiased and may be below 0.

    Raises:
        ValueError: As :func:`frechet_distance`, or a subset is smaller than 2 or larger than a set.

    Source:
        Bińkowski et al. 2018, "Demystifying MMD GANs"; computed by torchmetrics in float64.
    """
    kid = require("torchmetrics.image.kid")

    real, fake = _check_features(real_features, fake_features)
    smaller = min(len(real), len(fake))
    size = min(1000, max(2, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise ValueError(f"subset_size must lie in 2..{smaller}, got {size}")
    with warnings.catch_warnings():  # it says that it keeps the features, which exist already
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = kid.KernelInceptionDistance(nn.Identity(), subsets=subsets, subset_size=size)
    metric.set_dtype(torch.float64).to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with _seeded(seed, "cpu"):  # the metric draws its subsets from the global CPU generator
        mean, std = metric.compute()
    return float(mean), float(std)


def precision_recall(
    real_features: Tensor, fake_features: Tensor, *, neighbours: int = 3, block: int = 1024
) -> tuple[float, float]:
    """Improved precision and recall: the share of one set inside the k-nearest balls of the other.

    Each point of a set carries a ball that reaches to its k-th nearest neighbour in that set;
    precision is the share of fake points inside some real ball, recall the share of real points
    inside some fake ball.

    Args:
        real_features: ``(N, D)``.
        fake_features: ``(M, D)``.
        neighbours: k.
        block: Rows whose distances are held at a time.

    Returns:
        Precision and recall, each in 0..1.

    Raises:
        ValueError: As :func:`frechet_distance`, or a set has no k-th neighbour.

    Source:
        Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
        Models".
    """
    real, fake = _check_features(real_features, fake_features)
    if not 1 <= neighbours < min(len(real), len(fake)):
        raise ValueError(
            f"neighbours must lie in 1..{min(len(real), len(fake)) - 1}, got {neighbours}"
        )
    middle = real.mean(0)  # small norms keep the rounding of squared distances small
    real, fake = real - middle, fake - middle
    precision = _share_inside(fake, real, _radii(real, neighbours, block), block)
    recall = _share_inside(real, fake, _radii(fake, neighbours, block), block)
    return precision, recall


def _squared_distances(rows: Tensor, points: Tensor) -> Tensor:
    """|x - y|^2 = |x|^2 - 2 x.y + |y|^2: one matrix product, much faster than differences."""
    norms = rows.square().sum(1, keepdim=True) + points.square().sum(1)
    return torch.addmm(norms, rows, points.T, alpha=-2)


def _radii(points: Tensor, neighbours: int, block: int) -> Tensor:
    """Squared distance of each point to its k-th nearest neighbour, rounding allowed for."""
    # The nearest neighbour of all is the point itself.
    parts = [
        _squared_distances(rows, points).kthvalue(neighbours + 1, dim=1).values
        for rows in torch.split(points, block)
    ]
    # A sum of D products rounds by at most D ulps of the largest norm, on either side of "inside".
    rounding = 8 * points.shape[1] * torch.finfo(points.dtype).eps
    return torch.cat(parts) + rounding * points.square().sum(1).max()


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor, block: int) -> float:
    parts = torch.split(points, block)
    inside = sum(int((_squared_distances(rows, centres) <= radii).any(1).sum()) for rows in parts)
    return inside / len(points)


# ---------------------------------------------------------------------------- Inception features


class _Inception(nn.Module):
    description = "Inception v3 features (2048, torch-fidelity's weights)"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        features: Tensor = self.network(pixels.expand(-1, 3, -1, -1))
        return features


def inception_features(weights: str | None = None) -> nn.Module:
    """Return Inception v3 as a feature network; with it the Fréchet distance is the FID.

    Args:
        weights: File of the weights; None lets torch-fidelity find or download them.

    Returns:
        A module from images in -1..1 to 2048 features.

    Raises:
        ImportError: torch-fidelity is not installed.
    """
    fid = require("torchmetrics.image.fid")
    if not require("torchmetrics.utilities.imports")._TORCH_FIDELITY_AVAILABLE:
        raise ImportError(
            "Inception features need torch-fidelity and its weights: pip install torch-fidelity; "
            "without them, use the classifier features"
        )
    network = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    return _Inception(network).eval()


# ------------------------------------------------------------------------------------ evaluations


@torch.no_grad()
def _extract(
    network: nn.Module,
    images: Tensor,
    value_range: tuple[float, float],
    device: torch.device | str,
) -> tuple[Tensor, Tensor | None]:
    """Run images through a feature network in evaluation mode; logits are None if it has none."""
    features: list[Tensor] = []
    logits: list[Tensor] = []
    with evaluation_mode(network.to(device)):
        for part in torch.split(images, _BATCH):
            found = network(_standard(part.to(device), value_range))
            if isinstance(found, tuple):
                logits.append(found[1].cpu())
                found = found[0]
            features.append(found.flatten(1).cpu())
    return torch.cat(features), torch.cat(logits) if logits else None


def evaluate_samples(
    real_images: Tensor,
    fake_images: Tensor,
    features: nn.Module,
    *,
    value_range: tuple[float, float] = (-1.0, 1.0),
    classes: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
    seed: int = 0,
    subsets: int = 100,
    neighbours: int = 3,
) -> dict[str, Any]:
    """Compare real with generated images in the features of a network.

    Args:
        real_images: ``(N, C, H, W)``: ``uint8``, or floating point in ``value_range``.
        fake_images: ``(M, C, H, W)``, likewise.
        features: Module from float32 images in -1..1 to features, or to a pair of features and
            class logits. Its attribute ``description``, where it has one, is put into the result.
        value_range: Values of black and white in floating-point images.
        classes: Names of the classes that the logits stand for; by default their numbers.
        device: Where to run the network.
        seed: Seed of KID's subsets.
        subsets: How many subsets KID takes.
        neighbours: k of precision and recall.

    Returns:
        What JSON can hold: ``frechet_distance``, ``kid_mean``, ``kid_std``, ``precision``,
        ``recall``, ``feature_network``, ``n_real``, ``n_fake``; with logits also
        ``class_histogram`` (samples by class) and ``classes_covered`` (classes with at least a
        tenth of an equal share of the samples).

    Raises:
        ValueError: The shapes do not fit, there are too few images, or features are not finite.
    """
    if fake_images.dim() != 4 or fake_images.shape[1:] != real_images.shape[1:]:
        raise ValueError(
            f"fake_images must be (N, {', '.join(map(str, real_images.shape[1:]))}) like the real "
            f"ones, got {tuple(fake_images.shape)}"
        )
    real, _ = _extract(features, real_images, value_range, device)
    fake, logits = _extract(features, fake_images, value_range, device)
    kid_mean, kid_std = kernel_distance(real, fake, seed=seed, subsets=subsets)
    precision, recall = precision_recall(real, fake, neighbours=neighbours)
    result: dict[str, Any] = {
        "frechet_distance": frechet_distance(real, fake),
        "kid_mean": kid_mean,
        "kid_std": kid_std,
        "precision": precision,
        "recall": recall,
        "feature_network": getattr(features, "description", type(features).__name__),
        "n_real": len(real),
        "n_fake": len(fake),
    }
    if logits is not None:
        result.update(_classes(logits, classes))
    return result


def _classes(logits: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    count = logits.shape[1]
    names = names or tuple(str(number) for number in range(count))
    if len(names) != count:
        raise ValueError(f"classes has {len(names)} names, expected {count} as there are logits")
    histogram = logits.argmax(1).bincount(minlength=count).tolist()
    needed = max(1.0, len(logits) / count / 10)
    return {
        "class_histogram": dict(zip(names, histogram, strict=True)),
        "classes_covered": sum(samples >= needed for samples in histogram),
    }


def evaluate_run(
    generator_fn: Callable[[int], Tensor],
    image_data: ImageData,
    n_samples: int,
    device: torch.device | str,
    *,
    value_range: tuple[float, float],
    seed: int,
    features: nn.Module | None = None,
    feature_steps: int = 500,
) -> dict[str, Any]:
    """Draw samples from a generator and compare them with the data it was trained on.

    Sampling is seeded and leaves the global random state as it was found.

    Args:
        generator_fn: Called with a number n, returns n samples: images in ``value_range``, or
            points.
        image_data: The data set; at most 10,000 of its images, chosen by ``seed``, are used.
        n_samples: Samples to draw.
        device: Where the feature network runs.
        value_range: Values of black and white in the samples.
        seed: Seed of the samples, of the real images' choice and of the feature network.
        features: A feature network (see :func:`evaluate_samples`), for example
            :func:`inception_features`; by default a classifier is trained on ``image_data``.
        feature_steps: Training steps of that classifier.

    Returns:
        See :func:`evaluate_samples`; for the ``gaussians`` see :func:`evaluate_mixture`.

    Raises:
        ValueError: See there; also unlabelled images without ``features``.
    """
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples}")
    with torch.no_grad(), _seeded(seed, device):
        counts = [_BATCH] * (n_samples // _BATCH) + [n_samples % _BATCH] * (n_samples % _BATCH > 0)
        fake = torch.cat([generator_fn(count).detach().cpu() for count in counts])
    if image_data.images.dim() == 2:
        if image_data.centres is None:
            raise ValueError(f"{image_data.name} holds points, and only 'gaussians' have centres")
        return evaluate_mixture(fake, image_data.centres, GAUSSIAN_SIGMA)
    if features is None:
        features = train_feature_network(image_data, seed=seed, steps=feature_steps, device=device)
    order = torch.randperm(
        len(image_data), generator=torch.Generator().manual_seed(seed), device="cpu"
    )
    real = image_data.images[order[:_MAX_REAL].to(image_data.images.device)]
    own = isinstance(features, FeatureNetwork)
    return evaluate_samples(
        real,
        fake,
        features,
        value_range=value_range,
        classes=image_data.classes if own else (),
        device=device,
        seed=seed,
    )


def evaluate_mixture(
    points: Tensor,
    centres: Tensor,
    sigma: float,
    *,
    radius: float = 4.0,
    minimum_share: float = 0.01,
) -> dict[str, Any]:
    """Count the modes of a mixture of Gaussians that samples recover.

    A sample is of high quality within ``radius`` standard deviations of its nearest centre. A mode
    is recovered when ``minimum_share`` of all samples or more are high-quality ones of its own: 100
    of 10,000, where an equal share of nine modes is 1,111. The share is this project's choice: one
    stray sample is no mode.

    Args:
        points: ``(N, D)``; points that are not finite count as low quality.
        centres: ``(M, D)``.
        sigma: Standard deviation of each mode.
        radius: In standard deviations.
        minimum_share: Of all samples.

    Returns:
        ``modes_recovered`` (an integer) and ``high_quality_share`` (in 0..1).

    Raises:
        ValueError: A shape or ``sigma`` is wrong.

    Example:
        >>> evaluate_mixture(torch.tensor([[0.0, 0.1], [9.0, 9.0]]), torch.zeros(1, 2), 0.05)
        {'modes_recovered': 1, 'high_quality_share': 0.5}
    """
    if points.dim() != 2 or not len(points) or points.shape[1:] != centres.shape[1:]:
        raise ValueError(
            f"points must be (N, D) like the centres {tuple(centres.shape)}, "
            f"got {tuple(points.shape)}"
        )
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    offsets = points.double().cpu().unsqueeze(1) - centres.double().cpu()
    distance, nearest = offsets.norm(dim=2).min(1)
    good = distance <= radius * sigma
    counts = nearest[good].bincount(minlength=len(centres))
    return {
        "modes_recovered": int((counts >= max(1.0, minimum_share * len(points))).sum()),
        "high_quality_share": float(good.double().mean()),
    }
