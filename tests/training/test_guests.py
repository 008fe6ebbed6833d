"""Modes, defaults and random states that belong to the user are as they were after every call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gankernels.training
from gankernels.training import (
    BatchStream,
    ImageData,
    StepConfig,
    TrainConfig,
    configuration,
    data,
    evaluation,
    passes,
)
from gankernels.training.cli import main
from gankernels.training.evaluation.features import extract
from gankernels.training.loop import load_generator, train
from gankernels.training.modes import evaluation_mode, seeded
from gankernels.training.networks import ReversalGAN
from gankernels.training.players import adam
from gankernels.training.sampling import generate

PACKAGE = Path(gankernels.training.__file__).parent.parent


def test_modes_are_changed_in_one_place() -> None:
    """``eval`` of networks that the package built itself is its own business; ``train`` is nowhere called."""
    found = {
        (path.name, call)
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if ">>>" not in line and "``" not in line
        for call in re.findall(r"[\w.()]*\.(?:eval|train)\(", line)
        if call != "loop.train("
    }
    assert found == {
        ("modes.py", "network.eval("),
        ("classifier.py", "network.eval("),  # the classifier that it trained
        ("features.py", "_Inception(network).eval("),
        ("sampling.py", "network.to(device).eval("),  # what load_generator returns
    }


def frozen() -> nn.Sequential:
    network = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)
    )
    network[1].eval()
    return network


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


def test_pictures_and_evaluations_leave_modes_alone() -> None:
    network = frozen()
    before, statistics = modes(network), network[1].running_mean.clone()
    generate(network, torch.randn(3, 4))
    features = nn.Sequential(nn.Flatten(), *frozen())
    of_features = modes(features)
    extract(features, torch.rand(3, 1, 2, 2), (0.0, 1.0), "cpu")
    with pytest.raises(ZeroDivisionError), evaluation_mode(network):
        raise ZeroDivisionError
    assert modes(network) == before
    assert modes(features) == of_features
    assert torch.equal(network[1].running_mean, statistics)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_frozen_part_stays_frozen_in_a_run(tmp_path: Path, ema: float) -> None:
    generator, discriminator = frozen(), nn.Linear(2, 5)
    before, statistics = modes(generator), generator[1].running_mean.clone()
    config = configuration(
        "toy", steps=3, batch_size=8, samples=4, sample_every=1, noise_dim=4, ema=ema
    )
    train(config, tmp_path, generator=generator, discriminator=discriminator, progress=False)
    assert modes(generator) == before
    assert torch.equal(generator[1].running_mean, statistics)


# ---- default device and dtype --------------------------------------------------------------------


def _stream() -> list[Tensor]:
    images = torch.arange(8 * 4, dtype=torch.uint8, device="cpu").reshape(8, 1, 2, 2)
    stream = BatchStream(ImageData(images), 4, seed=0, flip=True)
    return [next(stream) for _ in range(3)]


def _gaussians() -> list[Tensor]:
    found = data.load("gaussians")
    assert found.labels is not None
    return [found.images[:100], found.labels[:100], data.gaussian_centres()]


def _digits() -> list[Tensor]:
    found = data.load("digits", image_size=12)
    assert found.labels is not None
    return [found.images[:9], found.labels]


def _features() -> list[Tensor]:
    network = evaluation.train_feature_network(data.load("digits"), seed=0, steps=2)
    return [p.detach() for p in network.parameters()]


def _scores() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.randn(20, 3, generator=generator, device="cpu", dtype=torch.float32) for _ in range(2)
    )
    scores = [
        evaluation.frechet_distance(real, fake),
        *evaluation.kernel_distance(real, fake, seed=0, subsets=3),
        *evaluation.precision_recall(real, fake),
    ]
    return [torch.tensor(scores, device="cpu", dtype=torch.float64)]


def _run(folder: Path, config: TrainConfig) -> list[Tensor]:
    train(config, folder, progress=False)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return [*state["generator"].values(), *state["discriminator"].values()]


def _toy(tmp_path: Path) -> list[Tensor]:
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "samples": 4, "device": "cpu"}
    return _run(tmp_path / "toy", configuration("toy", **options))


def _images(tmp_path: Path) -> list[Tensor]:
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "samples": 4, "device": "cpu"}
    return _run(tmp_path / "grl", configuration("grl", **options, flip=True))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(inputs, outputs, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.rand(p.shape, generator=generator, device="cpu", dtype=torch.float32))
    return layer


def _penalty() -> list[Tensor]:
    real = torch.ones(2, 3, device="cpu", dtype=torch.float32, requires_grad=True)
    return [passes._gradient_penalty(_linear(3, 20)(real).square(), real).detach()]


def _reversal() -> list[Tensor]:
    model = ReversalGAN(_linear(4, 3), _linear(3, 1), noise_dim=4)
    real = torch.ones(8, 3, device="cpu", dtype=torch.float32)
    torch.default_generator.manual_seed(0)
    return [loss.detach() for loss in model(real)]


def _counters() -> list[Tensor]:
    found: list[Tensor] = []
    for kind in ("loop", "foreach", "fused"):
        layer = _linear(2, 2)
        optimizer = adam(layer.parameters(), 0.1, (0.5, 0.9), StepConfig(optimizer=kind))
        for _ in range(2):
            for p in layer.parameters():
                p.grad = torch.ones_like(p)
            optimizer.step()
        found += [x for state in optimizer.state.values() for x in state.values()]
        found += [p.detach() for p in layer.parameters()]
    return found


ENTRIES: dict[str, Callable[..., list[Tensor]]] = {
    "BatchStream": _stream,
    "gaussians": _gaussians,
    "digits": _digits,
    "train_feature_network": _features,
    "distances": _scores,
    "R1 of several outcomes": _penalty,
    "ReversalGAN": _reversal,
    "Adam": _counters,
    "train toy": _toy,
    "train grl": _images,
}


@pytest.fixture(params=["float64", "meta"])
def foreign_defaults(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Sets a default that this package must not fall for: meta stands for any device but the CPU."""

    with ExitStack() as defaults:

        def set_them() -> None:
            if request.param == "float64":
                torch.set_default_dtype(torch.float64)
            else:
                defaults.enter_context(torch.device("meta"))

        yield set_them
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("entry", ENTRIES)
def test_defaults_do_not_reach_the_package(
    entry: str, foreign_defaults: Callable[[], None], tmp_path: Path
) -> None:
    function = ENTRIES[entry]
    takes = function.__code__.co_argcount
    expected = function(*[tmp_path / "plain"][:takes])
    foreign_defaults()
    found = function(*[tmp_path / "foreign"][:takes])
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.device) == (b.dtype, b.device)
        assert torch.equal(a, b)


def test_evaluations_leave_the_random_state_alone(tmp_path: Path) -> None:
    _toy(tmp_path)
    before = torch.get_rng_state()
    _features()
    _scores()
    load_generator(tmp_path / "toy")
    main(["sample", str(tmp_path / "toy"), "--out", str(tmp_path / "a.png")])
    main(["evaluate", str(tmp_path / "toy"), "--samples", "100"])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_for_the_cpu_leaves_the_other_devices_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seeds_them(seed: int) -> None:
        raise AssertionError(f"every GPU was seeded with {seed}")

    before = torch.get_rng_state()
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds_them)
    with seeded(5, "cpu"):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)
    _features()
    _scores()


class Away(nn.Module):
    """A network on other devices than the CPU, which ``meta`` stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, device="meta"))
        self.places: list[str] = []

    def to(self, device: torch.device | str) -> Away:  # type: ignore[override]
        self.places.append(str(device))
        self.scale = nn.Parameter(torch.ones(1, device=device))
        return self

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale


def test_a_given_network_is_put_back_where_it_was() -> None:
    features = Away()
    extract(features, torch.rand(3, 1, 2, 2), (0.0, 1.0), "cpu")
    assert features.places == ["cpu", "meta"]
    features.forward = lambda images: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        extract(features, torch.rand(3, 1, 2, 2), (0.0, 1.0), "cpu")
    assert features.scale.device.type == "meta"


class Drawing(nn.Linear):
    """A generator with noise of its own."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y + torch.randn_like(y)


def test_a_picture_does_not_change_the_run(tmp_path: Path) -> None:
    weights = []
    for every in (1, 100):
        torch.manual_seed(0)
        generator, discriminator = Drawing(3, 2), nn.Linear(2, 5)
        config = configuration("toy", steps=3, batch_size=8, samples=4, noise_dim=3)
        config = config.but(sample_every=every)
        parts = {"generator": generator, "discriminator": discriminator}
        train(config, tmp_path / str(every), **parts, progress=False)
        weights.append(generator.weight.detach())
    assert torch.equal(*weights)
