"""Every option of a run is obeyed or refused; in fresh runs, with one line that says why."""

from __future__ import annotations

import inspect
import json
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import FAST, tiny

from gankernels.training import (
    RECIPES,
    ImageData,
    StepConfig,
    TrainConfig,
    Trainer,
    configuration,
    loop,
    options,
    parts,
    train,
)
from gankernels.training.cli import main
from gankernels.training.distributed import World, pick_device
from gankernels.training.losses import LOSSES
from gankernels.training.sampling import fixed_noise

PRESETS = [(r.name, p) for r in RECIPES.values() for p in r.presets]
TRAIN_FIELDS = {f.name for f in fields(TrainConfig)} - {"step"}
STEP_FIELDS = {f.name for f in fields(StepConfig)}


def test_the_table_has_every_field_and_no_other() -> None:
    assert set(options.OPTIONS) == TRAIN_FIELDS | STEP_FIELDS


def test_every_network_has_its_value_range() -> None:
    """The table says what the generators really make."""
    assert set(parts.VALUE_RANGES) == set(parts.NETWORKS)
    for name, made in parts.VALUE_RANGES.items():
        generator, _ = parts.NETWORKS[name]()
        noise = 100 * torch.randn(8, 128 if name in ("dcgan_spectral", "toy_mlp") else 100)
        with torch.no_grad():
            for p in generator.parameters():
                p.mul_(10)
            samples = generator(noise)
        if made is None:
            assert samples.dim() == 2
        else:
            assert (float(samples.min()), float(samples.max())) == pytest.approx(made, abs=0.05)


# ------------------------------------------------------------------- all fields, all presets


def another(config: TrainConfig, name: str) -> Any:
    """A value that is not the configuration's own."""
    points = config.data == "gaussians"
    choices: dict[str, list[Any]] = {
        "recipe": ["toy", "grl"],
        "preset": ["other"],
        "network": ["toy_mlp" if not points else "grl_mlp", "dcgan_article", "grl_mlp"],
        "network_options": [config.network_options | {"g_width" if points else "width": 6}],
        "data": ["digits" if points else "mnist:nowhere"],
        "image_size": [16],
        "channels": [3, 1],
        "value_range": [(0.0, 2.0)],
        "loss": ["hinge", "logistic"],
        "loss_options": [{"reduction": "sum"}],
        "step_kind": ["alternating", "one_pass"],
        "noise": ["uniform", "normal"],
        "device": ["meta"],
        "amp": ["bf16"],
        "clip": [1e-7],
        "order": ["g_first", "d_first"],
        "optimizer": ["foreach"],
        "decay": [0.9],
        "ema": [0.25],
        "beta1": [0.25],
        "beta2": [0.55],
        "alpha": [0.25],
        "threads": [2],
    }
    now = options.value(config, name)
    if isinstance(now, bool):
        return not now
    if name in choices:
        return next(v for v in choices[name] if v != now)
    return now + 1 if isinstance(now, int) else now + 0.125


def pictures(config: TrainConfig) -> ImageData | None:
    if config.data != "digits" or config.image_size is None:
        return None
    shape = (16, config.channels, config.image_size, config.image_size)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    return ImageData(pixels.byte(), name="random pictures")


class Watched(Trainer):
    """A trainer that does two steps of a run and notes when it would log, sample and save."""

    seen: dict[str, Any]

    def run(self, progress: bool = True) -> None:
        del progress
        self.events: list[Any] = []
        config = self.config
        seen: dict[str, Any] = {
            "rates": [g["lr"] for o in self.optimizers for g in o.param_groups],
            "optimizers": [
                [g[k] for k in ("betas", "fused", "foreach")]
                for o in self.optimizers
                for g in o.param_groups
            ],
            "loss": (repr(self.loss), [b.tolist() for b in self.loss.buffers()]),
            "data": self.data_name,
            "fixed noise": fixed_noise(config, self.world.device).tolist(),
            "compiled": self.players.generator._compiled_call_impl is not None,
        }
        if not config.step.compile:  # which takes long
            passes: list[Any] = []
            self.players.discriminator.register_forward_pre_hook(
                lambda _, batch: passes.append((float(batch[0].detach().sum()), batch[0].stride()))
            )
            self.done = 15  # one of the next two steps has a lazy penalty
            Trainer.step(self)
            Trainer.step(self)
            seen["passes of D"] = passes
            self.metrics.collect()
            seen["metrics"] = self.metrics._on_host
            seen["weights"] = [
                float(p.detach().norm()) for p in self.players.generator.parameters()
            ]
            seen["samples"] = None if self.ema is None else next(self.ema.parameters()).tolist()
            seen["formats"] = [
                p.stride()
                for n in (self.players.generator, self.players.discriminator)
                for p in n.parameters()
            ] + [next(self.stream).shape]
        self.done = 0
        for name in ("_open", "_finish", "sample", "save"):
            setattr(self, name, lambda *_, name=name: self.events.append((name, self.done)))
        self._log = lambda _bar: self.events.append(("log", self.done))  # type: ignore[method-assign]
        self.step = self._count  # type: ignore[method-assign]
        Trainer.run(self, progress=False)
        type(self).seen = {**seen, "events": self.events}

    def _count(self) -> None:
        self.done += 1


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``watch(config, folder, resume)``: what a run under the configuration does."""
    threads: list[int] = []
    monkeypatch.setattr(loop, "Trainer", Watched)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)

    def watch(config: TrainConfig, folder: Path, resume: bool) -> dict[str, Any]:
        threads.clear()
        train(config, folder, image_data=pictures(config), resume=resume, progress=False)
        return {**Watched.seen, "threads": list(threads)}

    return watch


def sanctioned(error: Exception, name: str) -> bool:
    """Whether a refusal names the option, or the file that an option names."""
    return name in str(error) or (name == "data" and "nowhere" in str(error))


@pytest.mark.parametrize("resume", [False, True], ids=["fresh", "resumed"])
@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_every_option_is_obeyed_or_refused(
    recipe: str, preset: str, resume: bool, tmp_path: Path, watch: Any
) -> None:
    config = configuration(recipe, preset, **tiny(recipe, preset))
    if resume:
        first = Trainer(
            config, tmp_path, World(0, 1, torch.device("cpu")), image_data=pictures(config)
        )
        first.step()
        first.save()
    usual = watch(config, tmp_path, resume)
    obeyed: set[str] = set()
    for name in options.OPTIONS:
        change = {name: another(config, name)}
        try:
            if resume:
                changed = config.but(**change)
            elif name in ("recipe", "preset"):
                continue  # configuration() takes them by themselves
            else:
                changed = configuration(recipe, preset, **{**tiny(recipe, preset), **change})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = watch(changed, tmp_path, resume)
        except (ValueError, FileNotFoundError) as error:
            if not sanctioned(error, name):
                raise
        else:
            assert found != usual, f"{name} = {change[name]} changed nothing"
            obeyed.add(name)
    assert {"steps", "g_lr", "beta1", "decay", "ema", "optimizer", "amp", "threads"} <= obeyed
    refused = {"seed", "samples", "network", "noise_dim"}
    assert not refused & obeyed if resume else {"seed", "samples", "noise_dim"} <= obeyed


# ------------------------------------------------------------------------------ fresh runs


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("grl --d-lr 1e-3", "d_lr has no effect: both networks share one optimizer"),
        ("dcgan --alpha 0.5", "alpha has no effect: only the reversal step"),
        ("dcgan --outcomes 7", "outcomes has no effect: only the realness loss"),
        *(
            (f"{run} {option}", f"{name} has no effect: only the alternating step")
            for run in ("dcgan --preset one_pass", "dcgan --preset ratio", "grl")
            for name, option in (("g_updates", "--g-updates 2"), ("order", "--order d_first"))
        ),
        ("dcgan --preset plain --r1-every 2", "r1_every has no effect: r1_gamma is 0"),
        ("grl --r2-gamma 1", "r2_gamma must be 0 in a reversal step, which hands D's gradient"),
        ("dcgan --preset ratio --lecam 0.3", "lecam must be 0 in a ratio step"),
        ("realness --lecam 0.3", "lecam must be 0 with the realness loss"),
        ("toy --image-size 8", "image_size has no effect: it is about images"),
        ("toy --channels 3", "channels has no effect"),
        ("toy --flip", "flip has no effect"),
        ("toy --no-channels-last", "channels_last has no effect"),
        ("dcgan --sync-batchnorm", "sync_batchnorm has no effect: there is one process only"),
        ("dcgan --loss-option objective=1", "loss_options of 'logistic' may be label_smoothing"),
        ("dcgan --loss minimax --loss-option saturating=false", "loss_options of 'minimax' may be"),
        *(
            (f"{run} --step reversal --loss-option {option}", f"loss option {name} has no effect")
            for run, name, option in (
                ("realness", "objective", "objective=1"),
                ("realness", "objective", "objective=2"),  # which the preset has
                ("dcgan", "saturating", "saturating=true"),
            )
        ),
        ("realness --loss-option dim=0", "loss_options of 'realness' may be"),
        ('dcgan --loss-option label_smoothing="x"', "loss_options {'label_smoothing': 'x'}"),
        ("dcgan --loss-option reduction=none", "reduction must not be 'none'"),
        ("toy --network grl_mlp", "network 'grl_mlp' makes images, and the data are points"),
        ("dcgan --network toy_mlp", "network 'toy_mlp' makes points, and the data are images"),
        ("dcgan --device meta", "device 'meta' holds no values"),
        ("dcgan --device mps", "device 'mps' was asked for, but"),
        ("dcgan --device cuda:99", "device 'cuda:99' was asked for, but"),
        ("dcgan --device xpu", "device 'xpu' was asked for, but"),
        ("dcgan --device abacus", "device must be auto"),
    ],
)
def test_what_cannot_be_obeyed_is_one_line(
    command: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *command.split(), *FAST.split(), "--out", str(run)]) == 1
    found = capsys.readouterr().err
    assert message in found
    assert len(found.strip().splitlines()) == 1
    assert not run.exists()


def shown(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["train", *command.split(), "--show-config"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_loss_option_leaves_the_others_of_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown("realness --preset strong --loss-option objective=1", capsys)
    assert found["loss_options"] == {"objective": 1, "anchors": "skewed"}
    command = "realness --preset strong --loss logistic --loss-option label_smoothing=0.1"
    assert shown(command, capsys)["loss_options"] == {"label_smoothing": 0.1}


def test_one_optimizer_has_one_rate(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--lr 0.5", "--g-lr 0.5", "--lr 0.5 --d-lr 0.5"):
        found = shown(f"grl {option}", capsys)
        assert (found["g_lr"], found["d_lr"]) == (0.5, 0.5)


@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_the_network_decides_its_value_range(recipe: str, preset: str) -> None:
    base = configuration(recipe, preset)
    for network, made in parts.VALUE_RANGES.items():
        if (made is None) == (base.data == "gaussians"):
            config = configuration(recipe, preset, network=network)
            if network != base.network:
                assert config.network_options == {}
            assert made in (None, config.value_range)
        if made is not None and network != base.network and base.data != "gaussians":
            with pytest.raises(ValueError, match=r"value_range is .*, but network"):
                configuration(recipe, preset, network=network, value_range=(-3.0, 3.0))


def test_a_value_range_that_is_not_the_networks_does_not_train(tmp_path: Path) -> None:
    config = configuration(**tiny("realness", "quick")).but(value_range=(-1.0, 1.0))
    alone = World(0, 1, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"value_range is \(-1.0, 1.0\), but network"):
        Trainer(config, tmp_path, alone)
    networks = dict(zip(("generator", "discriminator"), parts.build_networks(config), strict=True))
    assert Trainer(config, tmp_path, alone, **networks).stream.value_range == (-1.0, 1.0)


def test_network_options_are_the_builders() -> None:
    for bad in ({"depth": 3}, {"outcomes": 3}, {"noise_dim": 3}):
        with pytest.raises(ValueError, match="network_options of 'dcgan_small' may be width"):
            parts.build_networks(configuration("dcgan", network_options=bad))
    with pytest.raises(ValueError, match=r"network_options {'width': 'wide'}"):
        parts.build_networks(configuration("dcgan", network_options={"width": "wide"}))


def test_an_option_of_the_generators_loss_has_no_effect_in_a_reversal_step() -> None:
    with pytest.raises(ValueError, match="loss option objective has no effect: it is of the gen"):
        configuration("realness", step_kind="reversal", loss_options={"objective": 1})
    with pytest.raises(ValueError, match="loss option saturating has no effect"):
        configuration("grl", loss="logistic", loss_options={"saturating": True})
    # What the preset carries along may lie idle, and what the discriminator's part obeys is obeyed.
    found = configuration("realness", step_kind="reversal").loss_options
    assert found["objective"] == 2
    changed = {**found, "anchors": "gaussian"}
    config = configuration("realness", step_kind="reversal", loss_options=changed)
    assert config.loss_options == changed
    after = config.but(loss_options={**changed, "objective": 3})
    with pytest.raises(ValueError, match="loss option objective has no effect"):
        options.check_resume(config, after, 0)


def test_the_options_of_losses_are_some_losses_own() -> None:
    for name in options.LOSS_OPTIONS:
        assert any(name in inspect.signature(build).parameters for build in LOSSES.values())


def test_a_step_given_whole_is_looked_into() -> None:
    with pytest.raises(ValueError, match="alpha has no effect"):
        configuration("dcgan", "plain", step=StepConfig(alpha=0.5))
    assert configuration("grl", step=StepConfig(alpha=0.5)).step.alpha == 0.5


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:99", "xpu", "hpu", "vulkan", "lazy"])
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_absent_devices_are_named_everywhere(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path), "--device", name]) == 1
    assert name in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"device '{name}'"):
        pick_device(name)
