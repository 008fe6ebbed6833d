"""A run owns its folder: what an older run left there cannot be seen, and what belongs to a user stays."""

from __future__ import annotations

import base64
import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from gankernels._files import write_whole
from gankernels.training import TrainConfig, checkpoint, configuration, report, run_folder
from gankernels.training.cli import main
from gankernels.training.distributed import World
from gankernels.training.loop import train
from gankernels.training.metrics import MetricLog

# Without decay the first steps of a longer plan are the same.
TINY = {"steps": 4, "batch_size": 8, "samples": 4, "sample_every": 2, "log_every": 2, "decay": 0.0}
TOY = ["train", "toy", "--quiet", "--steps", "4", "--batch-size", "8", "--samples", "9"]
# Times of day and speeds differ between any two runs.
CHANGING = {"metrics.jsonl", "curves.png", "report.html"}


def run(folder: Path, **changes: object) -> None:
    train(configuration("toy", **(TINY | changes)), folder, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".0" and "tfevents" not in path.name
    }


def assert_same(left: Path, right: Path, but: frozenset[str] = frozenset()) -> None:
    a, b = contents(left), contents(right)
    assert set(a) == set(b)
    for name in set(a) - CHANGING - but:
        assert a[name] == b[name], name


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    run(folder)
    return folder


def test_the_list_names_every_file_that_a_run_writes(clean: Path) -> None:
    written = {path for path in clean.rglob("*") if path.is_file()}
    listed = {path for pattern in run_folder.FILES for path in clean.glob(pattern)}
    assert written == listed


@pytest.mark.usefixtures("drawn")
def test_what_an_older_run_left_is_gone_and_the_users_files_stay(
    clean: Path, tmp_path: Path
) -> None:
    for pattern in run_folder.FILES:
        name = pattern.replace("step_*", "step_0009999").replace("tfevents.*", "tfevents.1.old")
        if name != "checkpoint.pt":  # which refuses a second run
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"an older run's")
    notes = [tmp_path / "notes.txt"]
    notes += [tmp_path / "samples" / name for name in ("mine.png", "step_mine.png")]
    for note in notes:
        note.write_text("mine")
    run(tmp_path)
    for note in notes:
        assert note.read_text() == "mine"
        note.unlink()
    assert not list((tmp_path / "tensorboard").glob("*.old"))
    assert_same(tmp_path, clean)


def test_a_run_in_a_folder_that_is_called_samples(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    configuration("toy").save(folder / "config.json")
    assert run_folder.holds_a_run(folder)
    run_folder.clear(folder)
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("drawn")
def test_a_resumed_run_drops_what_lies_beyond_its_checkpoint(clean: Path, tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    for step in (3, 4, 100):
        (tmp_path / "samples" / f"step_{step:07d}.png").write_bytes(b"of a future that never was")
    (tmp_path / "evaluation.json").write_text("{}")
    train(configuration("toy", **TINY), tmp_path, resume=True, progress=False)
    # Equal strings may be one object or two, which a pickle shows.
    assert_same(tmp_path, clean, but=frozenset({"checkpoint.pt"}))
    states = [checkpoint.load(folder)["generator"] for folder in (tmp_path, clean)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_the_default_folder_is_one_that_no_run_has_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = configuration("toy")
    (tmp_path / "runs" / "toy").mkdir(parents=True)
    config.save(tmp_path / "runs" / "toy" / "config.json")  # killed before its first checkpoint
    assert main(TOY) == 0
    assert (tmp_path / "runs" / "toy-2" / "final.png").exists()


# ---- files that cannot be written ----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOTSUP])
@pytest.mark.parametrize("function", ["open", "fsync"])
def test_folders_that_cannot_be_opened_or_synced(
    function: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(os, function)

    def refuse(target: object, *args: object) -> object:
        if os.path.isdir(target):  # type: ignore[arg-type]
            raise OSError(number, "not for folders")
        return original(target, *args)

    monkeypatch.setattr(os, function, refuse)
    checkpoint.save(tmp_path / "checkpoint.pt", {"step": 1})
    assert checkpoint.load(tmp_path)["step"] == 1


@pytest.mark.parametrize("function", ["torch.save", "os.fsync", "os.replace"])
def test_a_full_disk_keeps_the_last_good_checkpoint(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "checkpoint.pt", {"step": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(function, full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path / "checkpoint.pt", {"step": 2})
    monkeypatch.undo()
    assert checkpoint.load(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_disk_that_is_full_while_the_command_line_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert main([*TOY, "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    place = tmp_path / "run" / "checkpoint.pt"
    assert message.splitlines() == [f"gankernels: [Errno 28] No space left on device: '{place}'"]
    assert not list((tmp_path / "run").glob("checkpoint*"))


def test_every_file_on_a_full_disk_is_named(tmp_path: Path) -> None:
    full = Path("/dev/full")

    def unnamed(_: Path) -> None:
        raise OSError("broken data stream")

    for number, save in enumerate((lambda _: full.write_text("x" * 10**6), unnamed)):
        place = tmp_path / f"{number}.json"
        with pytest.raises(OSError, match=f"{place}") as caught:
            write_whole(place, save)
        assert ("No space left", "broken data stream")[number] in str(caught.value)
    log = MetricLog(full, World(0, 1, torch.device("cpu")))
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        log.write(1, d_loss=1.0)


def test_a_tensor_file_on_a_full_disk_is_named(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", str(clean), "--samples", "4", "--out", str(tmp_path / "a.png")]
    assert main([*command, "--tensor", "/dev/full"]) == 1
    assert capsys.readouterr().err.endswith("No space left on device: '/dev/full'\n")


def test_a_resumed_run_says_that_scores_are_stale(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, quiet in (("told", []), ("quiet", ["--quiet"])):
        folder = shutil.copytree(clean, tmp_path / name)
        scores = folder / "evaluation.json"
        scores.write_text("{}")
        steps = TrainConfig.load(folder / "config.json").steps
        command = ["train", "--resume", str(folder), "--steps"]
        assert main([*command, str(steps), *quiet]) == 0
        assert scores.exists()  # no step was left to do
        assert f"{scores} was removed" not in capsys.readouterr().out
        assert main([*command, str(steps + 1), *quiet]) == 0
        assert not scores.exists()
        assert (f"{scores} was removed" in capsys.readouterr().out) == (not quiet)


def test_a_checkpoint_that_no_longer_fits(tmp_path: Path) -> None:
    """torch.save gives a RuntimeError where a later write fails; what failed is a write."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(path, {"step": 2, "weights": torch.zeros(100, 100, 100)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_events_of_an_older_run_are_gone(tmp_path: Path) -> None:
    """TensorBoard's writer need not be installed, so its files are named here."""
    events = tmp_path / "tensorboard" / "events.out.tfevents.1764000000.host.1.0"
    events.parent.mkdir()
    events.write_bytes(b"an older run's")
    run(tmp_path, steps=1)
    assert not events.exists()


def test_a_disk_that_is_really_full() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(OSError, match="No space"),
    ):
        checkpoint.save_tensors({"weights": torch.zeros(1_000_000)}, file)


def test_an_evaluation_that_cannot_be_written_keeps_the_old_one(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.json"
    out.write_text("old")

    def half(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    assert main(["evaluate", str(clean), "--samples", "100", "--out", str(out)]) == 1
    assert out.read_text() == "old"


def test_pictures_of_others_stay_out_of_the_report(clean: Path, tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    (tmp_path / "mine.gif").write_bytes(b"GIF of mine")
    (tmp_path / "samples" / "zebra.png").write_bytes(b"PNG of mine")
    late = [tmp_path / "samples" / f"step_{step}.png" for step in (9_999_998, 10_000_000)]
    for path in late:
        path.write_bytes(b"")
    assert run_folder.frames(tmp_path)[-2:] == late
    for path in late:
        path.unlink()
    page = report.write_report(tmp_path).read_text()
    assert "zebra" not in page
    assert base64.b64encode(b"GIF of mine").decode() not in page


def test_outputs_below_a_file(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    below = str(file / "below")
    sample = ["sample", str(clean), "--samples", "4"]
    commands = [
        [*TOY, "--out", below],
        [*sample, "--out", below],
        [*sample, "--out", str(tmp_path / "a.png"), "--tensor", below],
        ["evaluate", str(clean), "--samples", "100", "--out", below],
    ]
    for command in commands:
        assert main(command) == 1, command
        captured = capsys.readouterr().err
        assert captured.startswith("gankernels: "), captured
        assert len(captured.splitlines()) == 1
