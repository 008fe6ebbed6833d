"""What every launch needs: weights, a place for partial sums, the device; and the launch itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from triton.compiler import CompiledKernel

from gankernels.triton.failures import name_kernel
from gankernels.triton.plans import WARPS_OF_ROWS, processor, processors
from gankernels.triton.replays import current
from gankernels.triton.tickets import ticket

NONE, MEAN, SUM = 0, 1, 2
# Fused multiply-adds would let the lanes of a warp end up with different last bits of one sum.
OPTIONS = {"enable_fp_fusion": False}

Function = TypeVar("Function", bound=Callable[..., Any])


def gradient_weight(rows: int, reduction: int, fold_mean: bool, grad_scale: float) -> float:
    return grad_scale / rows if rows and fold_mean and reduction == MEAN else grad_scale


def loss_scale(rows: int, reduction: int) -> float:
    """A row's share of the loss; 0 * infinity is the NaN that the mean of nothing is."""
    if reduction != MEAN:
        return 1.0
    return 1 / rows if rows else float("inf")


def workspace(loss: Tensor, programs: int) -> tuple[Tensor, Tensor]:
    """Where a launch's programs leave their sums, and where they take their tickets.

    The one allocation of a launch beside its outputs; one program needs neither.
    """
    if programs == 1:
        return loss, loss
    partials, mine = scratch(loss, programs), ticket(loss.device)
    recording = current()
    if recording is not None:
        recording.tickets.append(mine)
    return partials, mine


def scratch(like: Tensor, *shape: int) -> Tensor:
    """Memory of one call, on the device of another tensor."""
    memory = torch.empty(shape, dtype=torch.float64, device=like.device)
    recording = current()
    if recording is not None:
        recording.scratch.append(memory)
    return memory


def programs_at_once(
    kernel: Any,
    device: torch.device,
    arguments: Sequence[Any],
    warps: int,
    constants: dict[str, Any],
) -> int:
    """How many programs the device holds at once: by the registers of the kernel, compiled for these arguments.

    Of a tensor its dtype will do.
    """
    try:
        compiled = kernel.warmup(*arguments, grid=(1,), **constants, num_warps=warps, **OPTIONS)
        held = WARPS_OF_ROWS // warps
        if isinstance(compiled, CompiledKernel) and compiled.metadata.target.backend == "cuda":
            _ = compiled.run  # loads it: only then are its registers known
            held = processor(device).holds(warps, compiled.n_regs, compiled.metadata.shared)
    except Exception as error:
        name_kernel(error, kernel)
        raise
    return processors(device) * max(1, held)


def launch(kernel: Any, programs: int, *arguments: Any, num_warps: int, **constants: Any) -> None:
    """Launches a kernel on its arguments in the order of its source, and its constants."""
    try:
        compiled = kernel[(programs,)](*arguments, **constants, num_warps=num_warps, **OPTIONS)
    except Exception as error:
        name_kernel(error, kernel)
        raise
    recording = current()
    if recording is not None:
        recording.launched(kernel, compiled, programs, arguments, constants)


def on_device_of(place: int) -> Callable[[Function], Function]:
    """Runs the operator with the device of its argument ``place`` as the current one."""

    def decorate(operator: Function) -> Function:
        @wraps(operator)
        def guarded(*args: Any) -> Any:
            first = args[place]
            device = (first[0] if isinstance(first, list | tuple) else first).device
            if device.type != "cuda" or device.index == torch.cuda.current_device():
                return operator(*args)
            with torch.cuda.device(device):
                return operator(*args)

        return cast(Function, guarded)

    return decorate
