"""The classifier that gives features, and Inception's."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from gankernels.training import evaluation
from gankernels.training.data import ImageData
from gankernels.training.evaluation import (
    classifier,
)
from gankernels.training.evaluation.features import standard


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


@pytest.mark.processes
def test_importing_evaluation_does_not_import_torchmetrics():
    code = (
        "import sys; import gankernels.training.evaluation\n"
        "assert 'torchmetrics' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
