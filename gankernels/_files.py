"""Files that appear whole or not at all, and errors that name theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["naming_file", "read_object", "write_whole"]


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


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else; the message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one of a training run")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a JSON object ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


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
