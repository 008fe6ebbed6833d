"""Pictures of any mode and size brought to square ``uint8`` tensors; a folder of them as a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels._extras import require
from gankernels.training.data.image_folder import find_images
from gankernels.training.data.images import ImageData
from gankernels.training.data.sources import Shape, find_folder

__all__ = ["common_white", "decode", "fit", "load_folder", "opened", "peak", "stack"]

T = TypeVar("T")

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of Pillow's convert("L")
_BLOCK = 1024  # images converted to float at a time when a data set is resized


def load_folder(location: str, train: bool, shape: Shape) -> ImageData:
    """``folder:PATH`` of :func:`gankernels.training.data.load`."""
    found = find_images(find_folder("folder", location))
    pictures = _read_pictures(found.images, shape)
    images = stack(zip(map(str, found.images), pictures, strict=True))
    name, classes, summary = found.root.name, found.classes(), found.summary()
    if not classes:
        return ImageData(images, None, name, (), summary)
    numbers = {top: number for number, top in enumerate(classes)}
    labels = torch.tensor([numbers[found.top(path)] for path in found.images], device="cpu")
    return ImageData(images, labels, name, classes, summary)


def _read_pictures(paths: list[Path], shape: Shape) -> list[Tensor]:
    """Every picture; grey of unknown range is read twice, as its white is that of the whole folder."""

    def read_or_peak(path: Path) -> Tensor | int:
        def look(picture: Any) -> Tensor | int:
            found = peak(picture)
            return decode(picture, shape) if found is None else found

        return opened(path, look)

    # Pillow releases the interpreter lock while it decodes, so threads are enough.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = list(pool.map(read_or_peak, paths))
        white = common_white(x for x in found if isinstance(x, int))

        def read_again(path: Path, picture: Tensor | int) -> Tensor:
            if isinstance(picture, Tensor):
                return picture
            return opened(path, lambda found: decode(found, shape, white))

        return list(pool.map(read_again, paths, found))


def opened(path: Path, use: Callable[[Any], T]) -> T:
    """What ``use`` makes of an image file; a corrupt one is named."""
    Image = require("PIL.Image")
    try:
        with Image.open(path) as picture:
            return use(picture)
    except Exception as error:  # Pillow's decoders raise nearly anything on a corrupt file
        raise ValueError(f"{path}: expected an image that can be read ({error})") from error


def decode(picture: Any, shape: Shape, white: int = 65535) -> Tensor:
    """Turn a Pillow image into a square ``uint8`` ``(C, S, S)``; transparency becomes white.

    ``white`` is the value of white in grey pixels of more than eight bits, where no tag tells it.
    """
    Image, ImageOps = require("PIL.Image"), require("PIL.ImageOps")
    tags = getattr(picture, "tag_v2", {})  # which turning a picture loses
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("images of floating-point pixels have no known range")
    if picture.mode.startswith("I"):  # grey of 9 to 16 bits, which convert("L") would clip at 255
        levels = np.asarray(picture).astype(np.float64)
        scale = 255 / (_tagged_white(tags) or white)
        array = np.rint(levels * scale).clip(0, 255).astype(np.uint8)
    else:
        mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture)
        array = np.asarray(picture.convert(mode))
    planes = torch.from_numpy(np.atleast_3d(array).transpose(2, 0, 1).copy())
    return fit(_centre_crop(planes.unsqueeze(0)), shape)[0]


def _tagged_white(tags: Any) -> int | None:
    """What the tags MaxSampleValue or BitsPerSample say, if that is not 16 bits: Pillow widens pixels of
    12 bits without scaling them.
    """
    maximum, bits = (tags.get(number) for number in (281, 258))
    maximum, bits = (v[0] if isinstance(v, tuple) else v for v in (maximum, bits))
    if maximum and int(maximum) < 65535:
        return int(maximum)
    return int(2 ** int(bits)) - 1 if bits and int(bits) < 16 else None


def peak(picture: Any) -> int | None:
    """The largest value of grey pixels whose white no tag tells; None for every other picture."""
    if not picture.mode.startswith("I") or _tagged_white(getattr(picture, "tag_v2", {})):
        return None
    return int(np.asarray(picture).max(initial=0))


def common_white(peaks: Iterable[int]) -> int:
    """The value of white in pictures of one source, whose largest values are ``peaks``.

    Cameras also write 12 bits into pixels of 16 without a word; so pictures of which none exceeds 4095
    are taken for those, since as 16 bits they would be nearly black.
    """
    return 4095 if max(peaks, default=65535) <= 4095 else 65535


def stack(pictures: Iterable[tuple[str, Tensor]]) -> Tensor:
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


def fit(images: Tensor, shape: Shape) -> Tensor:
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
