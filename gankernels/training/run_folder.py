"""The folder of a run: which files it has, and which a checkpoint leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FILES", "clear", "drop_beyond", "frames", "holds_a_run"]

_WHOLE = (
    "config.json",
    "metrics.jsonl",
    "samples/step_*.png",
    "samples.gif",
    "final.png",
    "curves.png",
    "checkpoint.pt",
    "report.html",
    "evaluation.json",
    "tensorboard/events.out.tfevents.*",
)
FILES: tuple[str, ...] = (*_WHOLE, *(f"{name}.part" for name in _WHOLE))
"""Everything that a run writes, as patterns; whatever else lies in the folder is the user's."""

# What is drawn or measured from a state of the run, and is stale once the run goes on from another.
_DRAWN = ("samples.gif", "final.png", "curves.png", "report.html", "evaluation.json")
_STEP = re.compile(r"step_(\d+)\.png")


def _found(run_dir: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        for path in run_dir.glob(pattern):
            of_a_user = pattern.startswith("samples/") and _step(path) < 0
            if path.is_file() and not of_a_user:
                yield path


def holds_a_run(run_dir: Path) -> bool:
    """Whether a run has written here, be it only its configuration."""
    return any(True for _ in _found(run_dir, FILES))


def clear(run_dir: Path) -> None:
    """Remove what an earlier run left, and nothing else."""
    for path in list(_found(run_dir, FILES)):
        path.unlink(missing_ok=True)


def frames(run_dir: Path) -> list[Path]:
    """The pictures of the run, in the order of their steps."""
    found = (path for path in (run_dir / "samples").glob("step_*.png") if _step(path) >= 0)
    return sorted(found, key=_step)


def drop_beyond(run_dir: Path, step: int) -> list[Path]:
    """Remove the pictures of later steps than ``step``, and what was made from them.

    Returns:
        What was removed.
    """
    removed = [path for path in frames(run_dir) if _step(path) > step]
    removed += _found(run_dir, _DRAWN)
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def _step(path: Path) -> int:
    match = _STEP.fullmatch(path.name.removesuffix(".part"))
    return int(match[1]) if match else -1
