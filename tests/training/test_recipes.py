"""Recipes, losses, networks of one's own, and what a run leaves."""

from __future__ import annotations

import copy
import json
import runpy
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gankernels as gk
from gankernels.training import (
    RECIPES,
    ImageData,
    Recipe,
    TrainConfig,
    Trainer,
    configuration,
    load_generator,
    networks,
    parts,
    recipes,
    register,
    sampling,
    train,
)
from gankernels.training.distributed import World
from gankernels.training.losses import LOSSES
from gankernels.training.networks import has_batchnorm
from gankernels.training.sampling import fixed_noise

pytestmark = pytest.mark.usefixtures("drawn")  # of every preset

ROOT = Path(__file__).parents[2]
PRESETS = [(r.name, p) for r in RECIPES.values() for p in r.presets]
SHORT: dict[str, Any] = {
    "batch_size": 8,
    "steps": 2,
    "log_every": 1,
    "sample_every": 2,
    "samples": 4,
    "threads": 1,
}


def pictures(config: TrainConfig) -> ImageData | None:
    """A stand-in of the right shape for image recipes; the toy recipe makes its own points."""
    if config.image_size is None:
        return None
    shape = (16, config.channels or 1, config.image_size, config.image_size)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    return ImageData(pixels.byte(), name="random pictures")


@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_every_preset_runs_and_leaves_everything(recipe: str, preset: str, tmp_path: Path) -> None:
    config = configuration(recipe, preset, **SHORT)
    train(config, tmp_path, image_data=pictures(config), progress=False)
    assert TrainConfig.load(tmp_path / "config.json") == config
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2]
    assert {"d_loss", "g_loss", "d_grad_norm", "g_grad_norm", "images_per_second"} <= set(
        records[1]
    )
    names = {p.name for p in tmp_path.iterdir()}
    left = {"checkpoint.pt", "curves.png", "final.png", "samples.gif", "report.html"}
    assert left <= names
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "step_0000000.png",
        "step_0000002.png",
    ]
    network, loaded = load_generator(tmp_path)
    assert loaded == config
    with torch.no_grad():
        samples = network(torch.randn(3, config.noise_dim))
    if config.image_size is not None:
        assert samples.shape == (3, config.channels, config.image_size, config.image_size)
        low, high = config.value_range
        assert low <= float(samples.min())
        assert float(samples.max()) <= high


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_loss_with_every_recipe(recipe: str, loss: str, tmp_path: Path) -> None:
    config = configuration(recipe, loss=loss, **SHORT)
    points = ImageData(torch.randn(16, 2), name="points")
    if config.image_size is not None:
        config = config.but(image_size=8)
    trainer = Trainer(
        config, tmp_path, World(0, 1, torch.device("cpu")), image_data=pictures(config) or points
    )
    before = [p.clone() for p in trainer.players.generator.parameters()]
    trainer.step()
    trainer.step()
    trainer.metrics.collect()  # raises where a loss or a gradient is not finite
    after = list(trainer.players.generator.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    logits = trainer.players.discriminator(next(trainer.stream))
    assert logits.shape == (8, config.outcomes if loss == "realness" else 1)


def test_tensorboard_gets_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name: str, _value: float, step: int) -> None:
            written.append((name, step))

        def close(self) -> None:
            written.append(("closed", -1))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    config = configuration("dcgan", **SHORT)
    train(config, tmp_path, image_data=pictures(config), progress=False)
    assert {("d_loss", 1), ("g_loss", 2)} <= set(written)
    assert written[-1] == ("closed", -1)


def test_the_default_is_the_third_articles_game() -> None:
    """Its networks, outcomes, batch, optimizer, anchors and objective; only the pace differs."""
    quick, article = configuration(), configuration("realness", "article")
    for config in (quick, article):
        assert (config.network, config.outcomes, config.batch_size) == ("realness_article", 20, 128)
        assert (config.beta1, config.beta2) == (0.0, 0.9)
        assert (config.loss, config.step_kind) == ("realness", "alternating")
        assert config.loss_options == {"objective": 2, "anchors": "article"}
        assert (config.step.order, config.step.g_updates) == ("d_first", 1)
        assert config.data == "digits"
    assert (article.g_lr, article.d_lr, article.flip, article.channels) == (1e-4, 1e-4, True, 3)
    generator, discriminator = parts.build_networks(article)
    layers = [type(m).__name__ for m in discriminator]
    assert layers == ["Conv2d", "ReLU", "AvgPool2d"] * 3 + ["Conv2d", "ReLU", "Flatten", "Linear"]
    count = lambda n: sum(p.numel() for p in n.parameters())  # noqa: E731
    assert (count(generator), count(discriminator)) == (80_323, 38_900)
    loss = parts.make_loss(article)
    assert isinstance(loss, gk.RealnessLoss)
    assert loss.real_anchor.shape == (20,)
    again = parts.make_loss(article.but(seed=1))
    assert not torch.equal(loss.real_anchor, again.real_anchor)


def test_the_second_articles_networks() -> None:
    literal = parts.build_networks(configuration("dcgan", "article"))
    assert all(has_batchnorm(n) for n in literal)
    sizes: list[int] = []
    x = torch.zeros(2, 1, 32, 32)
    for layer in literal[1]:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            sizes.append(x.shape[-1])
    assert sizes == [16, 8, 4, 2, 1]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in literal[1]) == 4
    assert not has_batchnorm(parts.build_networks(configuration("dcgan", "ratio"))[1])
    assert configuration("dcgan").step.order == "g_first"


def test_skewed_anchors_lie_at_opposite_ends() -> None:
    config = configuration("realness", "strong")
    loss = parts.make_loss(config)
    atoms = torch.linspace(-1, 1, config.outcomes)
    assert float(loss.real_anchor @ atoms) > 0.5
    assert float(loss.fake_anchor @ atoms) < -0.5
    assert float(loss.real_anchor.sum()) == pytest.approx(1, abs=1e-6)


def test_networks_loss_and_data_of_ones_own(tmp_path: Path) -> None:
    """The example, and loading what it trained."""
    example = runpy.run_path(str(ROOT / "examples" / "custom_gan.py"))
    run = example["main"](["--steps", "3", "--out", str(tmp_path / "run")])
    generator, _ = example["networks"](32)
    before = generator[0].weight.clone()
    network, config = load_generator(run, generator=generator)
    assert network is generator
    assert not torch.equal(generator[0].weight, before)
    assert network(torch.randn(2, config.noise_dim)).shape == (2, 1, 16, 16)


def test_resampling_leaves_the_names_that_checkpoints_have() -> None:
    _, discriminator = networks.dcgan_spectral(8, 1, 5, 6, width=4)
    layers = {"network.0", "network.3"}  # the only ones with weights at this size
    names = ("bias", *(f"parametrizations.weight.{part}" for part in ("original", "0._u", "0._v")))
    assert set(discriminator.state_dict()) == {f"{a}.{b}" for a in layers for b in names}
    images = torch.randn(3, 1, 8, 8)
    assert discriminator(images).shape == discriminator.eval()(images).shape == (3, 5)
    assert torch.equal(discriminator(images), discriminator.network(images)[:, :5])


def test_anchors_redrawn_at_every_step_serve_both_networks(tmp_path: Path) -> None:
    options = {"anchors": "skewed", "redraw": True}
    config = configuration("toy", loss="realness", loss_options=options, **SHORT)
    points = ImageData(torch.randn(16, 2), name="points")
    trainer = Trainer(config, tmp_path, World(0, 1, torch.device("cpu")), image_data=points)
    seen: list[list[float]] = []
    for name in ("discriminator_value_and_grad", "generator_value_and_grad"):
        method = getattr(trainer.loss, name)

        def noted(*logits: Any, method: Any = method) -> Any:
            seen.append(trainer.loss.real_anchor.tolist())
            return method(*logits)

        setattr(trainer.loss, name, noted)
    trainer.step()
    trainer.step()
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert first == [first[0]] * (1 + config.step.g_updates)
    assert second == [second[0]] * (1 + config.step.g_updates)
    assert first[0] != second[0]


def test_realness_runs_note_what_the_discriminator_says(tmp_path: Path) -> None:
    options: dict[str, Any] = {"outcomes": 6, "image_size": 8, "network_options": {"width": 4}}
    config = configuration("realness", "strong", **SHORT, **options)
    world = World(0, 1, torch.device("cpu"))
    trainer = Trainer(config, tmp_path, world, image_data=pictures(config))
    discriminator, position = trainer.players.discriminator, trainer.stream.state_dict()["position"]
    before, state = torch.get_rng_state(), copy.deepcopy(discriminator.state_dict())
    trainer.sample()
    record = trainer.metrics.write(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.stream.state_dict()["position"] == position
    assert discriminator.training
    assert all(torch.equal(a, state[name]) for name, a in discriminator.state_dict().items())
    samples = sampling.generate(trainer.ema, fixed_noise(config, world.device))
    with torch.no_grad():
        for name, batch in (("real", trainer.stream.peek(4)), ("fake", samples)):
            expected = discriminator.eval()(batch).softmax(1).mean(0)
            assert record[f"{name}_distribution"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert record["real_anchor"] == pytest.approx(trainer.loss.real_anchor.tolist(), abs=1e-6)
    assert trainer.stream.peek(4).amax() <= 1.0


def test_a_recipe_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", dict(RECIPES))
    mine = Recipe("mine", "a test", {"only": TrainConfig(steps=7)}, {"only": "seven steps"})
    register(mine)
    assert configuration("mine").steps == 7
    assert configuration("mine").recipe == "mine"
    with pytest.raises(ValueError, match="every preset needs a note"):
        register(replace(mine, notes={}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: configuration("cyclegan"), "unknown recipe 'cyclegan'; expected one of realness"),
        (lambda: configuration("grl", "slow"), "recipe 'grl' has no preset 'slow'"),
        (lambda: configuration("grl", stepz=1), "unknown configuration names: stepz"),
        (lambda: configuration("grl", loss="l1"), "loss must be one of"),
        (lambda: configuration("grl", steps=0), "steps must be at least 1"),
        (lambda: configuration("grl", ema=1.5), r"ema must lie in \[0, 1\]"),
        (lambda: configuration("grl", batch_size=10, accumulate=4), "accumulate=4 must divide"),
        (
            lambda: parts.build_networks(configuration("realness", image_size=20)),
            "image_size that 8 divides, got 20",
        ),
        (
            lambda: parts.build_networks(configuration("dcgan", "article", image_size=28)),
            "power-of-two image_size >= 8, got 28",
        ),
        (
            lambda: parts.make_loss(configuration(loss_options={"anchors": "x"})),
            "anchors must be article, skewed or gaussian",
        ),
        (
            lambda: parts.make_loss(
                configuration(loss_options={"anchors": "gaussian", "redraw": True})
            ),
            "redraw must be False with gaussian anchors, which are not drawn",
        ),
        (
            lambda: parts.build_networks(configuration().but(network="vae")),
            "unknown network 'vae'",
        ),
    ],
)
def test_wrong_names_and_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
