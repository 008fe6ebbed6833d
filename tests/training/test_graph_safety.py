"""What a CUDA graph asks of a step: no reads by the host, static memory, nothing left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_steps import HostError, Recorder, static_tensors
from step_pairs import NOISE, batches, noise_source, players
from tiny_runs import tiny
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import gankernels as gk
from gankernels.training import RECIPES, Players, StepConfig, Trainer, configuration
from gankernels.training.distributed import World
from gankernels.training.players import Metrics
from gankernels.training.steps import STEPS
from gankernels.training.updates import continue_average

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "contiguous": {"channels_last": False},
    "fake first": {"fake_first": True, "order": "g_first"},
    "three updates of G": {"g_updates": 3},
    "r1": {"r1_gamma": 1.0, "r1_every": 1},
    "r1 not due": {"r1_gamma": 1.0, "r1_every": 7},
    "bf16": {"amp": "bf16"},
    "bf16 with r1": {"amp": "bf16", "r1_gamma": 1.0, "r1_every": 1},
    "fp16 with a loss scale": {"amp": "fp16"},
    "fp16, clipped": {"amp": "fp16", "clip": 0.5},
    "clipped": {"clip": 0.5},
    "no norms": {"grad_norms": False},
    "micro-batches": {"accumulate": 2},
    "micro-batches with r1": {"accumulate": 2, "r1_gamma": 1.0, "r1_every": 1},
}
# Of D alone, which only these steps keep to it.
D_ALONE: dict[str, dict[str, Any]] = {
    "r2": {"r2_gamma": 1.0, "r1_every": 1},
    "lecam": {"lecam": 0.3},
    "all, bf16, micro-batches": {
        **{"amp": "bf16", "accumulate": 2, "lecam": 0.3},
        **{"r1_gamma": 1.0, "r2_gamma": 1.0, "r1_every": 1},
    },
}
LOSSES = {
    "logistic": gk.LogisticLoss,
    "hinge": gk.HingeLoss,
    "wasserstein": gk.WassersteinLoss,
    "lsgan": gk.LSGANLoss,
    "relativistic": gk.RelativisticLoss,
    "pairing": gk.RelativisticPairingLoss,
}


def pair() -> tuple[nn.Module, nn.Module]:
    """Running statistics, power iteration and dropout: what a step changes beside its weights."""
    generator = nn.Sequential(
        nn.Linear(NOISE, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
    )
    discriminator = nn.Sequential(
        spectral_norm(nn.Conv2d(1, 4, 3, stride=2, padding=1)),
        nn.Softplus(),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64, 1),
    )
    return generator, discriminator


class Run:
    """Steps of one kind under some options, with an average of G."""

    def __init__(self, kind: str, config: StepConfig, loss: Any, shared: bool = False) -> None:
        torch.manual_seed(0)
        self.kind, self.config, self.loss = kind, config, loss
        self.players = players(pair(), config, shared=shared)
        self.average = AveragedModel(
            self.players.generator, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
        )
        self.noise = noise_source()
        self.batch = batches(8, 1)[0].clone(memory_format=torch.contiguous_format)

    def __call__(self, iteration: int = 0) -> Metrics:
        step = STEPS[self.kind]
        metrics = step(self.players, self.loss, self.batch, self.noise, self.config, iteration)
        continue_average(self.average, self.players.generator)
        return metrics

    def static(self) -> list[Tensor]:
        return [*static_tensors(self.players, self.average, self.loss), self.batch]


def check(step: Callable[[], Metrics], static: list[Tensor], of: Players) -> None:
    """One step that a graph can hold.

    Raises:
        HostError: It waits for the device, or reads the host.
        AssertionError: It reads what is not static, or leaves memory in use.
    """
    with Recorder(static) as recorder:
        metrics = step()
    assert recorder.calls
    assert not recorder.strangers
    del metrics
    for network in (of.generator, of.discriminator):
        network.zero_grad()
    assert recorder.forget_calls() == 0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kind", STEPS)
def test_a_step_can_be_captured(kind: str, options: dict[str, Any]) -> None:
    run = Run(kind, StepConfig(**options), gk.LogisticLoss())
    for _ in range(2):  # Adam's state and the loss scale begin
        run(1)
    check(lambda: run(1), run.static(), run.players)


@pytest.mark.parametrize("options", D_ALONE.values(), ids=D_ALONE.keys())
@pytest.mark.parametrize("kind", ["alternating", "one_pass"])
def test_a_step_with_penalties_of_d_alone_can_be_captured(
    kind: str, options: dict[str, Any]
) -> None:
    test_a_step_can_be_captured(kind, options)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("kind", ["alternating", "reversal", "one_pass"])
def test_every_loss_can_be_captured(kind: str, loss: Callable[[], nn.Module]) -> None:
    run = Run(kind, StepConfig(), loss(), shared=kind == "reversal")
    run()
    check(run, run.static(), run.players)


PRESETS = [(r.name, p) for r in RECIPES.values() for p in r.presets]


@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_every_preset_can_be_captured(recipe: str, preset: str, tmp_path: Path) -> None:
    """With its networks, its loss, its noise, and what the trainer adds to a step."""
    config = configuration(recipe, preset, **tiny(recipe, preset))
    trainer = Trainer(config, tmp_path, World(0, 1, torch.device("cpu")))
    trainer.step()
    trainer.step()
    batch = next(trainer.stream)
    averages = () if trainer.ema is None else (trainer.ema,)
    static = [*static_tensors(trainer.players, trainer.loss, *averages), batch]
    for iteration in (0, 1):  # with the R1 penalty and without
        check(lambda i=iteration: trainer._update(batch, i), static, trainer.players)


# ------------------------------------------------------------------------- the checks can fail


class Planted(gk.LogisticLoss):
    """A loss that does something of its own with the logits of G's phase."""

    def __init__(self, planted: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.planted = planted

    def generator_value_and_grad(self, real: Tensor | None, fake: Tensor) -> Any:
        self.planted(fake)
        return super().generator_value_and_grad(real, fake)


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.mean().item(),
    "float": lambda x: float(x.detach().mean()),
    "branch": lambda x: 1 if x.mean() > 0 else 0,
    "nonzero": lambda x: (x > 0).nonzero(),
    "mask": lambda x: x[x > 0],
    "where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "host's data": lambda x: x + torch.tensor([1.0]),
    "another device": lambda x: x.to("meta"),
}


@pytest.mark.parametrize("planted", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("kind", STEPS)
def test_a_planted_read_is_seen(kind: str, planted: Callable[[Tensor], object]) -> None:
    run = Run(kind, StepConfig(), Planted(planted))
    run()
    with pytest.raises(HostError):
        check(run, run.static(), run.players)


def test_a_planted_stranger_is_seen() -> None:
    weights = torch.ones(1)
    run = Run("alternating", StepConfig(), Planted(lambda x: x * weights))
    run()
    with pytest.raises(AssertionError, match=r"aten\.mul\.Tensor of \(1,\)"):
        check(run, run.static(), run.players)
    check(run, [*run.static(), weights], run.players)


def test_planted_leavings_are_seen() -> None:
    kept: list[Tensor] = []
    run = Run("one_pass", StepConfig(), Planted(lambda x: kept.append(x.detach()[:1])))
    run()
    with pytest.raises(AssertionError, match="1 == 0"):
        check(run, run.static(), run.players)


# ------------------------------------------------------------------------------- without values


def on_meta(kind: str, loss: nn.Module, config: StepConfig) -> Metrics:
    networks = [n.to("meta") for n in pair()]
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in networks]
    batch = torch.empty(8, 1, 8, 8, device="meta")

    def noise(count: int) -> Tensor:
        return torch.randn(count, NOISE, device="meta")

    return STEPS[kind](Players(*networks, *optimizers), loss, batch, noise, config)


PAST_THE_DISPATCHER = {"tolist": lambda x: x.tolist(), "numpy": lambda x: x.detach().numpy()}


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize("kind", STEPS)
def test_a_step_needs_no_values(kind: str, gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors have none to read; whatever looks at one of them raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    config = StepConfig(r1_gamma=gamma, clip=1.0)
    assert all(v.is_meta for v in on_meta(kind, gk.LogisticLoss(), config).values())
    readers = (READS["item"], READS["branch"], *PAST_THE_DISPATCHER.values())
    for read in readers:
        with pytest.raises((RuntimeError, TypeError, NotImplementedError), match="meta"):
            on_meta(kind, Planted(read), config)
