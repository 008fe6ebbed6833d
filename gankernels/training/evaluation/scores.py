"""Samples scored against the data: every distance at once, for tensors and for a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gankernels._checks import check_integer
from gankernels.training.data import GAUSSIAN_SIGMA, ImageData
from gankernels.training.evaluation.classifier import FeatureNetwork, train_feature_network
from gankernels.training.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from gankernels.training.evaluation.features import BATCH, extract
from gankernels.training.evaluation.mixture import evaluate_mixture
from gankernels.training.field_checks import check_seed
from gankernels.training.modes import seeded

__all__ = ["evaluate_run", "evaluate_samples"]

_MAX_REAL = 10_000  # real images at most: precision and recall take all pairs


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
        TypeError: An argument is not of its type.
        ValueError: The shapes do not fit, there are too few images, or features are not finite.
    """
    if fake_images.dim() != 4 or fake_images.shape[1:] != real_images.shape[1:]:
        raise ValueError(
            f"fake_images must be (N, {', '.join(map(str, real_images.shape[1:]))}) like the real "
            f"ones, got {tuple(fake_images.shape)}"
        )
    real, _ = extract(features, real_images, value_range, device)
    fake, logits = extract(features, fake_images, value_range, device)
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
        TypeError: An argument is not of its type.
        ValueError: See there; also unlabelled images without ``features``.
    """
    check_integer("n_samples", n_samples, 2)
    check_integer("feature_steps", feature_steps, 1)
    check_seed(seed)
    with torch.no_grad(), seeded(seed, device):
        counts = [BATCH] * (n_samples // BATCH) + [n_samples % BATCH] * (n_samples % BATCH > 0)
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
