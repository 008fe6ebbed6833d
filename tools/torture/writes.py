"""Every write of a run killed half way or failed: what is left goes on to the state of an undisturbed run."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gankernels.training import checkpoint, configuration
from gankernels.training.loop import train
from tools.torture.attack import Found
from tools.torture.files import same

FINISHED, NAMED, UNNAMED, ANOTHER = range(4)  # how a run ended, as its exit status
KINDS = ("killed", "full", "broken")
STEPS = {"before": 2, "after": 6}


class Faults:
    """Between Python and the operating system: counts what would change the disk, and lets one of it fail.

    Args:
        place: Which, from 0 on.
        kind: ``"killed"``: the process dies in the middle of it, with half of the bytes written.
            ``"full"``: there is no space left, for that and every later one. ``"broken"``: that one fails.
    """

    def __init__(self, place: int, kind: str) -> None:
        self.place, self.kind, self.count = place, kind, 0

    def meet(
        self, *path: Any, needs_space: bool = False, half: Callable[[], object] | None = None
    ) -> None:
        """Before something is done, to a path if the operating system's error would name that.

        Args:
            path: That path.
            needs_space: Whether a full disk would refuse it.
            half: Does half of it.
        """
        here, self.count = self.count, self.count + 1
        if self.kind == "full" and needs_space and here >= self.place:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *path)
        if here == self.place and self.kind == "killed":
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        if here == self.place and self.kind == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO), *path)

    def install(self) -> None:
        """For the rest of the process."""
        opened = io.open
        faults = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                whole = bytes(data)
                part = whole[: len(whole) // 2]
                faults.meet(needs_space=True, half=lambda: io.FileIO.write(self, part))
                return super().write(data)

        def open_(
            file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any
        ) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return opened(file, mode, buffering, *args, **options)
            faults.meet(file, needs_space=True)
            raw = Raw(file, mode.replace("b", "").replace("t", ""))
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

        def met(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(file: Any, *args: Any, **options: Any) -> Any:
                faults.meet(*([] if isinstance(file, int) else [file]))
                return function(file, *args, **options)

            return call

        builtins.open = io.open = open_
        os.replace, os.fsync, os.unlink = met(os.replace), met(os.fsync), met(os.unlink)


def config(steps: int) -> Any:
    return configuration(
        "toy", steps=steps, batch_size=8, samples=4, checkpoint_every=2, sample_every=2, log_every=1
    )


def resumed(folder: Path, faults: Faults) -> int:
    """The exit status of a process that goes on with the run; negative: the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = ANOTHER
        try:
            faults.install()
            train(config(STEPS["after"]), folder, resume=True, progress=False)
            status = FINISHED
        except OSError as error:
            status = NAMED if str(folder) in str(error.filename) else UNNAMED
            if status == UNNAMED:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        if faults.place < 0:
            (folder.parent / "count").write_text(str(faults.count))
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def metrics(folder: Path) -> list[dict[str, Any]]:
    """What was logged, but for the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


class Expectation:
    """A run of a few steps, and how it ends where nothing befalls it."""

    def __init__(self, folder: Path) -> None:
        self.start, whole = folder / "start", folder / "whole"
        train(config(STEPS["before"]), self.start, progress=False)
        shutil.copytree(self.start, whole)
        if resumed(whole, Faults(-1, "none")) != FINISHED:
            raise AssertionError("the run does not go on even where nothing befalls it")
        self.writes = int((folder / "count").read_text())
        self.state, self.metrics = checkpoint.load(whole), metrics(whole)
        self.files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())

    def check(self, folder: Path, place: int, kind: str) -> None:
        shutil.copytree(self.start, folder)
        status = resumed(folder, Faults(place, kind))
        ends = (-signal.SIGKILL,) if kind == "killed" else (NAMED, FINISHED)
        if status not in ends:
            raise AssertionError(f"it ended with {status}")
        if checkpoint.load(folder)["step"] < STEPS["before"]:
            raise AssertionError("the checkpoint is gone back")
        if resumed(folder, Faults(-1, "none")) != FINISHED:
            raise AssertionError("the run cannot go on")
        if not same(checkpoint.load(folder), self.state):
            raise AssertionError("the run ends in another state")
        if metrics(folder) != self.metrics:
            raise AssertionError("the log is another")
        if sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()) != self.files:
            raise AssertionError("other files are left")
        shutil.rmtree(folder)


def run(share: float) -> Found:
    torch.set_num_threads(1)  # a forked child of several threads could wait for them for ever
    found = Found()
    with tempfile.TemporaryDirectory() as place:
        expected = Expectation(Path(place))
        stride = max(1, round(1 / share))
        cases = [(kind, n) for kind in KINDS for n in range(expected.writes)]
        for kind, n in cases[::stride]:
            folder = Path(place, f"{kind}-{n}")
            found.attempt(f"{kind} at {n}", lambda f=folder, n=n, k=kind: expected.check(f, n, k))  # type: ignore[misc]
    found.note = f"{expected.writes} places in a run of {STEPS['after']} steps"
    return found
