"""Runs that are killed, stopped or broken, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from gankernels.training import (
    NonFiniteError,
    RunInterruptedError,
    TrainConfig,
    Trainer,
    checkpoint,
    configuration,
)
from gankernels.training.loop import train

# BatchNorm, spectral norm, resampling from the global generator, flips, EMA, a learning-rate decay.
OPTIONS = """
    train realness --preset strong --image-size 8 --batch-size 16 --outcomes 5 --decay 0.5
    --flip --samples 4 --steps 60 --log-every 7 --sample-every 25 --checkpoint-every 10
    --threads 1 --quiet
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gankernels", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    return output


def wait_until(process: subprocess.Popen[str], ready: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run did not get there in time"
        time.sleep(0.005)


def lines(run: Path) -> list[dict[str, Any]]:
    text = (run / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        del record["images_per_second"]
    return records


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, x in value.items() for k, v in flat(x, f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, x in enumerate(value) for k, v in flat(x, f"{name}.{i}").items()}
    return {name: value}


def assert_same_runs(run: Path, other: Path) -> None:
    """Every tensor and number of the checkpoints, every metric, every picture."""
    ours, theirs = (flat(checkpoint.load(r)) for r in (run, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, theirs[name]), name
        else:
            assert value == theirs[name], name
    assert lines(run) == lines(other)
    pictures = sorted(p.name for p in (run / "samples").iterdir())
    assert pictures == sorted(p.name for p in (other / "samples").iterdir())
    for name in pictures:
        assert (run / "samples" / name).read_bytes() == (other / "samples" / name).read_bytes()


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options above on a folder of pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = torch.randint(256, (40, 8, 8), generator=torch.Generator().manual_seed(0))
    for i, picture in enumerate(pixels.byte().numpy()):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return [*OPTIONS.split(), "--data", f"folder:{folder}"]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start(*command, "--out", str(run)))
    return run


@pytest.mark.processes
def test_a_killed_run_ends_as_the_undisturbed_one(
    command: list[str], whole: Path, tmp_path: Path
) -> None:
    """SIGKILL twice: a while after the first checkpoint, and as the next one is being written."""
    run = tmp_path / "run"
    saved = run / "checkpoint.pt"
    process = start(*command, "--out", str(run))
    wait_until(process, saved.exists)
    time.sleep(0.03)
    process.kill()
    process.wait()
    first = checkpoint.load(run)["step"]
    assert 0 < first < 60
    process = start("train", "--resume", str(run), "--quiet")
    wait_until(process, lambda: saved.with_name("checkpoint.pt.part").exists())
    process.kill()
    process.wait()
    assert first <= checkpoint.load(run)["step"] < 60
    # Half a line is what a kill in the middle of a write leaves.
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 9999, "d_lo')
    finish(start("train", "--resume", str(run), "--quiet"))
    assert_same_runs(run, whole)
    assert [r["step"] for r in lines(run)] == [*range(7, 60, 7), 60]


@pytest.mark.processes
def test_a_stopped_run_is_saved_and_goes_on(
    command: list[str], whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(*command, "--out", str(run))
    metrics = run / "metrics.jsonl"
    wait_until(process, lambda: metrics.exists() and metrics.stat().st_size)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 128 + signal.SIGTERM)
    step = checkpoint.load(run)["step"]
    assert f"stopped by SIGTERM after step {step}; saved" in output
    assert (run / "report.html").exists()
    finish(start("train", "--resume", str(run), "--quiet"))
    assert_same_runs(run, whole)


def test_ctrl_c_saves_at_the_end_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def interrupted(self: Trainer) -> None:
        if self.done == 6:
            signal.raise_signal(signal.SIGINT)
        step(self)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(RunInterruptedError, match="stopped by SIGINT after step 7"):
        train(configuration("dcgan", **SMALL), tmp_path, progress=False)
    assert checkpoint.load(tmp_path)["step"] == 7
    assert signal.getsignal(signal.SIGINT) is before


class StopHereError(Exception):
    """Ends a run in the middle of a step."""


SMALL: dict[str, Any] = {
    "batch_size": 8,
    "steps": 8,
    "log_every": 3,
    "sample_every": 4,
    "checkpoint_every": 5,
    "samples": 4,
    "threads": 1,
}


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("grl", {"network_options": {"width": 16}}),
        ("dcgan", {"ema": 0.9, "amp": "bf16"}),
        ("realness", {"amp": "fp16", "flip": True, "loss_options": {"redraw": True}}),
        ("toy", {}),
    ],
)
def test_every_recipe_resumes_bit_for_bit(
    recipe: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(recipe, **SMALL, **changes)
    train(config, tmp_path / "whole", progress=False)
    step = Trainer.step

    def breaks(self: Trainer) -> None:
        if self.done == 7:
            raise StopHereError
        step(self)

    monkeypatch.setattr(Trainer, "step", breaks)
    with pytest.raises(StopHereError):
        train(config, tmp_path / "broken", progress=False)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "broken")["step"] == 5
    train(config, tmp_path / "broken", progress=False, resume=True)
    assert_same_runs(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize(
    ("spoil", "phase"),
    [
        ("discriminator", "d_loss is nan in the discriminator phase of step 7"),
        ("g_gradient", "g_grad_norm is nan in the generator phase of step 7"),
    ],
)
def test_a_run_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    spoil: str, phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def spoils(self: Trainer) -> None:
        if self.done == 6 and spoil == "g_gradient":
            first = next(self.players.generator.parameters())
            first.register_hook(lambda g: g * float("nan"))
        elif self.done == 6:
            with torch.no_grad():
                next(self.players.discriminator.parameters()).fill_(float("nan"))
        step(self)

    monkeypatch.setattr(Trainer, "step", spoils)
    config = configuration("dcgan", order="d_first", **SMALL)
    with pytest.raises(NonFiniteError, match=phase):
        train(config, tmp_path, progress=False)
    state = checkpoint.load(tmp_path)
    assert state["step"] == 5
    weights = [v for part in ("generator", "discriminator") for v in state[part].values()]
    assert all(v.isfinite().all() for v in weights)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    from gankernels.training.distributed import World

    config = configuration("dcgan", **SMALL)
    trainer = Trainer(config, tmp_path, World(0, 1, torch.device("cpu")))
    trainer.save()
    with torch.no_grad():
        next(trainer.players.generator.parameters()).fill_(float("inf"))
    trainer.done = 1
    with pytest.raises(NonFiniteError, match="weights of the generator are not finite at step 1"):
        trainer.save()
    assert checkpoint.load(tmp_path)["step"] == 0


# --------------------------------------------------------------------------- checkpoint files


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"step": 1})

    def full(_descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load(path)["step"] == 1


def test_unreadable_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.load(tmp_path)
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"step": 1})
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a readable checkpoint"):
            checkpoint.load(path)
    torch.save({"format": 99}, path)
    with pytest.raises(ValueError, match="checkpoint format 99, expected 1"):
        checkpoint.load(path)


class Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("code ran",))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 1, "payload": Payload()}, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        checkpoint.load(path)
    assert "code ran" not in capsys.readouterr().out


def test_resuming_with_other_networks_is_refused(tmp_path: Path) -> None:
    config = configuration("dcgan", **SMALL)
    train(config, tmp_path, progress=False)
    with pytest.raises(ValueError, match="holds a run already"):
        train(config, tmp_path, progress=False)
    with pytest.raises(ValueError, match="of other networks"):
        train(config.but(network_options={"width": 8}), tmp_path, progress=False, resume=True)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = configuration("toy", clip=0.5, seed=3)
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config
    with pytest.raises(ValueError, match="unknown configuration keys: speed"):
        TrainConfig.from_dict({"speed": 1})
