"""A data set in memory, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ImageData", "check_labels"]


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
            check_labels(self.labels, len(self.images), self.classes)

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


def check_labels(labels: Tensor, count: int, classes: tuple[str, ...]) -> None:
    """Refuse labels that are not ``count`` indices into ``classes``."""
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
