"""Draws the committed results: `python -m benchmarks.plots` writes docs/images/bench_* and quality_*."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from benchmarks import results
from benchmarks.losses import is_rival
from benchmarks.quality import LOSSES, PENALTIES, PUBLISHED

IMAGES = Path(__file__).parents[1] / "docs" / "images"
ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def _write(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(IMAGES / f"bench_{name}.svg", metadata={"Date": None})
    plt.close(figure)


def _subtitle(environment: dict[str, Any]) -> str:
    e = environment
    return f"{e['processor']}, {e['threads']} thread(s), torch {e['torch']}, {e['date']}"


def losses() -> None:
    """Time of every rival in units of ours; the bar at 1 is ours."""
    found = results.load("losses")
    cases: dict[str, dict[str, float]] = {}
    for row in found["rows"]:
        if is_rival(row["contender"]):
            label = f"{row['operator']}\n{row['shape']} {row['dtype']}"
            cases.setdefault(label, {})[row["contender"]] = row["ratio_to_ours"]
    figure, axes = plt.subplots(figsize=(9, 0.28 * sum(len(c) + 1 for c in cases.values()) + 1.2))
    y, ticks, labels = 0.0, [], []
    for label, rivals in cases.items():
        for name, ratio in rivals.items():
            axes.barh(y, ratio, color="#4878a8" if ratio >= 1 else "#b85450")
            axes.text(ratio + 0.05, y, f"{name} {ratio:.2f}", va="center", fontsize=7)
            y -= 1
        ticks.append(y + (len(rivals) + 1) / 2)
        labels.append(label)
        y -= 1
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.set_xlabel("time / gankernels, forward + backward")
    axes.set_title(_subtitle(found["environment"]), fontsize=8)
    axes.margins(x=0.25)
    _write(figure, "losses")


def bandwidth() -> None:
    """Compulsory bytes per second of ours, of its rivals and of a copy, against the size."""
    found = results.load("losses_full")
    chosen = {
        "gankernels": "gankernels",
        "gankernels value_and_grad": "value_and_grad",
        "F.cross_entropy": "F.cross_entropy",
        "F.cross_entropy, compiled": "F.cross_entropy, compiled",
        "article formula": "article formula",
        "floor: copy": "copy of the same bytes",
    }
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for contender, label in chosen.items():
        points = []
        for row in found["rows"]:
            if (row["operator"], row["dtype"], row["contender"]) == (
                "realness_d_loss",
                "fp32",
                contender,
            ):
                elements = math.prod(map(int, row["shape"].split("x")))
                moved = (
                    2 * 2 * elements * ELEMENT_BYTES[row["dtype"]]
                )  # two batches, read and written
                points.append((moved, moved / row["median_us"] / 1e3))
        points.sort()
        style = "k--" if contender == "floor: copy" else "o-"
        axes.loglog(*zip(*points, strict=True), style, label=label, markersize=4)
    axes.set_xlabel("compulsory bytes: both batches read, both gradients written")
    axes.set_ylabel("GB/s")
    axes.set_title(f"realness_d_loss fp32: {_subtitle(found['environment'])}", fontsize=8)
    axes.legend(loc="best", fontsize=7)
    _write(figure, "bandwidth")


def steps() -> None:
    """Speed-up of whole steps over the article's loop."""
    found = results.load("steps")
    systems = list(dict.fromkeys(row["system"] for row in found["rows"]))
    heights = [sum(row["system"] == s for row in found["rows"]) for s in systems]
    figure, panels = plt.subplots(
        len(systems), figsize=(9, 0.3 * sum(heights) + 2.5), height_ratios=heights, squeeze=False
    )
    for system, axes in zip(systems, panels[:, 0], strict=True):
        rows = [row for row in found["rows"] if row["system"] == system][::-1]
        ours = ["#b0b0b0" if r["contender"].startswith("article") else "#4878a8" for r in rows]
        bars = axes.barh([r["contender"] for r in rows], [r["speed_up"] for r in rows], color=ours)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
        axes.tick_params(labelsize=7)
        axes.set_title(system, fontsize=8, loc="left")
        axes.margins(x=0.15)
    panels[-1, 0].set_xlabel("speed-up over the article's loop")
    figure.suptitle(_subtitle(found["environment"]), fontsize=8)
    _write(figure, "steps")


def scaling() -> None:
    """Time against rows and against classes."""
    found = results.load("scaling")
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for axis, axes in zip(("rows", "classes"), panels, strict=True):
        _lines(axes, [row for row in found["rows"] if row["axis"] == axis])
        axes.set_xlabel("rows (20 classes)" if axis == "rows" else "classes (16 rows)")
    panels[0].set_ylabel("microseconds, forward + backward")
    panels[0].legend(loc="best", fontsize=7)
    figure.suptitle(f"realness_d_loss fp32: {_subtitle(found['environment'])}", fontsize=8)
    _write(figure, "scaling")


def _lines(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for name in dict.fromkeys(row["contender"] for row in rows):
        points = [(r["value"], r["median_us"]) for r in rows if r["contender"] == name]
        axes.loglog(*zip(*points, strict=True), "o-", label=name, markersize=3)


def quality(name: str) -> None:
    """The first samples of the first seed: a row for each loss, with the penalties and without them."""
    with Image.open(results.RESULTS / f"quality-{name}.png") as opened:
        sheet = np.asarray(opened)
    strips = np.split(sheet, len(LOSSES) * len(PENALTIES))
    figure, panels = plt.subplots(len(LOSSES), len(PENALTIES), figsize=(10, 4.4))
    for strip, axes in zip(strips, panels.flat, strict=True):
        axes.imshow(strip, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
    for loss, axes in zip(LOSSES, panels[:, 0], strict=True):
        axes.set_ylabel(loss, rotation=0, ha="right", va="center", fontsize=8)
    for penalty, axes in zip(PENALTIES, panels[0], strict=True):
        axes.set_title("no penalty" if penalty == "none" else penalty, fontsize=8)
    figure.tight_layout(h_pad=0.2, w_pad=0.4)
    figure.savefig(IMAGES / f"quality_{name}.png", dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("svg")
    plt.rcParams["svg.hashsalt"] = "gankernels"  # the same results give the same file
    for draw in (losses, bandwidth, steps, scaling):
        draw()
        print(f"docs/images/bench_{draw.__name__}.svg")
    for name in PUBLISHED:
        quality(name)
        print(f"docs/images/quality_{name}.png")


if __name__ == "__main__":
    main()
