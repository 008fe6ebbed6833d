"""Half an hour of training: memory stays where it is, and a run afterwards gives the bits of the run before."""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
import time

import torch
from torch import Tensor

from gankernels.training import (
    RunInterruptedError,
    TrainConfig,
    configuration,
    load_generator,
    train,
)
from tools.torture.attack import Found
from tools.torture.memory import resident
from tools.torture.soak import MOST_MIB

SECONDS = 30 * 60
SHORT = 30  # steps


class Watch(threading.Thread):
    """The memory of this process, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.5):
            self.seen.append(resident())

    def growth(self) -> float:
        """MiB by which the last third's peak is above that of the third before it; not the end, which draws."""
        self.stop.set()
        self.join()
        steps = self.seen[: -max(1, len(self.seen) // 20)]
        third = len(steps) // 3
        return max(steps[-third:]) - max(steps[third:-third])


def trained(config: TrainConfig) -> dict[str, Tensor]:
    """The generator that a run leaves."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder, progress=False)
        return load_generator(folder)[0].state_dict()


def steps_until(seconds: float, config: TrainConfig) -> int:
    """How many steps a run does until a SIGTERM ends it."""
    stop = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    with tempfile.TemporaryDirectory() as folder:
        stop.start()
        try:
            train(config.but(steps=10**9), folder, progress=False)
        except RunInterruptedError as error:
            return error.step
    raise AssertionError("it ended by itself")


def run(share: float) -> Found:
    found = Found()
    config = configuration("realness").but(device="cpu", checkpoint_every=10)
    start = time.perf_counter()
    first = trained(config.but(steps=SHORT))
    per_picture = math.ceil(share * SECONDS * SHORT / (time.perf_counter() - start) / 100)
    watch = Watch()
    watch.start()
    found.cases = steps_until(share * SECONDS, config.but(sample_every=per_picture))
    grown = watch.growth()
    last = trained(config.but(steps=SHORT))
    if grown > MOST_MIB:
        found.failures.append(f"{grown:.1f} MiB more in the last third of {found.cases} steps")
    if not all(torch.equal(a, b) for a, b in zip(first.values(), last.values(), strict=True)):
        found.failures.append("a run after it is not the run before it")
    found.note = (
        f"{share * SECONDS:.0f} s of training; {max(grown, 0.0):.1f} MiB more in the last third"
    )
    return found
