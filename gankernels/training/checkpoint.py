"""Checkpoints: written atomically, loaded with ``weights_only=True``, complete to the last bit."""

from __future__ import annotations

import errno
import os
import random
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from gankernels._files import write_whole

__all__ = ["load", "random_states", "restore_random_states", "save", "save_tensors"]

FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` holds the old or the new file at every moment.

    A kill or a power cut leaves at worst a ``.part`` file behind, a failure not even that.

    Raises:
        OSError: The file cannot be written; an old one at ``path`` is still there.
    """

    def save_synced(part: Path) -> None:
        with open(part, "wb") as file:
            save_tensors({"format": FORMAT, **state}, file)
            file.flush()
            _sync(file.fileno())

    write_whole(path, save_synced)
    # The rename itself lives in the directory, which Windows and some network mounts do not open or
    # sync: the file is whole without it.
    with suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class _Noting:
    """A file for ``torch.save``, which turns some failed writes into RuntimeErrors."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_tensors(value: Any, file: BinaryIO) -> None:
    """``torch.save`` with an OSError for every write that failed."""
    noting: Any = _Noting(file)
    try:
        torch.save(value, noting)
    except RuntimeError as error:
        if noting.error is None:
            raise
        raise noting.error from error


def _sync(file: int) -> None:
    """Bring a file to the disk, where its file system has a way to."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; only tensors, numbers and containers are unpickled.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, no checkpoint of this package, or of another format version.
    """
    if path.is_dir():
        path = path / "checkpoint.pt"
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        _check_parts(path)
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise whatever the unpickler happens to run into
        raise ValueError(f"{path} is not a readable checkpoint: {error}") from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has checkpoint format {found!r}, expected {FORMAT}")
    return state


def _check_parts(path: Path) -> None:
    """A flipped bit of a weight: ``torch.load`` does not compare the checksums that ``torch.save`` writes.

    Nor does it mind parts that unpack to more than the file, which ``torch.save`` has none of.
    """
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its part {part.filename} is compressed")
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise ValueError("its parts are longer than the file")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} is not that of what it holds")


def random_states(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
    """The states of every random source a run, or a user's network in it, may draw from."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    keys = np.asarray(keys)
    states: dict[str, Any] = {
        "noise": generator.get_state(),
        "torch": torch.get_rng_state(),
        "python": (version, torch.tensor(numbers, device="cpu"), gauss),
        "numpy": (str(name), torch.from_numpy(keys.copy()), position, has_gauss, cached),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(
    states: dict[str, Any], generator: torch.Generator, device: torch.device
) -> None:
    """The inverse of :func:`random_states`."""
    generator.set_state(states["noise"].cpu())
    torch.set_rng_state(states["torch"].cpu())
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy(), position, has_gauss, cached))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
