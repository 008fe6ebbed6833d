"""Samples as files: grids of images, an animation of them, scatter plots of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gankernels._checks import check_integer
from gankernels._extras import require
from gankernels._files import write_whole
from gankernels.plots import canvas

__all__ = ["save_animation", "save_grid", "save_samples", "save_scatter"]

_MIN_TILE = 64  # pixels on a side below which an image is enlarged, so that digits can be seen
_PADDING = 2  # pixels between the images of a grid
_BACKGROUND = 255


def save_grid(
    images: Tensor, path: str | Path, *, value_range: tuple[float, float], columns: int = 8
) -> Path:
    """Save images side by side as one PNG; small ones are enlarged by a whole factor.

    Args:
        images: ``(N, C, H, W)`` with 1 or 3 channels: floating point in ``value_range`` (values
            beyond it are clamped, NaN becomes its lower end), or ``uint8`` as it is.
        path: The file to write; its folder is created.
        value_range: The values that become black and white.
        columns: Images in a row.

    Returns:
        ``path``.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: The shape, the range or the number of columns is wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_grid(torch.zeros(2, 1, 8, 8), f"{folder}/a.png", value_range=(-1, 1)).name
        'a.png'
    """
    Image = require("PIL.Image")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"images must be (N, 1 or 3, H, W), got {tuple(images.shape)}")
    check_integer("columns", columns, 1)
    canvas = _tile(to_uint8(images.detach().cpu(), value_range), columns)
    array = canvas.permute(1, 2, 0).squeeze(-1).numpy()
    picture = Image.fromarray(array)
    return write_whole(path, lambda file: picture.save(file, format="PNG"))


def to_uint8(images: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Floating-point images as bytes: clamped, NaN at the lower end; ``uint8`` as it is."""
    if images.dtype == torch.uint8:
        return images
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high) with low < high, got {value_range}")
    unit = (images.float() - low) / (high - low)
    return unit.nan_to_num(nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1).mul(255).round().byte()


def _tile(images: Tensor, columns: int) -> Tensor:
    """Lay ``(N, C, H, W)`` out row by row on one ``(C, H', W')`` canvas."""
    factor = max(1, math.ceil(_MIN_TILE / max(images.shape[2:])))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    blank = images.new_full((rows * columns - count, channels, height, width), _BACKGROUND)
    padding = (_PADDING, 0, _PADDING, 0)  # left and top of each; the canvas closes right and bottom
    cells = F.pad(torch.cat([images, blank]), padding, value=_BACKGROUND)
    cells = cells.view(rows, columns, channels, height + _PADDING, width + _PADDING)
    canvas = cells.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return F.pad(canvas, (0, _PADDING, 0, _PADDING), value=_BACKGROUND)


def save_animation(
    png_paths: Sequence[str | Path], gif_path: str | Path, *, milliseconds: int = 150
) -> Path:
    """Join pictures of one size into an endless GIF that rests on its last frame.

    Args:
        png_paths: The frames in order.
        gif_path: The file to write; its folder is created.
        milliseconds: Time of a frame; the last one stays ten times as long.

    Returns:
        ``gif_path``.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: There is no frame, or one differs in size from the first.
        FileNotFoundError: A frame is missing.
    """
    Image = require("PIL.Image")
    check_integer("milliseconds", milliseconds, 0)
    if not png_paths:
        raise ValueError("png_paths is empty; expected at least one picture")
    frames = []
    for path in png_paths:
        with Image.open(path) as picture:
            frames.append(picture.convert("RGB"))
        (size, expected) = (frames[-1].size, frames[0].size)
        if size != expected:
            raise ValueError(f"{path}: expected {expected} pixels like {png_paths[0]}, got {size}")
    # Pillow merges equal neighbours and adds up their times.
    times = [milliseconds] * (len(frames) - 1) + [milliseconds * 10]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "loop": 0}
    return write_whole(
        gif_path, lambda file: frames[0].save(file, format="GIF", duration=times, **options)
    )


def save_samples(
    samples: Tensor,
    path: str | Path,
    *,
    value_range: tuple[float, float],
    centres: Tensor | None = None,
    columns: int = 8,
) -> Path:
    """Draw samples of any kind: images as a grid, points as a scatter plot.

    Args:
        samples: ``(N, C, H, W)``, of whose channels the first three are drawn, or the first one where
            there are fewer; or ``(N, D)``, of which the first two coordinates are drawn.
        path: The PNG to write; its folder is created.
        value_range: What black and white are in images.
        centres: See :func:`save_scatter`.
        columns: Images in a row.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: Samples of another number of dimensions.
    """
    if samples.dim() == 4:
        shown = samples[:, : 3 if samples.shape[1] >= 3 else 1]
        return save_grid(shown, path, value_range=value_range, columns=columns)
    if samples.dim() != 2:
        raise ValueError(
            f"samples must be images (N, C, H, W) or points (N, D), got {tuple(samples.shape)}"
        )
    plane = samples[:, :2]
    if plane.shape[1] == 1:
        plane = torch.cat([plane, torch.zeros_like(plane)], 1)
    return save_scatter(plane, centres, path)


def save_scatter(points: Tensor, centres: Tensor | None, path: str | Path) -> Path:
    """Draw generated points over the centres of a mixture; points out of the frame are counted.

    Args:
        points: ``(N, 2)``.
        centres: ``(M, 2)``; the frame reaches one and a half units beyond them. None: there are none,
            and the frame holds all points that are finite.
        path: The PNG to write; its folder is created.

    Returns:
        ``path``.

    Raises:
        ValueError: A shape is wrong.
    """
    for name, value in (("points", points), ("centres", centres)):
        if value is not None and (value.dim() != 2 or value.shape[1] != 2 or not len(value)):
            raise ValueError(f"{name} must be (N, 2), got {tuple(value.shape)}")
    points = points.detach().float().cpu()
    low, high = _frame(points, centres)
    # NaN compares false, so a point that is not finite counts as outside.
    outside = len(points) - int(((points >= low) & (points <= high)).all(1).sum())
    figure = canvas.figure(5, 5)
    axis = figure.add_subplot()
    axis.scatter(*points.T.numpy(), s=4, alpha=0.4, linewidths=0, label="generated")
    if centres is not None:
        marks = centres.detach().float().cpu().T.numpy()
        axis.scatter(*marks, s=80, marker="+", color="black", label="centres")
    (left, bottom), (right, top) = low.tolist(), high.tolist()
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axis.set_title(f"{len(points):,} points, {outside:,} outside the frame")
    axis.legend(loc="upper right")
    return write_whole(path, lambda file: figure.savefig(file, format="png", dpi=120))


def _frame(points: Tensor, centres: Tensor | None) -> tuple[Tensor, Tensor]:
    """The lower left and the upper right corner of what is drawn."""
    if centres is not None:
        centres = centres.detach().float().cpu()
        return centres.amin(0) - 1.5, centres.amax(0) + 1.5
    finite = points[points.isfinite().all(1)]
    if not len(finite):
        finite = torch.zeros(1, 2, dtype=torch.float32, device="cpu")
    margin = 0.05 * (finite.amax(0) - finite.amin(0)).clamp(min=1e-3)
    return finite.amin(0) - margin, finite.amax(0) + margin
