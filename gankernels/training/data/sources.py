"""What the loaders of all sources share: the shape asked for, the folder of a spec, the name of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Shape", "find_file", "find_folder", "naming", "no_location"]


class Shape(NamedTuple):
    """The size and channels asked for; None where the files decide."""

    image_size: int | None
    channels: int | None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a file's name in front of an argument check's message."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def no_location(kind: str, location: str) -> None:
    """Refuse a folder for what needs none."""
    if location:
        raise ValueError(f"{kind} takes no folder, got {location!r}")


def find_file(path: Path, expected: str) -> Path:
    """Return the file, or raise an error that names it and what should have been there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {expected}")
    return path


def find_folder(kind: str, location: str, default: Path | None = None) -> Path:
    """Return the folder of a spec, or raise an error that names it."""
    if not location and default is None:
        raise ValueError(f"{kind} needs a folder: {kind}:DIR")
    folder = Path(location).expanduser() if location else default
    assert folder is not None
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected the files of {kind} in it")
    return folder
