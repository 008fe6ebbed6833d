"""Parts of a run brought back from a checkpoint under a configuration that may have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from gankernels.training import checkpoint, distributed
from gankernels.training.config import TrainConfig
from gankernels.training.data import BatchStream

__all__ = [
    "Decay",
    "began_here",
    "check_given",
    "load_network",
    "restore_average",
    "restore_loss",
    "restore_optimizer",
    "restore_schedule",
    "restore_stream",
]


class Decay:
    """Factor of the learning rate: 1, then linearly to 0 over the last ``share`` of the run."""

    def __init__(self, steps: int, share: float) -> None:
        self.steps = steps
        self.share = share

    def __call__(self, step: int) -> float:
        if not self.share:
            return 1.0
        return min(1.0, max(0.0, (1 - step / self.steps) / self.share))


def began_here(run_dir: Path) -> bool:
    """Whether an earlier life of these processes, which torchrun began anew, left the folder's checkpoint."""
    job, path = distributed.job(), run_dir / "checkpoint.pt"
    if not distributed.restarts() or job is None or not path.is_file():
        return False
    return bool(checkpoint.load(path).get("job") == job)


def check_given(state: dict[str, Any], needed: set[str], given: set[str], how: str) -> None:
    """Refuse to build from a recipe what the run was handed in Python.

    Raises:
        ValueError: Something of ``needed`` was handed over then and is not among ``given``.
    """
    own = state.get("given", {})
    missing = sorted((needed & set(own)) - given)
    if missing:
        parts = ", ".join(f"{name} ({own[name]})" for name in missing)
        raise ValueError(
            f"this run trained parts of its own: {parts}. No recipe can build them: hand them over in "
            f"Python, gankernels.training.{how}"
        )


def load_network(network: nn.Module, state: dict[str, Any], source: str) -> None:
    """Load weights whose names may carry the prefixes of torch.compile and of DistributedDataParallel.

    Raises:
        ValueError: They are of another network.
    """
    own = network.state_dict()
    if set(state) != set(own):
        wanted = {_plain(name): name for name in own}
        if len(wanted) == len(own) and {_plain(name) for name in state} == set(wanted):
            state = {wanted[_plain(name)]: value for name, value in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{source} is of other networks: {error}") from error


def _plain(name: str) -> str:
    """A parameter's name without the wrappers around its modules."""
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def restore_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Take the moments from ``saved`` and keep every option of ``optimizer``.

    Raises:
        ValueError: The state is of an optimizer with other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    if [len(g["params"]) for g in own] != [len(g["params"]) for g in saved["param_groups"]]:
        raise ValueError("the checkpoint has the optimizer state of other networks")
    # Loading looks at the options to place the step counters, so they must be the new ones.
    optimizer.load_state_dict({"state": saved["state"], "param_groups": own})
    # Fused Adam pairs weights and moments by their place in memory, whatever their strides say.
    for parameter, state in optimizer.state.items():
        for name, moment in state.items():
            if moment.shape == parameter.shape and moment.stride() != parameter.stride():
                placed = torch.empty_like(parameter, dtype=moment.dtype, requires_grad=False)
                state[name] = placed.copy_(moment)


def restore_schedule(scheduler: LambdaLR, done: int) -> None:
    """Put the learning rates where ``scheduler``'s own plan has them after ``done`` steps."""
    rates = [
        base * factor(done)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler.last_epoch = done
    scheduler._step_count = done + 1
    scheduler._last_lr = rates


def restore_stream(stream: BatchStream, saved: dict[str, Any]) -> str | None:
    """Continue in the order of the data, or with a new epoch where that order no longer fits.

    Returns:
        What differs, if anything.
    """
    own = stream.state_dict()
    differing = [k for k in ("images", "global_batch", "flip") if own[k] != saved[k]]
    if not differing:
        stream.load_state_dict(saved)
        return None
    generator = torch.Generator()
    generator.set_state(saved["generator"].cpu())
    torch.randperm(
        saved["images"], generator=generator, device="cpu"
    )  # the epoch that is left behind
    epoch = int(saved["epoch"]) + 1
    stream.load_state_dict(
        {**own, "generator": generator.get_state(), "epoch": epoch, "position": 0}
    )
    parts = ", ".join(f"{k} {saved[k]} -> {own[k]}" for k in differing)
    return f"the data starts a new epoch ({parts})"


def restore_loss(
    loss: nn.Module, saved: dict[str, Any], before: TrainConfig, after: TrainConfig
) -> None:
    """Take the loss's buffers from the checkpoint, unless it is another loss now.

    Raises:
        ValueError: The state is of another loss, though the configuration says it is the same.
    """
    if (before.loss, before.loss_options) != (after.loss, after.loss_options):
        return
    try:
        loss.load_state_dict(saved)
    except RuntimeError as error:
        raise ValueError(f"the checkpoint is of another loss: {error}") from error


def restore_average(
    average: AveragedModel | None, saved: dict[str, Any] | None, generator: nn.Module
) -> None:
    """Continue the weight average, or begin one at the weights of ``generator``."""
    if average is None:
        return
    if saved is None:
        average.module.load_state_dict(generator.state_dict())
    else:
        average.load_state_dict(saved)
