"""Half an hour of training: memory stays where it is, and a run afterwards gives the bits of the run before."""

from __future__ import annotations

import math
import tempfile
import threading
import time

import torch
from torch import Tensor

from gankernels.training import TrainConfig, configuration, load_generator, train
from tools.torture.attack import Found
from tools.torture.soak import MOST_MIB, resident

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


def trained(config: TrainConfig) -> tuple[dict[str, Tensor], float]:
    """The generator that a run leaves, and the seconds of the run."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(config, folder, progress=False)
        seconds = time.perf_counter() - start
        return load_generator(folder)[0].state_dict(), seconds


def run(share: float) -> Found:
    found = Found()
    config = configuration("realness").but(device="cpu", checkpoint_every=10)
    first, seconds = trained(config.but(steps=SHORT))
    steps = max(SHORT, math.ceil(share * SECONDS * SHORT / seconds))
    watch = Watch()
    watch.start()
    _, seconds = trained(config.but(steps=steps, sample_every=max(1, steps // 100)))
    grown = watch.growth()
    last, _ = trained(config.but(steps=SHORT))
    found.cases = steps
    if grown > MOST_MIB:
        found.failures.append(f"{grown:.1f} MiB more in the last third of {steps} steps")
    if not all(torch.equal(a, b) for a, b in zip(first.values(), last.values(), strict=True)):
        found.failures.append("a run after it is not the run before it")
    found.note = f"{seconds:.0f} s of training; {max(grown, 0.0):.1f} MiB more in the last third"
    return found
