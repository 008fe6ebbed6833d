"""Modes of the 3x3 Gaussian mixture that RealnessGAN and the standard GAN recover.

    python -m benchmarks.toy_modes           # five seeds: docs/results/toy.json
    python -m benchmarks.toy_modes --table   # the table of the committed results

The recipe is ``toy`` (``python -m gankernels train toy``). A mode is recovered when at least 1 % of
10,000 samples lie within 4 sigma of its centre; the high-quality share is that of all samples
within 4 sigma of some centre.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.results import commit, processor
from gankernels.training import Trainer, configuration, data
from gankernels.training.distributed import World
from gankernels.training.evaluation import evaluate_mixture
from gankernels.training.sampling import sampler

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "toy.json"
PRESETS = {
    "realness": "realness, K = 5, 3 G updates",
    "standard": "standard GAN, 3 G updates",
    "standard_1": "standard GAN, 1 G update",
}
CHECKS = (500, 2_000)
SAMPLES = 10_000


def play(preset: str, seed: int, points: data.ImageData) -> list[dict[str, Any]]:
    """Train one seed and score it on the way."""
    config = configuration("toy", preset, seed=seed, device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        world = World(0, 1, torch.device("cpu"))
        trainer = Trainer(config, Path(folder), world, image_data=points)
        records = []
        start = time.perf_counter()
        for step in range(1, max(CHECKS) + 1):
            trainer.step()
            if step in CHECKS:
                trainer.metrics.collect()  # raises where the run is no longer finite
                draw = sampler(trainer.players.generator, config, "cpu", seed=1_000 + seed)
                scores = evaluate_mixture(
                    draw(SAMPLES), data.gaussian_centres(), data.GAUSSIAN_SIGMA
                )
                seconds = round(time.perf_counter() - start, 1)
                records.append({"preset": preset, "seed": seed, "iterations": step, **scores})
                print(f"{records[-1]} {seconds} s", flush=True)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = [
        "| | iterations | modes of 9 | high-quality share |",
        "|---|---|---|---|",
    ]
    for preset, name in PRESETS.items():
        for step in CHECKS:
            chosen = [r for r in records if (r["preset"], r["iterations"]) == (preset, step)]
            if len(chosen) < 2:
                continue
            modes = [float(r["modes_recovered"]) for r in chosen]
            share = [100 * r["high_quality_share"] for r in chosen]
            lines.append(
                f"| {name} | {step:,} | {mean(modes):.1f} ± {stdev(modes):.1f} "
                f"| {mean(share):.0f} ± {stdev(share):.0f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of --out and stop")
    options = parser.parse_args()
    if not options.table:
        points = data.load("gaussians")
        records = [r for p in PRESETS for s in range(options.seeds) for r in play(p, s, points)]
        result = {
            "command": "python -m benchmarks.toy_modes",
            "torch": torch.__version__,
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "processor": processor(),
            "samples": SAMPLES,
            "sigma": data.GAUSSIAN_SIGMA,
            "centres": data.gaussian_centres().tolist(),
            "configuration": configuration("toy").to_dict(),
            "records": records,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(options.out.read_text(encoding="utf-8"))["records"]))


if __name__ == "__main__":
    main()
