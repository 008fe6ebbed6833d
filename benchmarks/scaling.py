"""How time grows with rows, with classes, with threads and with processes."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import gankernels as gk
from benchmarks import formulas
from benchmarks.timing import interleaved, paired_ratio
from gankernels.training import Players, StepConfig, alternating_step
from gankernels.training.networks import realness_article
from gankernels.training.players import adam, prepare

CLASSES = 20
ROWS = (1, 3, 10, 32, 100, 316, 1_000, 3_162, 10_000, 31_623, 100_000)
ROWS_FOR_CLASSES = 16
CLASS_COUNTS = (2, 6, 20, 63, 200, 632, 2_000, 6_325, 20_000, 63_246, 200_000)
LINEAR_FROM = 100_000  # logits: below, the constant cost of a call bends the line


def _case(n: int, k: int) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, k, generator=generator).requires_grad_() for _ in range(2))
    anchors = gk.anchors.gaussian(k, 1, 1, -2, 2), gk.anchors.gaussian(k, -1, 1, -2, 2)

    def backward(loss: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(real, fake, *anchors), (real, fake))

    return {
        "gankernels": backward(gk.realness_d_loss),
        "F.cross_entropy": backward(formulas.cross_entropy_realness_d),
        "article formula": backward(formulas.epsilon_realness_d),
    }


def sizes(threads: int, rounds: int) -> list[dict[str, Any]]:
    """Time against rows (K = 20) and against classes (16 rows), ours and two rivals."""
    grid = [("rows", n, n, CLASSES) for n in ROWS]
    grid += [("classes", k, ROWS_FOR_CLASSES, k) for k in CLASS_COUNTS]
    made = []
    for axis, value, n, k in grid:
        measured = interleaved(_case(n, k), threads=threads, rounds=rounds)
        for name, m in measured.items():
            made.append(
                {
                    "axis": axis,
                    "value": value,
                    "logits": 2 * n * k,
                    "contender": name,
                    "threads": threads,
                    "median_us": round(m.median, 2),
                    "ratio_to_ours": round(paired_ratio(m, measured["gankernels"]), 3),
                }
            )
    return made


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Fitted exponent of time against size beyond :data:`LINEAR_FROM` logits; 1 is linear."""
    found = {}
    for axis in ("rows", "classes"):
        for name in dict.fromkeys(r["contender"] for r in rows):
            chosen = [
                (r["value"], r["median_us"])
                for r in rows
                if (r["axis"], r["contender"]) == (axis, name) and r["logits"] >= LINEAR_FROM
            ]
            x, y = np.log(np.array(chosen)).T
            found[f"{axis}, {name}"] = round(float(np.polyfit(x, y, 1)[0]), 3)
    return found


def thread_rows(counts: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Ours with one thread and with more, in the same rounds."""
    made = []
    for n, k in ((128, 20), (4096, 20), (64, 4096), (4096, 1024), (1024, 32768)):
        call = _case(n, k)["gankernels"]

        def with_threads(count: int, call: Callable[[], object] = call) -> Callable[[], object]:
            def run() -> object:
                torch.set_num_threads(count)
                return call()

            return run

        # Timer pins to its own number of threads, so the contenders set theirs themselves.
        contenders = {str(c): with_threads(c) for c in counts}
        measured = interleaved(contenders, threads=max(counts), rounds=rounds)
        base = measured[str(counts[0])]
        for name, m in measured.items():
            made.append(
                {
                    "axis": "threads",
                    "value": int(name),
                    "shape": f"{n}x{k}",
                    "contender": "gankernels",
                    "threads": int(name),
                    "median_us": round(m.median, 2),
                    "speed_up": round(paired_ratio(base, m), 3),
                }
            )
    return made


# ------------------------------------------------------------------------------------- processes


def _train(rank: int, world: int, store: str, steps: int, batch: int, queue: Queue[float]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(0)
    config = StepConfig()
    networks = [DistributedDataParallel(prepare(n, config)) for n in realness_article()]
    optimizers = [adam(n.parameters(), 1e-4, (0.0, 0.9), config) for n in networks]
    players = Players(networks[0], networks[1], optimizers[0], optimizers[1])
    anchors = gk.anchors.gaussian(20, 1, 1, -2, 2), gk.anchors.gaussian(20, -1, 1, -2, 2)
    loss = gk.RealnessLoss(*anchors)
    real = torch.rand(batch, 3, 32, 32)
    times = []
    for step in range(steps + 3):
        dist.barrier()
        start = time.perf_counter()
        alternating_step(players, loss, real, lambda n: torch.randn(n, 100), config)
        if step >= 3:
            times.append(time.perf_counter() - start)
    if rank == 0:
        queue.put(statistics.median(times))
    dist.barrier()
    # The reducers of DistributedDataParallel must go before the group that they talk through.
    del players, networks
    dist.destroy_process_group()


def process_rows(worlds: tuple[int, ...], steps: int, batch: int = 128) -> list[dict[str, Any]]:
    """RealnessGAN's step under DistributedDataParallel on gloo, one thread per process."""
    context = multiprocessing.get_context("spawn")
    made: list[dict[str, Any]] = []
    for world in worlds:
        queue: Queue[float] = context.Queue()
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder) / "store")
            arguments = [(rank, world, store, steps, batch, queue) for rank in range(world)]
            processes = [context.Process(target=_train, args=a) for a in arguments]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            if any(p.exitcode for p in processes):
                raise RuntimeError(f"a process of {world} failed; its error is above")
        seconds = queue.get()
        rate = world * batch / seconds
        made.append(
            {
                "axis": "processes",
                "value": world,
                "contender": "alternating step, DDP",
                "threads": 1,
                "median_us": round(seconds * 1e6, 1),
                "images_per_second": round(rate, 1),
                "speed_up": round(rate / made[0]["images_per_second"], 3) if made else 1.0,
            }
        )
    return made


def measure(threads: int, rounds: int) -> list[dict[str, Any]]:
    """Every row of the suite."""
    cores = min(os.cpu_count() or 1, 8)
    counts = tuple(c for c in (1, 2, 4, 8) if c <= cores)
    return [
        *sizes(threads, rounds),
        *thread_rows(counts, rounds),
        *process_rows(tuple(c for c in (1, 2) if c <= cores), steps=2 * rounds),
    ]


def print_rows(rows: list[dict[str, Any]]) -> None:
    print("\nrealness_d_loss, forward + backward, by size")
    print(
        f"  {'axis':12}{'value':>10}  {'contender':24}{'threads':>8}{'median us':>12}{'ratio':>8}"
    )
    for row in rows:
        ratio = row.get("ratio_to_ours", row.get("speed_up"))
        print(
            f"  {row['axis']:12}{row['value']:>10}  {row['contender']:24}{row['threads']:8}"
            f"{row['median_us']:12.1f}{ratio:8.2f}  {row.get('shape', '')}"
        )
    for name, slope in slopes([r for r in rows if "ratio_to_ours" in r]).items():
        print(f"  time grows with {name}: exponent {slope}")
