"""Damaged, foreign and malicious files in place of a checkpoint: a clear error, or what was saved, to the bit."""

from __future__ import annotations

import io
import os
import pickle
import random
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from gankernels.training import checkpoint, configuration
from gankernels.training.loop import train
from tools.torture.attack import Found
from tools.torture.memory import watched

CASES = 3_000
MOST_MIB = 64


def flipped(data: bytearray, rng: random.Random) -> bytes:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def truncated(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def zeroed(data: bytearray, rng: random.Random) -> bytes:
    """A block that the disk lost."""
    start = rng.randrange(len(data))
    size = min(rng.choice((1, 64, 512, 4096)), len(data) - start)
    data[start : start + size] = bytes(size)
    return bytes(data)


def exchanged(data: bytearray, rng: random.Random) -> bytes:
    """Two blocks of the disk in each other's place."""
    size = 512
    a, b = (rng.randrange(max(1, len(data) // size)) * size for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(data)


def extended(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data) + rng.randbytes(rng.choice((1, 100, 5000)))


DAMAGES = (flipped, flipped, truncated, zeroed, exchanged, extended)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.path,)


def _saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def _with_part(data: bytes, ending: str, content: bytes, **options: Any) -> bytes:
    """A checkpoint with something else in one of its parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(ending) else old.read(name))
    return out.getvalue()


def _with_one_part_as_many(data: bytes) -> bytes:
    """The directory names the first part's bytes a thousand times."""
    end = data.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    size = 46 + sum(
        int.from_bytes(data[start + at : start + at + 2], "little") for at in (28, 30, 32)
    )
    count = 1000
    tail = bytearray(data[end:])
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = (size * count).to_bytes(4, "little")
    return data[:start] + data[start : start + size] * count + bytes(tail)


def strangers(data: bytes, trap: Trap) -> dict[str, bytes]:
    """Files that are no checkpoints of this package."""
    return {
        "empty": b"",
        "text": b"step: 3\n",
        "noise": random.Random(1).randbytes(4096),
        "a tensor": _saved(torch.zeros(3)),
        "weights alone": _saved({"layer.weight": torch.zeros(3)}),
        "another format": _saved({"format": 99}),
        "the old format of torch.save": _saved({"format": 1}, _use_new_zipfile_serialization=False),
        "a pickle with code": pickle.dumps(trap),
        "code in torch.save": _saved({"format": 1, "x": trap}),
        "code in a checkpoint": _with_part(
            data, "data.pkl", pickle.dumps({"format": 1, "x": trap}, 2)
        ),
        "a weight of 256 MiB in a few KiB": _with_part(
            data, "/data/0", bytes(1 << 28), compression=zipfile.ZIP_DEFLATED
        ),
        "one part a thousand times": _with_one_part_as_many(data),
    }


def same(a: Any, b: Any) -> bool:
    (left, left_tree), (right, right_tree) = tree_flatten(a), tree_flatten(b)
    if left_tree != right_tree:
        return False
    pairs = zip(left, right, strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def loaded(path: Path, data: bytes) -> dict[str, Any] | None:
    """The state, or None where the file was refused in the right way."""
    path.write_bytes(data)
    try:
        return checkpoint.load(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise AssertionError(f"the error does not name the file: {error}") from error
        return None


def run(share: float) -> Found:
    found, rng, refused = Found(), random.Random(0), 0
    with tempfile.TemporaryDirectory() as folder:
        run_folder, path, trap = (
            Path(folder, "run"),
            Path(folder, "checkpoint.pt"),
            Path(folder, "trap"),
        )
        train(configuration("toy", steps=2, batch_size=8, samples=4), run_folder, progress=False)
        good = (run_folder / "checkpoint.pt").read_bytes()
        state = loaded(path, good)
        for i in range(max(20, round(share * CASES))):
            damage = DAMAGES[i % len(DAMAGES)]
            bad = damage(bytearray(good), rng)

            def check(bad: bytes = bad) -> None:
                nonlocal refused
                got = loaded(path, bad)
                refused += got is None
                if got is not None and not same(got, state):
                    raise AssertionError("it loads, and is not what was saved")

            found.attempt(damage.__name__, check)
        for name, data in strangers(good, Trap(str(trap))).items():

            def refuse(data: bytes = data) -> None:
                if loaded(path, data) is not None:
                    raise AssertionError("it loads")
                if trap.exists():
                    raise AssertionError("its code ran")

            with watched(found, name, MOST_MIB):
                found.attempt(name, refuse)
    found.note = f"{refused} of the damaged files refused, the others as saved"
    return found
