"""Several processes: torchrun's environment, and what a run needs of ``torch.distributed``.

One process without ``torchrun`` goes through the same functions, which then do nothing.
"""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gankernels.training.interruption import LostProcessError
from gankernels.training.networks import has_batchnorm

__all__ = ["World", "bare", "job", "join", "pick_device", "restarts"]

# torch 2.13 gave the option that leaves buffers alone in forward passes a second name.
_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
# How gloo, which has no exception of its own, says that the other end is gone.
_LOST = re.compile("(closed|reset) by peer|Broken pipe|Timed out waiting")


@dataclass(frozen=True)
class World:
    """This process among the others.

    Args:
        rank: Number of this process.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wrap(
        self, network: nn.Module, sync_batchnorm: bool, find_unused_parameters: bool = False
    ) -> nn.Module:
        """Average the gradients of ``network`` between processes.

        Buffers are not broadcast: a second forward pass before the backward pass would overwrite
        the statistics the first one saved. :meth:`align_buffers` brings them together instead.
        """
        if self.size == 1:
            return network
        if sync_batchnorm:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            network,
            device_ids=devices,
            find_unused_parameters=find_unused_parameters,
            **_BUFFERS,
        )

    def check_sync_batchnorm(self, *networks: nn.Module) -> None:
        """Raise ValueError where sharing batch statistics would have no effect, or cannot work."""
        if self.size == 1:
            raise ValueError(
                "sync_batchnorm has no effect: there is one process only; start several with "
                "torchrun, or leave it out (--no-sync-batchnorm where a run has it)"
            )
        if self.device.type == "cpu":
            raise ValueError("sync_batchnorm needs GPUs: PyTorch has it for no CPU")
        if not any(has_batchnorm(network) for network in networks):
            raise ValueError("sync_batchnorm has no effect: no network has a BatchNorm layer")

    def align_buffers(self, network: nn.Module) -> None:
        """Give every process the buffers of the first, as a checkpoint holds them."""
        if self.size > 1:
            for buffer in bare(network).buffers():
                dist.broadcast(buffer, src=0)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes on the first one; an empty list elsewhere.

        Args:
            value: Anything that ``torch.load(weights_only=True)`` reads.
        """
        if self.size == 1:
            return [value]
        file = io.BytesIO()
        torch.save(value, file)
        mine = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(mine)], device=self.device))
        counts = [int(size) for size in sizes]
        mine = F.pad(mine, (0, max(counts) - len(mine)))
        parts = [torch.empty_like(mine) for _ in counts] if self.is_main else None
        dist.gather(mine, parts, dst=0)
        return [
            torch.load(io.BytesIO(part[:count].cpu().numpy().tobytes()), weights_only=True)
            for part, count in zip(parts or [], counts, strict=False)
        ]

    def any(self, flag: bool) -> bool:
        """Whether any process raised the flag."""
        if self.size == 1:
            return flag
        raised = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            dist.barrier()


def bare(network: nn.Module) -> nn.Module:
    """The network without its DistributedDataParallel wrapper."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def pick_device(name: str) -> torch.device:
    """The device of a name; ``"auto"`` is a GPU where there is one.

    Raises:
        ValueError: There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "meta":
        raise ValueError("device 'meta' holds no values, so nothing can be trained on it")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {name!r} was asked for, but PyTorch sees no CUDA device")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        count = torch.cuda.device_count()
        if device.index >= count:
            raise ValueError(
                f"device {str(device)!r} was asked for, but PyTorch sees only {count} CUDA devices"
            )
        torch.cuda.set_device(device)
    _probe(device)
    return device


def _probe(device: torch.device) -> None:
    """Every backend has an exception of its own for a device that is absent."""
    try:
        torch.zeros(1, device=device).add_(1)
        torch.Generator(device)
    except Exception as error:
        # The first sentence; what follows it is a page on PyTorch's dispatcher.
        first = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"device {str(device)!r} was asked for, but PyTorch cannot compute on it: {first}"
        ) from error


def job() -> str | None:
    """The id that torchrun's ``--rdzv-id`` or ``--standalone`` gives a job in all its lives, and no other one."""
    found = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if found == "none" else found


def restarts() -> int:
    """How often torchrun began these processes anew because one of them had failed (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


@contextmanager
def join(device: str) -> Iterator[World]:
    """Join the processes that ``torchrun`` started: gloo on the CPU, NCCL on GPUs."""
    here = pick_device(device)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or dist.is_initialized():
        rank = dist.get_rank() if dist.is_initialized() else 0
        yield World(rank, dist.get_world_size() if dist.is_initialized() else 1, here)
        return
    # Not every build of torch has them.
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))  # type: ignore[no-untyped-call]
    # A store that outlived a failure holds the addresses of dead processes.
    store = PrefixStore(f"restart_{restarts()}", store)
    backend = "nccl" if here.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield World(dist.get_rank(), size, here)
        dist.barrier()  # a process that leaves first takes its connections with it
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or _LOST.search(str(error)):
            raise LostProcessError(rank, str(error).partition(". ")[0]) from error
        raise
    finally:
        dist.destroy_process_group()
