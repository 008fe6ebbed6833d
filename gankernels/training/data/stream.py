"""An endless stream of batches cut from a data set in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gankernels._checks import check_integer
from gankernels.training.data.images import ImageData
from gankernels.training.field_checks import check_seed

__all__ = ["BatchStream"]


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
        TypeError: An argument is not of its type.
        ValueError: An argument is out of range, or there are fewer images than one global batch.

    Example:
        >>> from gankernels.training.data import load
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
        check_integer("batch_size", batch_size, 1)
        check_integer("world_size", world_size, 1)
        check_seed(seed)
        if check_integer("rank", rank, 0) >= world_size:
            raise ValueError(f"rank must be below world_size {world_size}, got {rank}")
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
        return self._in_range(batch)

    def peek(self, count: int) -> Tensor:
        """The same ``count`` samples, or all there are, at every call; the stream does not move."""
        order = torch.randperm(
            len(self.data), generator=torch.Generator().manual_seed(0), device="cpu"
        )
        rows = order[:count].to(self.data.images.device)
        return self._in_range(self.data.images.index_select(0, rows))

    def _in_range(self, batch: Tensor) -> Tensor:
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
