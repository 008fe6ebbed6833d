"""What the pages show and `make docs` does not make anew: `python docs/pictures.py` does, in a few minutes.

The plots in docs/images, one of them of a short run of RealnessGAN, and docs/mixture.ipynb, which is
examples/mixture.py executed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jupytext
import matplotlib
import nbformat
from nbclient import NotebookClient

import gankernels as gk
from gankernels.training import configuration
from gankernels.training.loop import train

DOCS = Path(__file__).parent


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
    execute(DOCS.parent / "examples" / "mixture.py", DOCS / "mixture.ipynb")


def execute(script: Path, notebook: Path) -> None:
    cells = jupytext.read(script)
    NotebookClient(cells, timeout=1200).execute()
    for number, cell in enumerate(cells.cells):
        cell.id = str(number)
        cell.metadata.pop("execution", None)  # the times of day
    nbformat.write(cells, notebook)
    print(f"docs/{notebook.name}")


def save(figure: Any, name: str) -> None:
    # Without a date, and with fixed names of its parts, a picture drawn again is the same file.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(DOCS / "images" / f"{name}.svg", metadata={"Date": None})
    print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
