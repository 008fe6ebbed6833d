"""Two processes: the averaged update is the single-process update on the joined batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import gankernels as gk
from gankernels.training import (
    ImageData,
    Players,
    StepConfig,
    TrainConfig,
    Trainer,
    checkpoint,
    commands,
    configuration,
    train,
)
from gankernels.training.distributed import World, bare, join
from gankernels.training.players import adam, prepare
from gankernels.training.steps import STEPS

WORLD, BATCH, NOISE, ROUNDS = 2, 8, 6, 3
CASES: dict[str, tuple[str, StepConfig]] = {
    "alternating": ("alternating", StepConfig(g_updates=2)),
    "accumulated": ("alternating", StepConfig(accumulate=2, order="g_first")),
    "penalised": ("alternating", StepConfig(r1_gamma=0.5, r1_every=2)),
    "both penalties": ("one_pass", StepConfig(r1_gamma=0.5, r2_gamma=0.5, r1_every=2)),
    "reversal": ("reversal", StepConfig()),
    "one_pass": ("one_pass", StepConfig()),
    "ratio": ("ratio", StepConfig()),
}
RUN: dict[str, Any] = {
    "batch_size": 4,
    "steps": 6,
    "log_every": 2,
    "sample_every": 3,
    "checkpoint_every": 4,
    "samples": 4,
    "image_size": 8,
}


def joined_batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    # An alternating step with two generator updates draws noise three times.
    return [(draw(BATCH, 1, 8, 8), draw(3, BATCH, NOISE)) for _ in range(ROUNDS)]


def play(case: str, rank: int, world: World) -> dict[str, Tensor]:
    """A few steps on this process's share of the joined batches; the parameters afterwards."""
    torch.manual_seed(0)
    kind, config = CASES[case]
    generator = nn.Sequential(nn.Linear(NOISE, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    discriminator = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(64, 1)
    )
    networks = [world.wrap(prepare(n.double(), config), False) for n in (generator, discriminator)]
    optimizers = [adam(n.parameters(), 1e-2, (0.5, 0.9), config) for n in networks]
    players = Players(networks[0], networks[1], optimizers[0], optimizers[1])
    for iteration, (real, draws) in enumerate(joined_batches()):
        rows = slice(rank, None, world.size)
        mine = iter(draws[:, rows])
        STEPS[kind](
            players, gk.LogisticLoss(), real[rows], lambda n, m=mine: next(m), config, iteration
        )
    return {
        f"{i}.{name}": value
        for i, network in enumerate(networks)
        for name, value in bare(network).state_dict().items()
    }


class StopHereError(Exception):
    """Ends a run in the middle of a step."""


def run_config() -> TrainConfig:
    # BatchNorm whose buffers differ between processes, and dropout-free noise per process.
    return configuration(
        "dcgan", **RUN, ema=0.5, flip=True, network_options={"width": 4}, lecam=0.3
    )


def pictures() -> ImageData:
    pixels = torch.randint(256, (24, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return ImageData(pixels.byte(), name="random pictures")


def break_and_resume(folder: Path) -> None:
    """One undisturbed run, and one that stops between two checkpoints and goes on."""
    train(run_config(), folder / "whole", image_data=pictures(), progress=False)
    step = Trainer.step

    def breaks(self: Trainer) -> None:
        if self.done == 5:
            raise StopHereError
        step(self)

    Trainer.step = breaks  # type: ignore[method-assign]
    try:
        train(run_config(), folder / "broken", image_data=pictures(), progress=False)
    except StopHereError:
        Trainer.step = step  # type: ignore[method-assign]
    train(run_config(), folder / "broken", image_data=pictures(), progress=False, resume=True)


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    world = World(rank, WORLD, torch.device("cpu"))
    torch.save({case: play(case, rank, world) for case in CASES}, folder / f"rank{rank}.pt")
    break_and_resume(folder)
    dist.barrier()  # a process that leaves first takes its connections with it
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    path = tmp_path_factory.mktemp("world")
    mp.spawn(worker, (path,), nprocs=WORLD)
    return path


@pytest.mark.processes
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_on_the_joined_batch(case: str, folder: Path) -> None:
    alone = play(case, 0, World(0, 1, torch.device("cpu")))
    ranks = [torch.load(folder / f"rank{r}.pt", weights_only=True)[case] for r in range(WORLD)]
    fresh = dict(nn.Linear(NOISE, 64).double().named_parameters())
    assert alone["0.0.weight"].shape == fresh["weight"].shape
    for name, expected in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.processes
def test_two_processes_resume_bit_for_bit(folder: Path) -> None:
    whole, broken = (checkpoint.load(folder / name) for name in ("whole", "broken"))
    assert len(whole["processes"]) == WORLD
    noises = [p["noise"] for p in whole["processes"]]
    assert not torch.equal(noises[0], noises[1])
    for part in ("generator", "discriminator", "ema", "lecam"):
        for name, value in whole[part].items():
            assert torch.equal(value, broken[part][name]), f"{part}.{name}"
    for a, b in zip(whole["processes"], broken["processes"], strict=True):
        assert torch.equal(a["noise"], b["noise"])
    numbers = [
        [
            {k: v for k, v in json.loads(line).items() if k != "images_per_second"}
            for line in (folder / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "broken")
    ]
    assert numbers[0] == numbers[1]
    assert [record["step"] for record in numbers[0]] == [2, 4, 6]


@pytest.mark.processes
def test_a_run_of_two_processes_goes_on_with_one(folder: Path) -> None:
    """The data order and the noise are other ones from there on, which it says."""
    more = run_config().but(steps=8)
    expected = r"global_batch 8 -> 4\); the noise is shared out anew \(processes 2 -> 1"
    with pytest.warns(UserWarning, match=expected):
        train(more, folder / "broken", image_data=pictures(), resume=True, progress=False)
    assert len(checkpoint.load(folder / "broken")["processes"]) == 1


@pytest.mark.processes
def test_torchrun_trains_from_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = "--nproc-per-node 2 -m gankernels train toy --steps 4 --samples 50 --log-every 2"
    done = subprocess.run(
        [*launcher, *command.split(), "--out", str(run)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint") == 1  # one process speaks
    assert len(checkpoint.load(run)["processes"]) == 2
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 4]


# In its first life the process that writes may die after its second checkpoint.
MORTAL = """
import os, signal, sys
from gankernels.training import checkpoint, cli
save = checkpoint.save
def save_and_die(path, state):
    save(path, state)
    if state["step"] == 4 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
if os.environ["DIES"] == "1":
    checkpoint.save = save_and_die
sys.exit(cli.main())
"""


@pytest.mark.processes
def test_a_restarted_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """torchrun --max-restarts, without --resume and without --out: the run of before, to the same bits."""
    (tmp_path / "script.py").write_text(MORTAL)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = "--nproc-per-node 2 --max-restarts 1 --monitor-interval 0.1 ../script.py train toy"
    command = f"{options} --steps 6 --checkpoint-every 2 --samples 50 --log-every 1 --quiet"
    states = []
    for dies in ("1", "0"):
        folder = tmp_path / dies
        folder.mkdir()
        done = subprocess.run(
            [*launcher, *command.split()],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "DIES": dies},
        )
        assert done.returncode == 0, done.stderr
        assert ("exitcode: -9" in done.stderr) == (dies == "1")
        (run,) = (folder / "runs").iterdir()
        state = checkpoint.load(run)
        assert state.pop("job")
        states.append(tree_flatten(state))
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    (broken, tree), (whole, expected_tree) = states
    assert tree == expected_tree
    for a, b in zip(broken, whole, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize(
    ("restarts", "job", "own"),
    [("1", "a", True), ("1", "b", False), ("1", "none", False), ("0", "a", False)],
)
def test_only_the_run_of_the_same_job_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, job: str, own: bool
) -> None:
    """A job that was refused a folder that holds a run must not take it the second time."""
    config = configuration("toy", steps=2, batch_size=8, samples=4)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none" if job == "none" else "a")
    run = train(config, tmp_path / "toy", progress=False)
    before = (run / "checkpoint.pt").read_bytes()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    assert commands._free_folder(tmp_path, config) == tmp_path / ("toy" if own else "toy-2")
    if own:
        train(config, run, progress=False)
    else:
        with pytest.raises(ValueError, match="holds a run already"):
            train(config, run, progress=False)
        assert (run / "checkpoint.pt").read_bytes() == before


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert not dist.is_initialized()
        assert world.gather("x") == ["x"]
    with pytest.raises(ValueError, match="device must be"), join("abacus"):
        pass
