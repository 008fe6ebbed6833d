"""Timing that a noisy machine cannot bend one way: all contenders in turn, round after round."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from torch.utils.benchmark import Timer

WARM_UP = 3


@dataclass(frozen=True)
class Measurement:
    """Microseconds per call over the rounds."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def percentile(self, p: int) -> float:
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, round(p / 100 * (len(ordered) - 1)))]


def interleaved(
    contenders: dict[str, Callable[[], object]],
    *,
    threads: int = 1,
    rounds: int = 25,
    seconds_per_block: float = 0.01,
) -> dict[str, Measurement]:
    """Times every contender in each round, so that drift and neighbours hit all alike.

    A block is as many calls as fill `seconds_per_block`; a round is one block of each contender, in an order
    that rotates. Garbage collection is off; `torch.utils.benchmark` pins the threads.
    """
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=threads)
        for name, call in contenders.items()
    }
    blocks = {}
    for name, timer in timers.items():
        timer.timeit(WARM_UP)
        once = max(timer.timeit(WARM_UP).mean, 1e-7)
        blocks[name] = max(1, round(seconds_per_block / once))
    samples: dict[str, list[float]] = {name: [] for name in timers}
    names = list(timers)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                samples[name].append(timers[name].timeit(blocks[name]).mean * 1e6)
    finally:
        gc.enable()
    return {name: Measurement(tuple(times)) for name, times in samples.items()}


def paired_ratio(rival: Measurement, ours: Measurement) -> float:
    """Median of the rounds' ratios rival / ours: above 1, ours is faster."""
    return statistics.median(r / o for r, o in zip(rival.samples, ours.samples, strict=True))
