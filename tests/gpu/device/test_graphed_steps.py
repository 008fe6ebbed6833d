"""Whole training steps as CUDA graphs: to the last bit what they are without, and without waiting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

import gankernels as gk
from gankernels.training import (
    ImageData,
    Players,
    StepConfig,
    Trainer,
    checkpoint,
    configuration,
)
from gankernels.training.distributed import World
from gankernels.training.graphs import WARM_UP, GraphedStep
from gankernels.training.networks import dcgan_small
from gankernels.training.players import adam, grad_scaler, prepare
from gankernels.training.steps import STEPS
from gpu.device.waiting import no_synchronisation

RATE = 2.0**-10  # float32 holds it, and the multiples that the schedule makes of it
STEPS_IN_ALL = 32


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Two runs of one program differ where cuDNN adds up with atomics."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


def trainer(folder: Path, recipe: str, preset: str, **changes: Any) -> Trainer:
    """A run on random pictures, or on the points of its recipe."""
    rates = {"g_lr": RATE} | ({} if recipe == "grl" else {"d_lr": RATE})
    small: dict[str, Any] = {"steps": STEPS_IN_ALL, "batch_size": 16, "samples": 4, "decay": 1.0}
    config = configuration(recipe, preset, **(small | rates | changes))
    pictures = None
    if config.image_size is not None:
        generator = torch.Generator().manual_seed(0)
        shape = (1024, config.channels, config.image_size, config.image_size)
        pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        pictures = ImageData(pixels, name="random pictures")
    return Trainer(config, folder, World(0, 1, torch.device("cuda", 0)), image_data=pictures)


def kept(run: Trainer) -> dict[str, Any]:
    """What a checkpoint would hold of a run, learning rates as numbers."""
    state = run._states()
    del state["config"]
    state["rates"] = [float(o.param_groups[0]["lr"]) for o in run.optimizers]
    state["optimizers"] = [o["state"] for o in state["optimizers"]]
    state["random"] = checkpoint.random_states(run.noise_generator, run.world.device)["noise"]
    return {**state, "done": run.done, "metrics": run.metrics.state_dict()}


def assert_same_run(a: Trainer, b: Trainer) -> None:
    left, right = tree_flatten_with_path(kept(a))[0], tree_flatten_with_path(kept(b))[0]
    for (name, x), (other, y) in zip(left, right, strict=True):
        assert name == other
        both_nan = x != x and y != y if isinstance(x, float) else False  # of a skipped fp16 step
        assert both_nan or (torch.equal(x, y) if isinstance(x, Tensor) else x == y), keystr(name)


def advance(run: Trainer, steps: int) -> None:
    for _ in range(steps):
        run.step()


CASES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "alternating with R1": ("dcgan", "quick", {}, 2),
    "alternating, bf16 with R1": ("dcgan", "quick", {"amp": "bf16"}, 2),
    "alternating, fp16, clipped": ("dcgan", "plain", {"amp": "fp16", "clip": 0.5}, 1),
    "one pass": ("dcgan", "one_pass", {}, 1),
    "one pass, fp16 with R1": (
        "dcgan",
        "one_pass",
        {"amp": "fp16", "r1_gamma": 1.0, "r1_every": 4},
        2,
    ),
    "ratio, micro-batches": ("dcgan", "ratio", {"accumulate": 2}, 1),
    "reversal, dropout, one optimizer": ("grl", "quick", {}, 1),
    "realness": ("realness", "quick", {}, 1),
    "realness, spectral norm, resampling": ("realness", "strong", {"image_size": 16}, 1),
    "realness, bf16, contiguous": (
        "realness",
        "article",
        {"amp": "bf16", "channels_last": False},
        1,
    ),
    "points, three updates of G": ("toy", "realness", {}, 1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_graphed_steps_are_the_steps(
    case: tuple[str, str, dict[str, Any], int], tmp_path: Path
) -> None:
    """Weights, statistics, moments, average, loss scale, noise and metrics, as the rate falls."""
    recipe, preset, changes, graphs = case
    eager = trainer(tmp_path, recipe, preset, **changes)
    advance(eager, 18)
    after = torch.cuda.get_rng_state()
    again = trainer(tmp_path, recipe, preset, **changes)  # which seeds PyTorch's generators
    advance(again, 18)
    assert_same_run(eager, again)  # or a comparison with anything else says nothing
    graphed = trainer(tmp_path, recipe, preset, **changes, cuda_graph=True)
    advance(graphed, 18)
    assert graphed.graphed is not None
    assert graphed.graphed.captured == graphs
    assert_same_run(eager, graphed)
    assert torch.equal(torch.cuda.get_rng_state(), after)


@pytest.mark.parametrize("amp", [None, "bf16", "fp16"])
@pytest.mark.parametrize("cuda_graph", [False, True], ids=["eager", "graphed"])
def test_a_step_of_a_run_does_not_wait(cuda_graph: bool, amp: str | None, tmp_path: Path) -> None:
    """With its batch, its schedule, its average and its metrics."""
    run = trainer(tmp_path, "dcgan", "quick", amp=amp, r1_gamma=0.0, cuda_graph=cuda_graph)
    advance(run, WARM_UP + 2)
    torch.cuda.synchronize()
    with no_synchronisation():
        advance(run, 3)
    run.metrics.collect()


def test_a_resumed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    changes = {"cuda_graph": True, "r1_every": 2}
    whole = trainer(tmp_path, "dcgan", "quick", **changes)
    advance(whole, 10)
    whole.save()
    advance(whole, 10)
    for graph in (True, False):
        resumed = trainer(tmp_path, "dcgan", "quick", **(changes | {"cuda_graph": graph}))
        resumed.restore(checkpoint.load(tmp_path, resumed.world.device))
        advance(resumed, 10)
        assert_same_run(whole, resumed)
    whole.restore(checkpoint.load(tmp_path, whole.world.device))
    advance(whole, 10)
    assert_same_run(whole, resumed)


def players(config: StepConfig) -> Players:
    torch.manual_seed(0)
    networks = [prepare(n.cuda(), config) for n in dcgan_small(28, 1)]
    optimizers = [adam(n.parameters(), RATE, (0.5, 0.9), config) for n in networks]
    return Players(*networks, *optimizers, grad_scaler(config, torch.device("cuda")))


def test_a_smaller_batch_runs_without_a_graph_between_replays() -> None:
    config = StepConfig()
    sizes = [16] * 5 + [7] + [16] * 3 + [7] + [16]
    pictures = torch.rand(16, 1, 28, 28, device="cuda")
    ends = []
    for graph in (False, True):
        both = players(config)
        draws = torch.Generator("cuda").manual_seed(1)

        def step(real: Tensor, i: int, both: Players = both, draws: torch.Generator = draws) -> Any:
            def noise(count: int) -> Tensor:
                return torch.randn(count, 100, device="cuda", generator=draws)

            return STEPS["alternating"](both, gk.LogisticLoss(), real, noise, config, i)

        graphed = GraphedStep(step, both, config, [draws]) if graph else None
        metrics = [(graphed or step)(pictures[:n] + i, i) for i, n in enumerate(sizes)]
        if graphed is not None:
            assert graphed.captured == 1
        weights = [
            p.detach() for p in (*both.generator.parameters(), *both.discriminator.parameters())
        ]
        ends.append([*weights, draws.get_state(), *(v for m in metrics for v in m.values())])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


PLANTED = """
import torch
import gankernels as gk
from gankernels.training.graphs import GraphedStep
from gankernels.training import Players, StepConfig
from gankernels.training.players import adam
from gankernels.training.steps import alternating_step

config = StepConfig()
networks = [torch.nn.Linear(3, 3).cuda(), torch.nn.Linear(3, 1).cuda()]
players = Players(*networks, *[adam(n.parameters(), 1e-3, (0.5, 0.9), config) for n in networks])


def noise(count):
    drawn = torch.randn(count, 3, device="cuda")
    return drawn * drawn.mean().item()


def step(real, iteration):
    return alternating_step(players, gk.LogisticLoss(), real, noise, config, iteration)


graphed = GraphedStep(step, players, config)
for iteration in range(3):
    graphed(torch.randn(8, 3, device="cuda"))
before = networks[0].weight.detach().clone()
try:
    graphed(torch.randn(8, 3, device="cuda"))
except ValueError as error:
    assert "cuda_graph: the step cannot be captured: " in str(error), error
    assert torch.equal(networks[0].weight, before)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    print("refused:", error)
"""


def test_what_waits_for_the_device_is_refused() -> None:
    """In a process of its own: a capture that fails leaves PyTorch's generator unusable."""
    found = subprocess.run(
        [sys.executable, "-c", PLANTED], capture_output=True, text=True, check=False, timeout=120
    )
    assert "refused: cuda_graph: the step cannot be captured" in found.stdout, found.stderr
