"""A small classifier, trained on the data's own labels, whose features tell samples from data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankernels._checks import check_factor, check_integer, check_positive_number
from gankernels.training.data import ImageData
from gankernels.training.evaluation.features import BATCH, standard
from gankernels.training.field_checks import check_seed, check_share
from gankernels.training.modes import plain_defaults, seeded

__all__ = ["FeatureNetwork", "train_feature_network"]


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
        sizes = {"channels": channels, "num_classes": num_classes, "num_features": num_features}
        for name, size in {**sizes, "stride": stride}.items():
            check_integer(name, size, 1)
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
        TypeError: An argument is not of its type.
        ValueError: The data have no labels or are not images, or ``steps`` or ``held_out`` leaves
            nothing to train or to measure on.

    Example:
        >>> from gankernels.training import data
        >>> network = train_feature_network(data.load("digits"), seed=0, steps=100)
        >>> network.accuracy > 0.9
        True
    """
    check_seed(seed)
    check_integer("steps", steps, 1)
    check_integer("batch_size", batch_size, 1)
    check_positive_number("learning_rate", learning_rate)
    train, test = _split(image_data, held_out, seed)
    with seeded(seed, device):
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
    check_share("held_out", check_factor("held_out", held_out))
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
    images = standard(image_data.images[rows.to(image_data.images.device)].to(device))
    return images, image_data.labels[rows.to(image_data.labels.device)].to(device)


@torch.no_grad()
def _accuracy(
    network: FeatureNetwork, image_data: ImageData, rows: Tensor, device: torch.device | str
) -> float:
    correct = 0
    for part in torch.split(rows, BATCH):
        images, labels = _pick(image_data, part, device)
        correct += int((network(images)[1].argmax(1) == labels).sum())
    return correct / len(rows)
