"""The command line, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gankernels as gk
from gankernels.testing import OPERATORS
from gankernels.training.cli import main
from gankernels.training.config import StepConfig, TrainConfig

TOY = ["train", "toy", "--steps", "4", "--batch-size", "20", "--samples", "50", "--quiet"]
TOY += ["--sample-every", "2", "--log-every", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main([*TOY, "--out", str(folder)]) == 0
    return folder


def test_train_then_sample_then_evaluate(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, tensor = tmp_path / "a.png", tmp_path / "a.pt"
    command = ["sample", str(run), "--samples", "30", "--out", str(picture)]
    assert main([*command, "--tensor", str(tensor)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    first = torch.load(tensor, weights_only=True)
    assert first.shape == (30, 2)
    assert main([*command, "--tensor", str(tensor), "--seed", "1"]) == 0
    assert not torch.equal(first, torch.load(tensor, weights_only=True))
    capsys.readouterr()
    assert main(["evaluate", str(run / "checkpoint.pt"), "--samples", "100"]) == 0
    scores = json.loads((run / "evaluation.json").read_text())
    assert set(scores) == {"modes_recovered", "high_quality_share"}
    assert json.loads(capsys.readouterr().out) == scores
    assert "high_quality_share" in (run / "report.html").read_text()
    elsewhere = tmp_path / "scores.json"
    command = ["evaluate", str(run), "--samples", "100", "--out", str(elsewhere)]
    assert main(command) == 0
    assert json.loads(elsewhere.read_text()) == scores


def test_every_step_option_reaches_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--order g_first --g-updates 2 --amp bf16 --accumulate 2 --clip 1.5 "
        "--r1-gamma 0.1 --r2-gamma 0.2 --r1-every 4 --lecam 0.3 --no-channels-last --optimizer foreach"
    )
    assert main(["train", "dcgan", *options.split(), "--show-config"]) == 0
    config = TrainConfig.from_dict(json.loads(capsys.readouterr().out))
    assert config.step == StepConfig(
        order="g_first",
        fake_first=True,  # of the recipe
        g_updates=2,
        amp="bf16",
        accumulate=2,
        clip=1.5,
        r1_gamma=0.1,
        r2_gamma=0.2,
        r1_every=4,
        lecam=0.3,
        channels_last=False,
        optimizer="foreach",
    )


def test_other_options_reach_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--data folder:x --image-size 16 --channels 3 --flip --batch-size 9 --loss realness "
        "--loss-option objective=1 --loss-option anchors=gaussian --outcomes 7 --noise uniform "
        "--noise-dim 5 --lr 0.1 --d-lr 0.2 --beta1 0.3 --beta2 0.4 --decay 0.5 --ema 0.6 "
        "--step one_pass --steps 11 --seed 12 --device cpu --threads 1 --log-every 13 "
        "--sample-every 14 --checkpoint-every 15 --samples 16 --network dcgan_article"
    )
    assert main(["train", "dcgan", *options.split(), "--show-config"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = {
        "data": "folder:x",
        "image_size": 16,
        "channels": 3,
        "flip": True,
        "batch_size": 9,
        "loss": "realness",
        "loss_options": {"objective": 1, "anchors": "gaussian"},
        "outcomes": 7,
        "noise": "uniform",
        "noise_dim": 5,
        "g_lr": 0.1,
        "d_lr": 0.2,
        "beta1": 0.3,
        "beta2": 0.4,
        "decay": 0.5,
        "ema": 0.6,
        "step_kind": "one_pass",
        "steps": 11,
        "seed": 12,
        "threads": 1,
        "log_every": 13,
        "sample_every": 14,
        "checkpoint_every": 15,
        "samples": 16,
        "network": "dcgan_article",
    }
    assert {k: found[k] for k in expected} == expected


def test_resume_extends_a_run(run: Path, tmp_path: Path) -> None:
    assert main([*TOY, "--out", str(tmp_path / "r")]) == 0
    assert main(["train", "--resume", str(tmp_path / "r"), "--steps", "6", "--quiet"]) == 0
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]
    assert TrainConfig.load(tmp_path / "r" / "config.json").steps == 6


def test_runs_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(TOY) == 0
    assert main([*TOY, "--preset", "standard"]) == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"toy", "toy-2", "toy-standard"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train toy --preset nothing", "recipe 'toy' has no preset 'nothing'"),
        ("train --resume nowhere", "no checkpoint at nowhere"),
        ("train dcgan --data folder:nowhere", "nowhere"),
        ("train dcgan --data digits --batch-size 5000 --out {}", "1797 images"),
        ("train dcgan --accumulate 3", "accumulate=3 must divide batch_size=128"),
        ("train dcgan --step ratio --steps 1 --out {}", "BatchNorm"),
        (
            "train toy --seed 9223372036854775808",
            "seed must be an integer from -2**63 to 2**63 - 1",
        ),
        ("train toy --seed -9223372036854775809", "2**63 - 1, got -9223372036854775809"),
        ("sample nowhere", "no checkpoint at nowhere"),
        ("evaluate nowhere", "no checkpoint at nowhere"),
    ],
)
def test_failures_are_one_line_and_a_status(
    command: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.format(tmp_path / "run").split()) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_seed_out_of_range_is_named(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(run), "--seed", str(2**64)]) == 1
    assert (
        f"seed must be an integer from -2**63 to 2**63 - 1, got {2**64}" in capsys.readouterr().err
    )


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63 - 1])
def test_every_seed_in_range_trains_and_scores(seed: int, tmp_path: Path) -> None:
    command = [*TOY, "--steps", "1", "--seed", str(seed), "--out", str(tmp_path / "r")]
    assert main(command) == 0
    samples = ["--samples", "9", "--seed", str(seed)]
    assert main(["evaluate", str(tmp_path / "r"), *samples]) == 0


def test_a_run_of_another_recipe_is_not_resumed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "dcgan", "--resume", str(run)]) == 1
    assert "is a run of toy, got dcgan" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "info --quick"])
def test_what_is_no_command_or_option_is_a_usage_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    assert command.split()[-1] in capsys.readouterr().err


def test_info_says_what_runs_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert json.loads(capsys.readouterr().out)["torch_running"] == torch.__version__


def test_info_checks_what_was_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operator on every device; one that computes something else is named, and the others are tried."""
    assert main(["info", "--check"]) == 0
    found = json.loads(capsys.readouterr().out)["check"]
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    assert list(found) == devices
    for device in found.values():
        assert device["operators"] == len(OPERATORS)
        assert device["calls"] >= 2 * len(OPERATORS)
        assert device["failures"] == []

    right = gk.functional.hinge_d_loss
    monkeypatch.setattr(gk.functional, "hinge_d_loss", lambda *a, **k: right(*a, **k) * 1.01)
    assert main(["info", "--check"]) == 1
    failures = json.loads(capsys.readouterr().out)["check"]["cpu"]["failures"]
    assert len(failures) == 2
    assert all(line.startswith("hinge_d_loss 3x4 ") for line in failures)


def test_help_names_every_preset_and_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    from gankernels.training.recipes import RECIPES

    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for recipe in RECIPES.values():
        assert all(f"--preset {name}" in text for name in recipe.presets)
