"""Metrics of a run: kept on the device between lines, written once, consistent after a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gankernels._files import naming_file, write_whole
from gankernels.training.distributed import World
from gankernels.training.players import Metrics

__all__ = ["MetricLog", "NonFiniteError"]

PHASES = {
    "d": "the discriminator phase",
    "g": "the generator phase",
    "r1": "the R1 penalty",
    "r2": "the R2 penalty",
    "lecam": "the LeCam penalty",
}
"""What a metric is of, by the first part of its name."""


class NonFiniteError(RuntimeError):
    """A loss or a gradient became NaN or infinite; the last checkpoint is from before that."""


class MetricLog:
    """Collects the metrics of each step and writes their means to ``metrics.jsonl``.

    Args:
        path: The file; appended to.
        world: Processes whose means are taken; the first one writes.
        scaled: Whether a loss scale is in use, which skips steps with non-finite gradients itself.
    """

    def __init__(self, path: Path, world: World, scaled: bool = False) -> None:
        self.path = path
        self.world = world
        self.scaled = scaled
        self._on_device: list[tuple[int, Metrics]] = []
        self._on_host: list[tuple[int, dict[str, float]]] = []
        self._notes: dict[str, Any] = {}

    def add(self, step: int, metrics: Metrics) -> None:
        """Keep one step's metrics without waiting for them."""
        self._on_device.append((step, metrics))

    def note(self, scores: Mapping[str, float | list[float]]) -> None:
        """Put ``scores``, which are not measured at every step, into the next line."""
        self._notes |= scores

    def collect(self) -> None:
        """Bring what was kept to the host, in one transfer, and check it.

        Raises:
            NonFiniteError: A value is NaN or infinite; the message names its step and phase.
        """
        if not self._on_device:
            return
        values = [v.detach().double() for _, metrics in self._on_device for v in metrics.values()]
        flat = iter(self.world.mean(torch.stack(values)).tolist())
        for step, metrics in self._on_device:
            self._on_host.append((step, {name: next(flat) for name in metrics}))
        self._on_device.clear()
        for step, numbers in self._on_host:
            self._check(step, numbers)

    def _check(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            overflow = self.scaled and name.endswith("grad_norm")
            if not math.isfinite(value) and not overflow:
                raise NonFiniteError(
                    f"{name} is {value} in {PHASES.get(name.partition('_')[0], name)} of step {step}"
                )

    def write(self, step: int, **more: float) -> dict[str, Any]:
        """Write the means since the last line, with ``more`` beside them, and start anew."""
        self.collect()
        sums: dict[str, list[float]] = {}
        for _, numbers in self._on_host:
            for name, value in numbers.items():
                if math.isfinite(value):
                    sums.setdefault(name, []).append(value)
        self._on_host.clear()
        record: dict[str, Any] = {n: math.fsum(values) / len(values) for n, values in sums.items()}
        record |= self._notes | more
        self._notes = {}
        if self.world.is_main:
            with naming_file(self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **record}) + "\n")
        return record

    def state_dict(self) -> dict[str, Any]:
        """What is not yet in the file."""
        self.collect()
        pending = [[step, numbers] for step, numbers in self._on_host]
        return {"pending": pending, "notes": self._notes}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Continue at ``step``: later lines, and half a last one, are taken out of the file."""
        self._on_device.clear()
        self._on_host = [(s, dict(numbers)) for s, numbers in state["pending"]]
        self._notes = dict(state["notes"])
        if self.world.is_main and self.path.exists():
            kept = [
                line
                for line in self.path.read_text("utf-8", "replace").splitlines()
                if _by(line, step)
            ]
            text = "".join(line + "\n" for line in kept)
            write_whole(self.path, lambda part: part.write_text(text, encoding="utf-8"))


def _by(line: str, step: int) -> bool:
    try:
        found: dict[str, float] = json.loads(line)
        return found["step"] <= step
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
