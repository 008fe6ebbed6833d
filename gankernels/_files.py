"""Files that appear whole or not at all, and errors that name theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["naming_file", "write_whole"]


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
