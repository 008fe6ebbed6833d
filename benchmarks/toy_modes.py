"""Modes of the 3x3 Gaussian mixture that the presets of the toy recipe recover.

    python -m benchmarks.toy_modes                    # every contestant, five seeds: docs/results/toy.json
    python -m benchmarks.toy_modes pairing realness   # these anew; the others stay as they are
    python -m benchmarks.toy_modes --table            # the table of the committed results

The recipe is ``toy`` (``python -m gankernels train toy``). A mode is recovered when at least 1 % of
10,000 samples lie within 4 sigma of its centre; the high-quality share is that of all samples
within 4 sigma of some centre. Samples come from the average of the weights where a preset has one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch

from benchmarks.results import commit, processor
from gankernels.training import TrainConfig, Trainer, configuration, data
from gankernels.training.distributed import World
from gankernels.training.evaluation import evaluate_mixture
from gankernels.training.sampling import sampler

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "toy.json"
SAMPLES = 10_000


class Contestant(NamedTuple):
    """A preset with changes, under the name that the table has for it."""

    text: str
    preset: str
    changes: dict[str, Any] = {}  # noqa: RUF012

    def configuration(self, **more: Any) -> TrainConfig:
        return configuration("toy", self.preset, **self.changes, **more)


_ONCE = {"loss_options": {"objective": 2, "anchors": "skewed"}}
CONTESTANTS = {
    "pairing": Contestant("pairing loss, R1 + R2 (`pairing`)", "pairing"),
    "realness": Contestant("realness, K = 5, R1 + R2 (`realness`)", "realness"),
    "article": Contestant("realness, K = 5, 3 G updates (`article`)", "article"),
    "article_once": Contestant("`article`, anchors drawn once", "article", _ONCE),
    "standard": Contestant("standard GAN, 3 G updates (`standard`)", "standard"),
    "standard_1": Contestant("standard GAN, 1 G update (`standard_1`)", "standard_1"),
}


def play(name: str, seed: int, points: data.ImageData) -> list[dict[str, Any]]:
    """Train one seed, and score it after 500 steps and at the end."""
    config = CONTESTANTS[name].configuration(seed=seed, device="cpu", threads=1)
    torch.set_num_threads(1)  # which ``train`` would do
    with tempfile.TemporaryDirectory() as folder:
        world = World(0, 1, torch.device("cpu"))
        trainer = Trainer(config, Path(folder), world, image_data=points)
        network = trainer.players.generator if trainer.ema is None else trainer.ema
        records = []
        seconds = -time.process_time()
        for step in range(1, config.steps + 1):
            trainer.step()
            if step in (500, config.steps):
                trainer.metrics.collect()  # raises where the run is no longer finite
                seconds += time.process_time()
                draw = sampler(network, config, "cpu", seed=1_000 + seed)
                scores = evaluate_mixture(
                    draw(SAMPLES), data.gaussian_centres(), data.GAUSSIAN_SIGMA
                )
                record = {"contestant": name, "seed": seed, "iterations": step, **scores}
                records.append(record | {"cpu_seconds": round(seconds, 1)})
                print(records[-1], flush=True)
                seconds -= time.process_time()
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = [
        "| | seeds | iterations | modes of 9 | high-quality share | least of the seeds | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, contestant in CONTESTANTS.items():
        own = [r for r in records if r["contestant"] == name]
        for step in sorted({r["iterations"] for r in own}):
            chosen = [r for r in own if r["iterations"] == step]
            if len(chosen) < 2:
                continue
            modes = [float(r["modes_recovered"]) for r in chosen]
            share = [100 * r["high_quality_share"] for r in chosen]
            seconds = [r["cpu_seconds"] for r in chosen if "cpu_seconds" in r]
            lines.append(
                f"| {contestant.text} | {len(chosen)} | {step:,} | {mean(modes):.1f} ± {stdev(modes):.1f} "
                f"| {mean(share):.0f} ± {stdev(share):.0f} % | {min(modes):.0f}, {min(share):.0f} % "
                f"| {f'{max(seconds):.0f}' if seconds else ''} |"
            )
    return "\n".join(lines)


def environment(names: list[str], seeds: list[int]) -> dict[str, Any]:
    """Where the records of ``names`` come from."""
    command = " ".join(
        ["python -m benchmarks.toy_modes", *names, "--seeds", *(str(seed) for seed in seeds)]
    )
    return {
        "seeds": seeds,
        "command": command,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "configurations": {n: CONTESTANTS[n].configuration().to_dict() for n in names},
    }


def merged(
    old: dict[str, Any], source: dict[str, Any], records: list[dict[str, Any]]
) -> dict[str, Any]:
    """The results with new records in the place of the same contestants' old ones, and their source."""

    def of(source: dict[str, Any]) -> set[tuple[str, int]]:
        return set(product(source["configurations"], source["seeds"]))

    kept = [r for r in old.get("records", []) if (r["contestant"], r["seed"]) not in of(source)]
    left = {(r["contestant"], r["seed"]) for r in kept}
    sources = [s for s in old.get("sources", []) if of(s) & left]
    return {
        "samples": SAMPLES,
        "sigma": data.GAUSSIAN_SIGMA,
        "centres": data.gaussian_centres().tolist(),
        "sources": [*sources, source],
        "records": kept + records,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contestants", nargs="*", help=f"of {', '.join(CONTESTANTS)}; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of --out and stop")
    options = parser.parse_args()
    if not options.table:
        names = options.contestants or list(CONTESTANTS)
        if unknown := set(names) - set(CONTESTANTS):
            parser.error(f"unknown contestants: {', '.join(sorted(unknown))}")
        points, source = data.load("gaussians"), environment(names, options.seeds)
        records = [r for n in names for s in options.seeds for r in play(n, s, points)]
        # Read after the runs: another process may have written its contestants meanwhile.
        old = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        found = merged(old, source, records)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(options.out.read_text(encoding="utf-8"))["records"]))


if __name__ == "__main__":
    main()
