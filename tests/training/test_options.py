"""Every option of a run is obeyed or refused, in fresh runs and in resumed ones."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import warnings
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from gankernels.training import (
    RECIPES,
    ImageData,
    StepConfig,
    TrainConfig,
    Trainer,
    checkpoint,
    configuration,
    loop,
    options,
    parts,
    train,
)
from gankernels.training.cli import main
from gankernels.training.distributed import World, pick_device
from gankernels.training.losses import LOSSES
from gankernels.training.resume import Decay
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


def tiny(recipe: str, preset: str) -> dict[str, Any]:
    """Changes that leave a preset what it is, and make it fast."""
    base = RECIPES[recipe].presets[preset]
    small: dict[str, Any] = {"steps": 4, "batch_size": 4, "samples": 2, "device": "cpu"}
    small |= {"log_every": 1, "sample_every": 2, "checkpoint_every": 3}
    if base.data == "gaussians":
        return {**small, "network_options": {"g_width": 8, "d_width": 4}}
    small["image_size"] = 8
    if recipe == "grl":
        small["channels"] = 3  # one channel has one memory format
    if base.network != "realness_article":
        small["network_options"] = {**base.network_options, "width": 4}
    return small


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

FAST = "--batch-size 8 --samples 4 --quiet"


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


# ------------------------------------------------------------------------------ resumed runs


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_factor_of_the_rate_lies_in_0_and_1(share: float) -> None:
    factors = [Decay(10, share)(step) for step in range(40)]
    assert factors[0] == 1
    assert all(0 <= b <= a <= 1 for a, b in pairwise(factors))
    assert factors[10:] == [0.0 if share else 1.0] * 30


REALNESS = "realness --image-size 8 --log-every 1 --sample-every 100 --steps 4 --seed 1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options") / "run"
    assert main(["train", *REALNESS.split(), *FAST.split(), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resume(run: Path, options: str = "") -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return main(["train", "--resume", str(run), "--quiet", *options.split()])


def test_more_steps_have_a_decay_planned_anew(run: Path) -> None:
    """The rates were zero at the end of the first run; with the old plan they would be negative."""
    assert [g["lr"] for o in checkpoint.load(run)["optimizers"] for g in o["param_groups"]] == [
        0,
        0,
    ]
    assert resume(run, "--steps 16 --checkpoint-every 10") == 0
    rates: list[float] = []
    step = Trainer.step

    def noted(self: Trainer) -> None:
        rates.append(self.optimizers[0].param_groups[0]["lr"])
        step(self)

    Trainer.step = noted  # type: ignore[method-assign]
    try:
        assert resume(run, "--steps 20") == 0
    finally:
        Trainer.step = step  # type: ignore[method-assign]
    assert rates == [pytest.approx(2e-3 * (1 - s / 20) / 0.5) for s in range(16, 20)]
    losses = [json.loads(line)["d_loss"] for line in (run / "metrics.jsonl").open()]
    assert len(losses) == 20
    assert max(losses) < 10


def test_optimizer_options_are_set_anew_and_the_moments_stay(run: Path) -> None:
    saved = checkpoint.load(run)
    options = "--g-lr 0.5 --d-lr 0.25 --beta1 0.3 --beta2 0.4 --optimizer foreach --decay 0"
    assert resume(run, f"--steps 4 {options}") == 0  # no step is left to do
    after = checkpoint.load(run) if saved["step"] == 4 else saved
    config = TrainConfig.load(run / "config.json")
    assert (config.g_lr, config.d_lr, config.beta1, config.decay) == (0.5, 0.25, 0.3, 0)
    trainer = Trainer(config, run, World(0, 1, torch.device("cpu")))
    trainer.restore(saved)
    for optimizer, rate, old in zip(
        trainer.optimizers, (0.5, 0.25), saved["optimizers"], strict=True
    ):
        (group,) = optimizer.param_groups
        expected = {"lr": rate, "initial_lr": rate, "betas": (0.3, 0.4)}
        expected |= {"fused": False, "foreach": True}
        assert {k: group[k] for k in expected} == expected
        assert optimizer.state_dict()["state"].keys() == old["state"].keys()
        for key, moments in optimizer.state_dict()["state"].items():
            for name in ("step", "exp_avg", "exp_avg_sq"):
                assert torch.equal(moments[name], old["state"][key][name])
    assert after["step"] == 4
    trainer.step()
    trainer.metrics.collect()
    assert [g["lr"] for o in trainer.optimizers for g in o.param_groups] == [0.5, 0.25]


@pytest.mark.parametrize(
    "change",
    [
        "--ema 0.0",
        "--ema 0.5",
        "--amp bf16",
        "--amp fp16",
        "--optimizer loop",
        "--loss-option objective=1",
        "--loss-option anchors=gaussian",
        "--step one_pass",
        "--step reversal --alpha 0.5",
        "--batch-size 6 --flip",
        "--clip 1.0",
        "--noise uniform",
        "--checkpoint-every 3",
    ],
)
def test_a_resumed_run_obeys(change: str, run: Path) -> None:
    assert resume(run, f"--steps 6 {change}") == 0
    assert checkpoint.load(run)["step"] == 6
    found = json.loads((run / "config.json").read_text())
    found |= found["step"]
    words = change.replace("--step ", "--step-kind ").replace("--loss-option ", "").split()
    for name, text in zip(words[::2], words[1::2], strict=False):
        if name.startswith("--") and not text.startswith("--"):
            assert str(found[name[2:].replace("-", "_")]) == text
    # And back to what it was: an average and a loss scale begin and end without a word.
    assert resume(run, "--steps 8 --ema 0.9 --optimizer fused") == 0
    assert checkpoint.load(run)["ema"] is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--preset article", "--preset cannot be given with --resume"),
        ("--out elsewhere", "--out cannot be given with --resume"),
        ("--network dcgan_small", "network cannot change"),
        ("--loss logistic", "loss cannot change from 'realness' to 'logistic' on resume"),
        ("--outcomes 5", "outcomes cannot change"),
        ("--samples 9", "samples cannot change from 4 to 9 on resume"),
        ("--seed 5", "seed cannot change"),
        ("--image-size 16", "image_size cannot change"),
        ("--channels 3", "channels cannot change"),
        ("--noise-dim 5", "noise_dim cannot change"),
        ("--steps 3", "steps cannot change from 4 to 3 on resume: the checkpoint is of step 4"),
        ("--alpha 0.5", "alpha has no effect"),
        ("--r1-every 2", "r1_every has no effect"),
        ("--device cuda:99", "cuda:99"),
        ("--step reversal --loss-option objective=1", "loss option objective has no effect"),
        ("--loss-option colour=1", "loss_options of 'realness' may be"),
        ("--sync-batchnorm", "sync_batchnorm has no effect"),
        ("--step ratio", "non-saturating logistic loss"),
    ],
)
def test_a_resumed_run_refuses_before_it_begins(
    change: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    steps = "" if "--steps" in change else "--steps 6 "
    assert resume(run, steps + change) == 1
    found = capsys.readouterr().err
    assert message in found
    assert len(found.strip().splitlines()) == 1
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_an_average_that_begins_on_resume_begins_at_the_weights(tmp_path: Path) -> None:
    config = configuration("dcgan", "plain", **tiny("dcgan", "plain"))
    alone = World(0, 1, torch.device("cpu"))
    first = Trainer(config, tmp_path, alone)
    first.step()
    first.save()
    second = Trainer(config.but(ema=0.9), tmp_path, alone)
    second.restore(checkpoint.load(tmp_path))
    assert second.ema is not None
    averages = second.ema.module.state_dict()
    for name, value in first.players.generator.state_dict().items():
        assert torch.equal(averages[name], value)


@pytest.mark.parametrize(
    ("batch_size", "saved", "words"),
    [
        (3, 1, "the data starts a new epoch (global_batch 4 -> 3)"),
        (4, 2, "the noise is shared out anew (processes 2 -> 1)"),
    ],
)
def test_another_batch_or_number_of_processes_goes_on_and_says_so(
    batch_size: int, saved: int, words: str, tmp_path: Path
) -> None:
    config = configuration("dcgan", "plain", **tiny("dcgan", "plain"))
    alone = World(0, 1, torch.device("cpu"))
    first = Trainer(config, tmp_path, alone)
    first.step()
    first.save()
    state = checkpoint.load(tmp_path)
    state["processes"] *= saved
    second = Trainer(config.but(batch_size=batch_size), tmp_path, alone)
    with pytest.warns(UserWarning, match=re.escape(f"no longer bit for bit: {words}")):
        second.restore(state)
    second.step()
    second.metrics.collect()
    assert len(next(second.stream)) == batch_size
