"""Graphed steps on the CPU: an emulated graph runs a captured step's operations again, and no Python."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_steps import emulate, static_tensors
from step_pairs import NOISE, batches, noise_source, players, smooth_pair, twins
from tiny_runs import tiny
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import keystr, tree_flatten_with_path

import gankernels as gk
from gankernels.training import StepConfig, Trainer, checkpoint, configuration, graphs
from gankernels.training.cli import main
from gankernels.training.distributed import World
from gankernels.training.graphs import WARM_UP, GraphedStep, check_graphable, make_capturable
from gankernels.training.players import Metrics, adam
from gankernels.training.steps import STEPS
from gankernels.training.updates import continue_average

ALONE = World(0, 1, torch.device("cpu"))
RATE = 2.0**-10  # float32 holds it, and the schedule's multiples of it


def tensors_of(trainer: Trainer) -> list[Tensor]:
    averages = () if trainer.ema is None else (trainer.ema,)
    return static_tensors(trainer.players, trainer.loss, *averages)


class Pair:
    """A trainer without graphs, and one whose graphs are emulated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: Any) -> None:
        small = tiny("dcgan", "quick") | {"steps": 64, "g_lr": RATE, "d_lr": RATE, "decay": 1.0}
        self.config = configuration("dcgan", "quick", **(small | changes))
        self.eager = Trainer(self.config, folder, ALONE)
        emulate(monkeypatch, lambda: tensors_of(self.graphed))
        self.graphed = Trainer(self.config.but(cuda_graph=True), folder, ALONE)

    @property
    def captured(self) -> int:
        assert self.graphed.graphed is not None
        return self.graphed.graphed.captured


def kept(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint would hold of a run, learning rates as numbers."""
    state = trainer._states()
    del state["config"]
    state["rates"] = [float(o.param_groups[0]["lr"]) for o in trainer.optimizers]
    state["optimizers"] = [o["state"] for o in state["optimizers"]]
    state["random"] = checkpoint.random_states(trainer.noise_generator, torch.device("cpu"))
    return {**state, "done": trainer.done, "metrics": trainer.metrics.state_dict()}


def assert_same_run(a: Trainer, b: Trainer) -> None:
    """Weights, statistics, moments, averages, loss scale, random states, metrics: to the last bit."""
    left, right = tree_flatten_with_path(kept(a))[0], tree_flatten_with_path(kept(b))[0]
    for (name, x), (other, y) in zip(left, right, strict=True):
        assert name == other
        same = torch.equal(x, y) if isinstance(x, Tensor) else x == y
        assert same, f"{keystr(name)}: {x} != {y}"


@pytest.mark.parametrize(
    ("changes", "graphs"),
    [
        ({"step_kind": "alternating", "r1_every": 2}, 2),
        ({"step_kind": "one_pass", "r1_every": 2}, 2),
        ({"r1_gamma": 0.0, "r2_gamma": 1.0, "r1_every": 2, "lecam": 0.3}, 2),
        ({"step_kind": "reversal", "r1_gamma": 0.0, "clip": 0.1}, 1),
        ({"step_kind": "ratio", "network_options": {"d_batch_norm": False, "width": 4}}, 1),
        ({"amp": "bf16", "accumulate": 2, "r1_gamma": 0.0}, 1),
        ({"amp": "fp16", "r1_gamma": 0.0, "g_updates": 2}, 1),
        ({"ema": 0.0, "decay": 0.0, "channels_last": False, "r1_every": 1}, 1),
    ],
    ids=lambda value: "" if isinstance(value, int) else "-".join(map(str, value)),
)
def test_replays_are_the_steps(
    changes: dict[str, Any], graphs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Schedule, average, statistics, penalty: nothing of a step stays behind on the host."""
    pair = Pair(monkeypatch, tmp_path, **changes)
    for trainer in (pair.eager, pair.graphed):
        for _ in range(10):
            trainer.step()
    assert pair.captured == graphs
    assert_same_run(pair.eager, pair.graphed)


def test_a_resumed_run_goes_on_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkpoint of a graphed run serves both, and a trainer forgets the graphs of its old tensors."""
    pair = Pair(monkeypatch, tmp_path, r1_every=2, decay=1.0)
    for _ in range(9):
        pair.eager.step()
        pair.graphed.step()
    pair.graphed.save()
    for _ in range(9):
        pair.eager.step()
        pair.graphed.step()
    assert pair.captured == 2
    pair.graphed.restore(checkpoint.load(tmp_path))
    assert pair.captured == 0
    for _ in range(9):
        pair.graphed.step()
    assert pair.captured == 2
    rates = [float(o.param_groups[0]["lr"]) for o in pair.graphed.optimizers]
    assert rates == [RATE * (1 - 18 / 64)] * 2
    assert_same_run(pair.eager, pair.graphed)
    plain = Trainer(pair.config, tmp_path, ALONE)
    plain.restore(checkpoint.load(tmp_path))
    assert not any(isinstance(o.param_groups[0]["lr"], Tensor) for o in plain.optimizers)
    for _ in range(9):
        plain.step()
    assert_same_run(pair.eager, plain)


class Counting:
    """A graphed alternating step of a small pair, and how often its Python ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: StepConfig | None = None) -> None:
        self.config = config or StepConfig()
        self.players = players(smooth_pair(), self.config)
        emulate(monkeypatch, lambda: static_tensors(self.players))
        self.runs: list[int] = []
        generator = torch.Generator().manual_seed(2)
        self.noise = lambda n: torch.randn(n, NOISE, generator=generator)
        self.graphed = GraphedStep(self.run, self.players, self.config, [generator])

    def run(self, real: Tensor, iteration: int) -> Metrics:
        self.runs.append(iteration)
        step = STEPS["alternating"]
        return step(self.players, gk.LogisticLoss(), real, self.noise, self.config, iteration)


def test_each_form_of_the_batch_is_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller last batch runs as it is, between the others."""
    step = Counting(monkeypatch, StepConfig(r1_gamma=1.0, r1_every=2))
    batch = batches(8, 1)[0]
    for iteration in range(4 * WARM_UP):
        step.graphed(batch, iteration)
    assert step.runs == list(range(2 * WARM_UP + 2))
    assert step.graphed.captured == 2
    for _ in range(WARM_UP):
        step.graphed(batch[:5], 1)
        step.graphed(batch, 1)
    assert step.runs[2 * WARM_UP + 2 :] == [1] * WARM_UP
    assert step.graphed.captured == 2
    step.graphed(batch.double().float().contiguous(), 1)
    step.graphed.forget()
    step.graphed(batch, 3)
    assert step.runs[-1] == 3
    assert step.graphed.captured == 0


def test_metrics_outlive_the_next_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Counting(monkeypatch)
    found = [step.graphed(real) for real in batches(8, 1) * 3]
    losses = [float(m["d_loss"]) for m in found]
    assert len(set(losses)) == len(losses) > WARM_UP
    assert all(m.keys() == found[0].keys() for m in found)
    assert all(v.dim() == 0 and v.dtype == torch.float32 for m in found for v in m.values())


def test_gradients_of_a_graph_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Counting(monkeypatch)
    for real in batches(8, 1):
        step.graphed(real)
    both = (step.players.generator, step.players.discriminator)
    assert all(p.grad is None for n in both for p in n.parameters())


# -------------------------------------------------------------------------------------- refused


def test_what_draws_on_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Counting(monkeypatch)
    real, plain = batches(8, 1)[0], step.noise
    step.noise = lambda n: plain(n) * random.random()
    for _ in range(WARM_UP):
        step.graphed(real)
    with pytest.raises(ValueError, match="cannot be captured: it draws random numbers on the host"):
        step.graphed(real)


def test_what_reads_the_device_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Counting(monkeypatch)
    real, plain = batches(8, 1)[0], step.noise
    step.noise = lambda n: plain(n) * float(real.sum())
    for _ in range(WARM_UP):
        step.graphed(real)
    before = [p.detach().clone() for p in step.players.generator.parameters()]
    with pytest.raises(ValueError, match=r"cannot be captured: aten\._local_scalar_dense"):
        step.graphed(real)
    after = step.players.generator.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert step.graphed.captured == 0


def test_a_batch_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Counting(monkeypatch)
    with pytest.raises(ValueError, match="real must be on cpu, as the networks, got meta"):
        step.graphed(batches(8, 1)[0].to("meta"))


@pytest.mark.parametrize("optimizer", ["foreach", "loop"])
def test_an_optimizer_that_counts_on_the_host_is_refused(optimizer: str) -> None:
    weights = [nn.Parameter(torch.ones(1))]
    with pytest.raises(ValueError, match=f"needs optimizer='fused', got '{optimizer}'"):
        StepConfig(cuda_graph=True, optimizer=optimizer)
    with pytest.raises(ValueError, match="needs fused Adam, got Adam with fused=False"):
        make_capturable(adam(weights, 0.1, (0.5, 0.9), StepConfig(optimizer=optimizer)))
    with pytest.raises(ValueError, match="needs fused Adam, got SGD with fused=None"):
        make_capturable(torch.optim.SGD(weights, 0.1))


def test_compiled_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="cuda_graph=True excludes compile=True"):
        StepConfig(cuda_graph=True, compile=True)


def test_no_device_and_several_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of, gpu = players(smooth_pair()), torch.device("cuda", 0)
    check_graphable(gpu, of)
    monkeypatch.setattr(graphs, "DistributedDataParallel", type(of.discriminator))
    with pytest.raises(ValueError, match="cuda_graph=True is for one process"):
        check_graphable(gpu, of)
    run = tmp_path / "run"
    command = f"train toy --cuda-graph --device cpu --quiet --out {run}"
    assert main(command.split()) == 1
    found = capsys.readouterr().err
    assert "cuda_graph=True needs a CUDA device, and the networks are on cpu" in found
    assert len(found.strip().splitlines()) == 1
    assert not run.exists()


# ------------------------------------------------------------------------------- what it rests on


def test_the_average_without_questions_is_the_average() -> None:
    averages = []
    for update in (AveragedModel.update_parameters, continue_average):
        (ours, _) = twins(
            lambda: (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 1))
        )
        network = ours.generator
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
        average.update_parameters(network)
        draw = noise_source(seed=5)
        for _ in range(3):
            network(draw(8)[:, :3])
            with torch.no_grad():
                for p in network.parameters():
                    p.add_(1.0)
            update(average, network)
        averages.append(average.state_dict())
    assert averages[0].keys() == averages[1].keys()
    assert averages[0]["n_averaged"] == 4
    for name, value in averages[0].items():
        assert torch.equal(value, averages[1][name]), name


def test_an_average_restored_before_its_first_update_begins_anew(tmp_path: Path) -> None:
    config = configuration("dcgan", "quick", **tiny("dcgan", "quick"))
    run, fresh = (Trainer(config, tmp_path, ALONE) for _ in range(2))
    run.save()
    run.step()
    run.step()
    run.restore(checkpoint.load(tmp_path))
    run.step()
    fresh.step()
    assert_same_run(run, fresh)
