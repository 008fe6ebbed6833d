"""Data sets that other packages bring along: scikit-learn's digits, and whatever torchvision has."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gankernels._extras import require
from gankernels.training.data.files import DIGIT_NAMES
from gankernels.training.data.images import ImageData
from gankernels.training.data.pictures import common_white, decode, peak, stack
from gankernels.training.data.sources import Shape, no_location

__all__ = ["load_digits", "load_torchvision"]


def load_digits(location: str, train: bool, shape: Shape) -> ImageData:
    """``digits`` of :func:`gankernels.training.data.load`."""
    no_location("digits", location)
    bunch = require("sklearn.datasets").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the files hold 0 to 16
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return ImageData(torch.from_numpy(images).unsqueeze(1), labels, "digits", DIGIT_NAMES)


def load_torchvision(location: str, train: bool, shape: Shape) -> ImageData:
    """``torchvision:NAME[:DIR]`` of :func:`gankernels.training.data.load`."""
    name, _, folder = location.partition(":")
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ImportError(
            f"the data 'torchvision:{name}' need torchvision, which cannot be imported ({error})"
        ) from error
    kind = getattr(datasets, name, None) if name else None
    if kind is None:
        raise ValueError(f"torchvision has no data set {name!r}")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(folder).expanduser() if folder else Path(cache) / "gankernels" / "torchvision"
    accepted = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": str(root)} if "root" in accepted else {}
    if "download" in accepted:
        options["download"] = True
    if "train" in accepted:
        options["train"] = train
    elif "split" in accepted:
        options["split"] = "train" if train else "test"
    elif not train:
        raise ValueError(f"torchvision's {name} has no test split of its own; use train=True")
    return _from_torchvision(name, kind(**options), shape)


def _from_torchvision(name: str, source: Any, shape: Shape) -> ImageData:
    pairs = [source[index] for index in range(len(source))]
    peaks = (peak(pair[0]) for pair in pairs)
    white = common_white(found for found in peaks if found is not None)
    pictures = ((f"{name}[{i}]", decode(pair[0], shape, white)) for i, pair in enumerate(pairs))
    images = stack(pictures)
    targets = [pair[1] for pair in pairs]
    if not all(isinstance(target, int) for target in targets):
        return ImageData(images, None, name, ())
    found = getattr(source, "classes", None) or [str(n) for n in range(max(targets) + 1)]
    classes = tuple(str(label) for label in found)
    return ImageData(images, torch.tensor(targets, device="cpu"), name, classes)
