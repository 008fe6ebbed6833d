"""What the launches of a contender add up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tools.ptxsim import triton_driver
from tools.ptxsim.execution import Execution
from tools.ptxsim.roofline import GPUS, SECTOR
from tools.ptxsim.tensors import reached

ARCH = 90
GPU = next(g for g in GPUS if g.arch == ARCH)
BLOCKS = 8  # of a launch that are run: its blocks do alike
NO_LAUNCH = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "_local_scalar_dense"}
)


@dataclasses.dataclass(frozen=True)
class Launch:
    """One kernel's part of the work.

    Attributes:
        name: of the kernel, or of PyTorch's operator.
        traffic: bytes of its tensors, each once that is read and once that is written.
        requested: bytes of the sectors that its warps asked for.
        seconds: its bound.
        limited_by: what the bound comes from.
        instructions: of threads, in machine code; None where the kernel was not compiled here.
        execution: the emulated launch, where there is one.
    """

    name: str
    traffic: float
    requested: float
    seconds: float
    limited_by: str
    instructions: float | None = None
    execution: Execution | None = None


def of_execution(run: Execution) -> Launch:
    """The whole launch from the blocks of it that ran."""
    work = run.work(run.traffic / run.blocks, run.blocks_run, everything=True)
    bound = run.bound(work, run.blocks)
    busy = min(1.0, run.blocks / GPU.multiprocessors)  # a block stays where it is
    seconds = {name: s if name == "dram" else s / busy for name, s in bound.seconds.items()}
    seconds["bytes in flight"] = seconds["dram"] / bound.reachable
    limiter = max(seconds, key=lambda name: seconds[name])
    return Launch(
        run.entry,
        run.traffic,
        SECTOR * run.sectors * run.blocks / run.blocks_run,
        seconds[limiter],
        limiter,
        32 * work.instructions * run.blocks,
        run,
    )


class OperatorLaunches(TorchDispatchMode):
    """PyTorch's operators on the way: each at least one launch, which reads its inputs and writes its results."""

    def __init__(self, found: list[Launch]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        returns = func._schema.returns
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not is_view and name not in NO_LAUNCH:
            tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            moved = sum(end - begin for t in tensors for begin, end in reached(t))
            seconds = moved / GPU.dram_gbs / 1e9
            self.found.append(Launch(f"aten::{name}", moved, moved, seconds, "dram"))
        return result


@contextmanager
def launches(blocks: int = BLOCKS) -> Iterator[list[Launch]]:
    """Triton's launches and PyTorch's operators within the block, in order."""
    found: list[Launch] = []

    def listen(run: Execution) -> None:
        found.append(of_execution(run))

    triton_driver.install(arch=ARCH)
    triton_driver.listeners.append(listen)
    try:
        # Liger's cross-entropy stores where other warps read a value that they do not use: a race without effect.
        with (
            triton_driver.options(races=False),
            triton_driver.first_blocks(blocks),
            OperatorLaunches(found),
        ):
            yield found
    finally:
        triton_driver.listeners.remove(listen)


def without_ones(found: list[Launch]) -> list[Launch]:
    """The gradient of the loss by itself is made once for everybody."""
    return [launch for launch in found if launch.name != "aten::ones_like"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A discriminator's loss on two batches.

    Attributes:
        operator: ours for it.
        shape: of a batch of logits.
        dtype: of logits and anchors.
    """

    operator: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        """Of both batches."""
        return 2 * torch.Size(self.shape).numel()

    @property
    def ideal(self) -> int:
        """Bytes: logits, gradients and anchors once."""
        anchors = 2 * self.shape[1] if self.operator == "realness_d_loss" else 0
        return (2 * self.elements + anchors) * self.dtype.itemsize

    def inputs(self) -> list[torch.Tensor]:
        """Logits that want gradients, then the anchors."""
        logits = [torch.randn(self.shape).to(self.dtype).requires_grad_() for _ in range(2)]
        if self.operator != "realness_d_loss":
            return logits
        return logits + [torch.randn(self.shape[1]).softmax(0).to(self.dtype) for _ in range(2)]


def row(problem: Problem, contender: str, found: Iterable[Launch]) -> dict[str, Any]:
    """A line of the table: sums over the launches, registers of the kernel that has most."""
    found = list(found)
    runs = [launch.execution for launch in found if launch.execution is not None]
    seconds = sum(launch.seconds for launch in found)
    share = problem.ideal / GPU.dram_gbs / 1e9 / seconds
    return {
        "operator": problem.operator,
        "shape": " × ".join(map(str, problem.shape)),
        "dtype": {torch.bfloat16: "bf16", torch.float32: "fp32"}[problem.dtype],
        "contender": contender,
        "launches": len(found),
        "of_pytorch": sum(launch.execution is None for launch in found),
        "traffic": round(sum(launch.traffic for launch in found) / problem.ideal, 3),
        "requested": round(sum(launch.requested for launch in found) / problem.ideal, 3),
        "instructions_per_element": round(
            sum(launch.instructions or 0 for launch in found) / problem.elements, 2
        ),
        "registers": max(run.registers for run in runs),
        "spills": max(run.spills for run in runs),
        "bound": round(share, 3),
        "limited_by": slowest(found),
        "kernels": [kernel(launch) for launch in found],
    }


def slowest(found: Iterable[Launch]) -> str:
    """What limits most of the time."""
    seconds: dict[str, float] = {}
    for launch in found:
        seconds[launch.limited_by] = seconds.get(launch.limited_by, 0.0) + launch.seconds
    return max(seconds, key=lambda name: seconds[name])


def kernel(launch: Launch) -> dict[str, Any]:
    """What the result file keeps of a launch."""
    run = launch.execution
    bytes_of = {"traffic": round(launch.traffic), "requested": round(launch.requested)}
    if run is None:
        return {"name": launch.name, **bytes_of}
    return {
        "name": launch.name,
        **bytes_of,
        "blocks": run.blocks,
        "threads": run.threads,
        "registers": run.registers,
        "spills": run.spills,
        "occupancy": round(run.occupancy.share, 3),
        **({"configuration": run.configuration} if run.configuration else {}),
    }
