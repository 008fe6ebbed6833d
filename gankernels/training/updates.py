"""Updates of the players from the gradients that a step's backward passes left."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gankernels.training.players import Metrics, Players
from gankernels.training.step_config import StepConfig

__all__ = ["add_metrics", "continue_average", "update", "zero_grad"]


def add_metrics(total: Metrics, part: Metrics, config: StepConfig) -> None:
    """Add a micro-batch's share of the metrics to ``total``."""
    for name, value in part.items():
        value = value if config.accumulate == 1 else value / config.accumulate
        total[name] = total[name] + value if name in total else value


def zero_grad(players: Players) -> None:
    """Forget the gradients of both players, whether they share an optimizer or not."""
    for optimizer in {id(o): o for o in (players.d_optimizer, players.g_optimizer)}.values():
        optimizer.zero_grad()


def update(players: Players, config: StepConfig, *networks: nn.Module) -> Metrics:
    """Unscale, measure, clip and step the optimizers of ``networks``."""
    of = {
        id(players.discriminator): players.d_optimizer,
        id(players.generator): players.g_optimizer,
    }
    optimizers = {id(o): o for o in (of[id(n)] for n in networks)}.values()
    if players.scaler is not None:
        for optimizer in optimizers:
            players.scaler.unscale_(optimizer)
    metrics: Metrics = {}
    for network in networks:
        norm = _clip(network, config)
        if norm is not None:
            prefix = "d" if network is players.discriminator else "g"
            metrics[f"{prefix}_grad_norm"] = norm
    for optimizer in optimizers:
        if players.scaler is None:
            optimizer.step()
        else:
            players.scaler.step(optimizer)
    if players.scaler is not None:
        players.scaler.update()
    return metrics


def _clip(network: nn.Module, config: StepConfig) -> Tensor | None:
    if config.clip is not None:
        return nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    if not config.grad_norms:
        return None
    return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


@torch.no_grad()
def continue_average(average: AveragedModel, network: nn.Module) -> None:
    """Average once more, as ``average.update_parameters(network)`` does after its first call.

    That method asks the device at every call how often it was called.

    Args:
        average: Has a ``multi_avg_fn`` and averages buffers too; one update is behind it.
        network: What it averages, on the same device.
    """
    pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    own = chain(average.module.parameters(), average.module.buffers())
    for mean, value in zip(own, chain(network.parameters(), network.buffers()), strict=True):
        means, values = pairs.setdefault(mean.dtype, ([], []))
        means.append(mean.detach())
        values.append(value.detach())
    assert average.multi_avg_fn is not None
    for means, values in pairs.values():
        average.multi_avg_fn(means, values, average.n_averaged)
    average.n_averaged += 1
