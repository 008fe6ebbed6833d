"""Draws the plots of the pages: `python docs/pictures.py`; a short run of RealnessGAN takes a minute of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib

import gankernels as gk
from gankernels.training import configuration
from gankernels.training.loop import train

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    gaussian = [gk.anchors.gaussian(20, mean, 1, -2, 2) for mean in (1, -1)]
    save(gk.plots.anchors((gaussian[0], gaussian[1]), low=-2, high=2), "anchors_gaussian")
    real, fake = gk.anchors.official(51, seed=0)
    moved = gk.anchors.skewed(real, 1.0, -1.0, 1.0), gk.anchors.skewed(fake, -1.0, -1.0, 1.0)
    save(gk.plots.anchors(moved, before=(real, fake)), "anchors_skewed")
    save(gk.plots.gradients(), "gradients")
    with tempfile.TemporaryDirectory() as folder:
        config = configuration("realness", steps=300, sample_every=10, log_every=10, threads=1)
        save(gk.plots.realness(train(config, folder, progress=False)), "realness_run")


def save(figure: Any, name: str) -> None:
    # Without a date, and with fixed names of its parts, a picture drawn again is the same file.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
