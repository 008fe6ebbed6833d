"""Losses behind what shards, casts and compiles a discriminator: the mean of what each process has alone."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import gankernels as gk
from tools.torture.attack import Found

WORLD, BATCH, FEATURES, OUTCOMES = 2, 6, 5, 4
BF16 = torch.bfloat16

Gradients = dict[str, Tensor]
Wrap = Callable[[nn.Module], nn.Module]


def losses(share: float) -> dict[str, gk.GANLoss]:
    """One of every family; in the short form the one with the most to go wrong."""
    real, fake = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    own: dict[str, gk.GANLoss] = {"realness": gk.RealnessLoss(real, fake)}
    if share < 1:
        return own
    return {
        **own,
        "relativistic": gk.RelativisticLoss(),
        "logistic": gk.LogisticLoss(),
        "hinge": gk.HingeLoss(),
        "Wasserstein": gk.WassersteinLoss(),
        "LSGAN": gk.LSGANLoss(),
    }


def network(outcomes: int) -> nn.Sequential:
    """With a gradient reversal in it, which turns the gradients of the layers before it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, 8), gk.GradientReversal(0.5), nn.Softplus(), nn.Linear(8, outcomes)
    )


def sharded(module: nn.Module, policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    """FSDP2, layer by layer."""
    options = {} if policy is None else {"mp_policy": policy}
    for layer in module.children():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, **options)
    fully_shard(module, **options)
    return module


WRAPS: dict[str, Wrap] = {
    "DistributedDataParallel": DistributedDataParallel,
    "DistributedDataParallel, compiled": lambda m: torch.compile(
        DistributedDataParallel(m), backend="aot_eager"
    ),
    "fully_shard": sharded,
    "fully_shard in bfloat16": lambda m: sharded(
        m, MixedPrecisionPolicy(param_dtype=BF16, reduce_dtype=torch.float32)
    ),
}


def batches(rank: int) -> tuple[Tensor, Tensor]:
    """The real and fake samples of a process."""
    generator = torch.Generator().manual_seed(rank)
    return (
        torch.randn(BATCH, FEATURES, generator=generator),
        torch.randn(BATCH, FEATURES, generator=generator),
    )


def gradients(
    of: nn.Module, loss: gk.GANLoss, player: str, real: Tensor, fake: Tensor
) -> Gradients:
    value = getattr(loss, player)(of(real), of(fake))
    value.backward()
    found = {}
    for name, parameter in of.named_parameters():
        g = parameter.grad
        assert g is not None, name
        plain = name.removeprefix("_orig_mod.").removeprefix("module.")
        found[plain] = (g.full_tensor() if isinstance(g, DTensor) else g).float()
    return found


def alone(module: nn.Module, loss: gk.GANLoss, player: str, dtype: torch.dtype) -> Gradients:
    """The mean over the shares, each in this process by itself."""
    module = module.to(dtype)
    each = [
        gradients(copy.deepcopy(module), loss, player, *(x.to(dtype) for x in batches(rank)))
        for rank in range(WORLD)
    ]
    return {name: torch.stack([g[name] for g in each]).mean(0) for name in each[0]}


def check(wrap: str, loss: gk.GANLoss, player: str, rank: int) -> None:
    built = network(OUTCOMES if isinstance(loss, gk.RealnessLoss) else 1)
    expected = alone(
        copy.deepcopy(built), loss, player, BF16 if "bfloat16" in wrap else torch.float32
    )
    found = gradients(WRAPS[wrap](built), loss, player, *batches(rank))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def worker(rank: int, folder: Path, share: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    found = Found()
    for name, loss in losses(share).items():
        for wrap in WRAPS:
            for player in ("discriminator", "generator"):
                found.attempt(
                    f"{name}, {player}, {wrap}",
                    partial(check, wrap, loss, player, rank),
                )
    (folder / f"{rank}.json").write_text(json.dumps([found.cases, found.failures]))
    dist.barrier()  # a process that leaves first takes its connections with it
    dist.destroy_process_group()


def run(share: float) -> Found:
    found = Found(note=f"{WORLD} processes")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, (Path(folder), share), nprocs=WORLD)
        for rank in range(WORLD):
            cases, failures = json.loads(Path(folder, f"{rank}.json").read_text())
            found.cases += cases
            found.failures += failures
    return found
