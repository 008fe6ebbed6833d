"""Two pairs of players that begin alike, what they are fed, and how they are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

import gankernels as gk
from gankernels.training import (
    Players,
    StepConfig,
)
from gankernels.training.players import adam, grad_scaler, prepare

BATCH, NOISE, STEPS = 8, 6, 5
ANCHORS = gk.anchors.article(20, seed=0)


def players(
    networks: tuple[nn.Module, nn.Module],
    config: StepConfig | None = None,
    dtype: torch.dtype = torch.float32,
    shared: bool = False,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.5, 0.9),
) -> Players:
    config = config or StepConfig()
    generator, discriminator = (prepare(n.to(dtype), config) for n in networks)
    of_g, of_d = list(generator.parameters()), list(discriminator.parameters())
    if shared:
        g_optimizer = d_optimizer = adam(of_g + of_d, lr, betas, config)
    else:
        g_optimizer, d_optimizer = (adam(p, lr, betas, config) for p in (of_g, of_d))
    scaler = grad_scaler(config, torch.device("cpu"))
    lecam = gk.LeCamPenalty() if config.lecam else None
    return Players(generator, discriminator, g_optimizer, d_optimizer, scaler, lecam)


def twins(build: Callable[[], tuple[nn.Module, nn.Module]], **options: object) -> list[Players]:
    torch.manual_seed(0)
    networks = build()
    return [players(copy.deepcopy(networks), **options) for _ in range(2)]  # type: ignore[arg-type]


def batches(size: int, channels: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, channels, size, size)
    made = [torch.rand(shape, generator=generator, dtype=dtype) for _ in range(STEPS)]
    return [b.contiguous(memory_format=torch.channels_last) for b in made]


def noise_source(dtype: torch.dtype = torch.float32, seed: int = 2) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(n, NOISE, generator=generator, dtype=dtype)


def state(p: Players) -> dict[str, Tensor]:
    """Parameters, buffers and optimizer states of both players by name."""
    found: dict[str, Tensor] = {}
    for name in ("generator", "discriminator"):
        found |= {f"{name}.{k}": v for k, v in getattr(p, name).state_dict().items()}
    for name in ("g_optimizer", "d_optimizer"):
        for index, of in getattr(p, name).state_dict()["state"].items():
            found |= {f"{name}.{index}.{k}": v for k, v in of.items()}
    return found


def assert_same(ours: Players, theirs: Players, rtol: float = 0.0) -> None:
    a, b = state(ours), state(theirs)
    assert a.keys() == b.keys()
    assert a
    for name in a:
        scale = float(b[name].double().abs().max())
        torch.testing.assert_close(
            a[name], b[name], rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


# In float64 the losses' arithmetic differs from the articles' by rounding alone.
EXACT = {"dtype": torch.float64}


def smooth_pair() -> tuple[nn.Module, nn.Module]:
    """No batch statistics, no dropout, and a second derivative that is not zero."""
    generator = nn.Sequential(nn.Linear(NOISE, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    discriminator = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(64, 1)
    )
    return generator, discriminator


def gradients(p: Players) -> dict[str, Tensor]:
    named = [*p.generator.named_parameters("g"), *p.discriminator.named_parameters("d")]
    return {n: x.grad for n, x in named if x.grad is not None}


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(
            ours[name],
            theirs[name],
            rtol=rtol,
            atol=rtol * scale,
            msg=lambda m, n=name: f"{n}: {m}",
        )
