"""The folder of a run: how its files are written, which they are, and which a checkpoint leaves behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["FILES", "clear", "drop_beyond", "frames", "holds_a_run", "naming_file", "write_whole"]

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


@contextmanager
def naming_file(path: str | Path) -> Iterator[None]:
    """Put the file's name into an error that has none, as that of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        error.filename = str(path)
        raise


def write_whole(path: str | Path, save: Callable[[Path], object]) -> Path:
    """Save beside the target and rename, so that a killed or failed write leaves no half file.

    Raises:
        OSError: The file cannot be written; an old one is still there. The message names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with naming_file(path):
            save(part)
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _step(path: Path) -> int:
    match = _STEP.fullmatch(path.name.removesuffix(".part"))
    return int(match[1]) if match else -1
