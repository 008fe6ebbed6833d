"""Data sets in files of their own formats: MNIST's IDX and CIFAR-10's Python batches."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from gankernels.training.data.images import ImageData, check_labels
from gankernels.training.data.sources import Shape, find_file, find_folder, naming

__all__ = ["CIFAR10_NAMES", "DIGIT_NAMES", "load_cifar10", "load_fashion_mnist", "load_mnist"]

DIGIT_NAMES = tuple(str(digit) for digit in range(10))
_FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
_FASHION_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CIFAR10_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


_BLOCK = 1 << 20  # bytes read at a time


# ------------------------------------------------------------------------------- IDX files


def load_mnist(location: str, train: bool, shape: Shape) -> ImageData:
    """``mnist:DIR`` of :func:`gankernels.training.data.load`."""
    return _load_idx("mnist", "MNIST", find_folder("mnist", location), train, DIGIT_NAMES)


def load_fashion_mnist(location: str, train: bool, shape: Shape) -> ImageData:
    """``fashion-mnist[:DIR]`` of :func:`gankernels.training.data.load`."""
    folder = find_folder("fashion-mnist", location, _FASHION_MNIST_FOLDER)
    return _load_idx("fashion-mnist", "FashionMNIST", folder, train, _FASHION_NAMES)


def _load_idx(
    name: str, torchvision_name: str, folder: Path, train: bool, classes: tuple[str, ...]
) -> ImageData:
    """``torchvision_name``: of the folder in which torchvision keeps the set, beside its others."""
    places = [folder, folder / "raw", folder / torchvision_name / "raw"]
    prefix = "train" if train else "t10k"
    image_file = _find_idx(places, f"{prefix}-images-idx3-ubyte")
    label_file = _find_idx(places, f"{prefix}-labels-idx1-ubyte")
    images = torch.from_numpy(_read_idx(image_file, 3)).unsqueeze(1)
    labels = torch.from_numpy(_read_idx(label_file, 1).astype(np.int64))
    if len(images) != len(labels):
        raise ValueError(
            f"{label_file}: {len(labels)} labels, expected the {len(images)} of {image_file}"
        )
    with naming(label_file):
        check_labels(labels, len(images), classes)
    return ImageData(images, labels, name, classes)


def _find_idx(places: list[Path], name: str) -> Path:
    dotted = name.replace("-idx", ".idx")  # the spelling of some mirrors
    stems = [stem + suffix for stem in (name, dotted) for suffix in ("", ".gz")]
    candidates = [place / stem for place in places for stem in stems]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{candidates[0]}: no such file, plain or .gz")


def _read_idx(path: Path, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an IDX file of unsigned bytes: 0, 0, 8, rank, big-endian 32-bit sizes, values."""
    header_size = 4 + 4 * dimensions
    with _plain(path) as file:
        header = file.read(header_size)
        magic = bytes((0, 0, 8, dimensions))
        if header[:4] != magic or len(header) < header_size:
            raise ValueError(
                f"{path}: expected an IDX file with magic {magic.hex()}, got "
                f"{header[:4].hex() or 'nothing'} in {len(header)} bytes"
            )
        sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, header_size, 4)]
        expected = int(np.prod(sizes, dtype=object))
        values = _at_most(file, expected + 1)
    if len(values) != expected or 0 in sizes:
        shape, got = "x".join(map(str, sizes)), str(header_size + len(values))
        if len(values) > expected:
            got += " or more"
        raise ValueError(f"{path}: expected {header_size + expected} bytes for {shape}, got {got}")
    return np.frombuffer(values, np.uint8).reshape(sizes)


@contextmanager
def _plain(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file, compressed or not: gzip by its own magic, whatever the file is called."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if compressed else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from error


def _at_most(file: IO[bytes], size: int) -> bytearray:
    """What is left of a file, or ``size`` bytes: a few bytes can unpack to more than any memory holds."""
    found = bytearray()
    while len(found) < size and (block := file.read(min(_BLOCK, size - len(found)))):
        found += block
    return found


# -------------------------------------------------------------------- CIFAR-10's Python batches


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which Python 3 writes bytes in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, strings and numpy arrays, and calls nothing else."""

    _reconstruct = np.empty(0).__reduce__()[0]
    _admitted: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted, only arrays") from None


def _check_memo(content: bytes) -> None:
    """Refuse a pickle that numbers an object beyond its own length: the table would be as long as that number."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and int(cast("int", argument)) > len(content):
            raise pickle.UnpicklingError(f"object {argument} in {len(content)} bytes")


def load_cifar10(location: str, train: bool, shape: Shape) -> ImageData:
    """``cifar10:DIR`` of :func:`gankernels.training.data.load`."""
    folder = find_folder("cifar10", location)
    if (folder / "cifar-10-batches-py").is_dir():
        folder = folder / "cifar-10-batches-py"
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    parts = [_read_cifar10(folder / name) for name in names]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return ImageData(images, labels, "cifar10", CIFAR10_NAMES)


def _read_cifar10(path: Path) -> tuple[Tensor, Tensor]:
    """Read one batch: a dict of ``data`` (N, 3072), channel planes in turn, and ``labels``."""
    find_file(path, "a Python batch of CIFAR-10")
    try:
        content = path.read_bytes()
        _check_memo(content)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a corrupt pickle raises nearly anything
        raise ValueError(f"{path}: not a Python batch of CIFAR-10 ({error})") from error
    if not isinstance(batch, dict):
        raise ValueError(f"{path}: expected a dictionary, got {type(batch).__name__}")
    data: Any = batch.get(b"data", batch.get("data"))
    labels: Any = batch.get(b"labels", batch.get("labels"))
    is_array = isinstance(data, np.ndarray)
    if not (is_array and data.dtype == np.uint8 and data.shape[1:] == (3072,) and data.size):
        got = f"{data.dtype} {data.shape}" if is_array else type(data).__name__
        raise ValueError(f"{path}: expected 'data' to be uint8 of shape (N, 3072), got {got}")
    if not (isinstance(labels, list) and all(type(label) is int for label in labels)):
        raise ValueError(f"{path}: expected 'labels' to be a list of integers")
    if len(labels) != len(data):
        raise ValueError(f"{path}: {len(labels)} labels, expected {len(data)} as there are images")
    target = torch.tensor(labels, dtype=torch.int64, device="cpu")
    with naming(path):
        check_labels(target, len(data), CIFAR10_NAMES)
    return torch.from_numpy(data.reshape(-1, 3, 32, 32).copy()), target
