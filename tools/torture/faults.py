"""Faults in the middle of a training: a clear end, and a run that goes on to the bits of an undisturbed one."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from gankernels.training import (
    NonFiniteError,
    RunInterruptedError,
    TrainConfig,
    Trainer,
    checkpoint,
    configuration,
    train,
)
from tools.torture.attack import Found
from tools.torture.files import same
from tools.torture.writes import metrics

STEPS = 9
RECIPES: dict[str, dict[str, Any]] = {
    "grl": {"image_size": 8, "channels": 3, "network_options": {"width": 8}},
    "dcgan": {"image_size": 8, "network_options": {"width": 8}, "ema": 0.9, "flip": True},
    "realness": {"image_size": 8, "loss_options": {"redraw": True}},
    "toy": {},
}
SECONDS = 60  # within which the others of a killed process must have ended


class BreaksError(Exception):
    """What a data set or a network raises."""


def config(recipe: str, steps: int = STEPS) -> TrainConfig:
    return configuration(
        recipe, steps=steps, batch_size=8, samples=4, log_every=3, sample_every=4, checkpoint_every=2,
        device="cpu", **RECIPES[recipe],
    )  # fmt: skip


def left(folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """The state of a run, and its log."""
    return checkpoint.load(folder), metrics(folder)


def finite(state: dict[str, Any]) -> bool:
    weights = [x for part in ("generator", "discriminator") for x in state[part].values()]
    return all(bool(x.isfinite().all()) for x in weights)


# --------------------------------------------------------------- what happens at a step, before it is done


def nan_batch(trainer: Trainer) -> None:
    update = trainer._update

    def once(real: Tensor, iteration: int) -> Any:
        trainer._update = update  # type: ignore[method-assign]
        real = real.clone()
        real[0].flatten()[0] = float("nan")
        return update(real, iteration)

    trainer._update = once  # type: ignore[method-assign]


def explosion(trainer: Trainer) -> None:
    """A learning rate at which one step leaves float32."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 1e38


def data_error(trainer: Trainer) -> None:
    def broken() -> Any:
        raise BreaksError("the disk is gone")
        yield

    trainer.stream = broken()


def network_error(trainer: Trainer) -> None:
    def broken(*_: Any) -> None:
        raise BreaksError("out of memory")

    trainer.players.generator.register_forward_hook(broken)


def signals(trainer: Trainer) -> None:
    for _ in range(20):
        signal.raise_signal(signal.SIGTERM)


FAULTS: dict[str, tuple[Callable[[Trainer], None], type[Exception]]] = {
    "NaN in a batch": (nan_batch, NonFiniteError),
    "an exploding loss": (explosion, NonFiniteError),
    "an error of the data": (data_error, BreaksError),
    "an error of the network": (network_error, BreaksError),
    "twenty SIGTERMs": (signals, RunInterruptedError),
}


def broken_run(run: TrainConfig, folder: Path, at: int, fault: str) -> None:
    """Trains until the fault has ended the run in the right way, and looks at what it left."""
    do, expected = FAULTS[fault]
    step = Trainer.step

    def disturbed(self: Trainer) -> None:
        if self.done == at:
            do(self)
        step(self)

    with mock.patch.object(Trainer, "step", disturbed):
        try:
            train(run, folder, progress=False)
        except expected as error:
            message = str(error)
        else:
            raise AssertionError("it went on")
    # The weights that a huge step leaves are found by the next loss, or when they are saved.
    steps = [f"step {at + 1}"] + [f"step {s}" for s in range(at + 2, at + 4)] * (do is explosion)
    if expected is not BreaksError and not any(wanted in message for wanted in steps):
        raise AssertionError(f"expected {' or '.join(steps)} in: {message}")
    if (folder / "checkpoint.pt").exists() and not finite(checkpoint.load(folder)):
        raise AssertionError("the checkpoint is not finite")


def compare(run: TrainConfig, folder: Path, expected: tuple[dict[str, Any], list[Any]]) -> None:
    """Goes on from where there is a checkpoint, and begins anew where there is none yet."""
    train(run, folder, progress=False, resume=(folder / "checkpoint.pt").exists())
    (state, log), (wanted, wanted_log) = left(folder), expected
    if not same(state, wanted):
        raise AssertionError("it went on to another state")
    if log != wanted_log:
        raise AssertionError("it left another log")


def undisturbed(run: TrainConfig, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    train(run, folder, progress=False)
    return left(folder)


def of_faults(found: Found, root: Path, share: float) -> None:
    for recipe in RECIPES if share == 1 else ["grl"]:
        run = config(recipe)
        expected = undisturbed(run, root / recipe)
        for fault, at in itertools.product(FAULTS, range(STEPS - 1) if share == 1 else [4]):
            folder = root / f"{recipe} {fault} {at}"

            def check(
                run: Any = run,
                folder: Path = folder,
                at: int = at,
                fault: str = fault,
                expected: Any = expected,
            ) -> None:
                broken_run(run, folder, at, fault)
                compare(run, folder, expected)

            found.attempt(f"{recipe}, {fault} at step {at + 1}", check)


# --------------------------------------------------------------------------- signals that do not end


def under_storm(run: TrainConfig, folder: Path) -> None:
    """SIGTERM thousands of times a second, from the first line of the log until the process is gone."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(run, folder, progress=False)
            status = 0
        except RunInterruptedError:
            status = 128 + signal.SIGTERM
        finally:  # whatever it ends with, the rest is the parent's
            os._exit(status)
    log, ended = folder / "metrics.jsonl", (0, 0)
    while not ended[0]:
        if log.exists() and log.stat().st_size:
            os.kill(child, signal.SIGTERM)
        time.sleep(0.0002)
        ended = os.waitpid(child, os.WNOHANG)
    status = os.waitstatus_to_exitcode(ended[1])
    if status not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
        raise AssertionError(f"it ended with {status}")


def of_storms(found: Found, root: Path, share: float) -> None:
    for recipe in RECIPES if share == 1 else ["grl"]:
        run = config(recipe, 60)
        expected = undisturbed(run, root / f"{recipe} long")
        for turn in range(max(1, round(share * 5))):
            folder = root / f"{recipe} storm {turn}"

            def check(run: Any = run, folder: Path = folder, expected: Any = expected) -> None:
                under_storm(run, folder)
                compare(run, folder, expected)

            found.attempt(f"{recipe}, a storm of SIGTERMs", check)


# ------------------------------------------------------------------------------------- lost processes


def processes(folder: Path, size: int) -> list[subprocess.Popen[str]]:
    """A run of several processes that would not end by itself, past its first checkpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (
        "toy --steps 1000000 --batch-size 8 --samples 4 --checkpoint-every 5 --log-every 5 --threads 1 "
        "--sample-every 1000000 --device cpu --quiet"
    )
    command = [sys.executable, "-m", "gankernels", "train", *options.split(), "--out", str(folder)]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            command, env={**os.environ, **common, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return started


def kill_one(folder: Path, size: int, victim: int) -> None:
    started = processes(folder, size)
    started[victim].kill()
    try:
        for rank, process in enumerate(started):
            _, message = process.communicate(timeout=SECONDS)
            if rank == victim:
                continue
            line = f"gankernels: process {rank} lost the connection to another process of the run"
            if process.returncode != 1 or line not in message or "Traceback" in message:
                raise AssertionError(f"process {rank} ended with {process.returncode}: {message}")
    finally:
        for process in started:
            process.kill()
    done = checkpoint.load(folder)["step"]
    if done < 5:
        raise AssertionError(f"the checkpoint is of step {done}")


def of_lost_processes(found: Found, root: Path, share: float) -> None:
    for size, victim in [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)] if share == 1 else [(2, 0)]:
        folder = root / f"{victim} of {size}"
        found.attempt(
            f"process {victim} of {size} is killed", partial(kill_one, folder, size, victim)
        )


def run(share: float) -> Found:
    found = Found(
        note=f"{len(FAULTS)} faults at each of {STEPS - 1} steps of {len(RECIPES)} systems"
    )
    with tempfile.TemporaryDirectory() as folder:
        of_faults(found, Path(folder), share)
        of_storms(found, Path(folder), share)
        of_lost_processes(found, Path(folder), share)
    return found
