"""Every option of a resumed run is obeyed or refused."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_runs import FAST, tiny

from gankernels.training import (
    TrainConfig,
    Trainer,
    checkpoint,
    configuration,
)
from gankernels.training.cli import main
from gankernels.training.distributed import World
from gankernels.training.resume import Decay


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


def test_averages_of_lecam_go_on_begin_and_end(tmp_path: Path) -> None:
    def at(lecam: float) -> Trainer:
        small = configuration("dcgan", "plain", **tiny("dcgan", "plain"), lecam=lecam)
        return Trainer(small, tmp_path, World(0, 1, torch.device("cpu")))

    first, second, without, anew = at(0.3), at(0.6), at(0.0), at(0.3)
    first.step()
    first.save()
    second.restore(checkpoint.load(tmp_path))
    assert first.players.lecam is not None
    assert second.players.lecam is not None
    assert second.players.lecam.updates == 1
    assert second.players.lecam.ema_real == first.players.lecam.ema_real != 0
    without.restore(checkpoint.load(tmp_path))
    without.step()
    without.save()
    anew.restore(checkpoint.load(tmp_path))
    assert anew.players.lecam is not None
    assert anew.players.lecam.updates == 0


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
