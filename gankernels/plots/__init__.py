"""Pictures of losses and of runs; they need matplotlib, grids and animations Pillow (``gankernels[train]``).

Figures are drawn through matplotlib's object interface on the Agg canvas, so a program's own pyplot
state is left alone, and every file appears whole or not at all.

- From tensors, or from the folder of a run: :func:`anchors`, :func:`realness`, :func:`gradients`.
- Of a run: :func:`save_curves`, :func:`read_metrics`.
- Samples as files: :func:`save_grid`, :func:`save_animation`, :func:`save_scatter`, :func:`save_samples`.
"""

from gankernels.plots.pictures import save_animation, save_grid, save_samples, save_scatter
from gankernels.plots.realness import anchors, gradients, realness
from gankernels.plots.runs import read_metrics, save_curves

__all__ = [
    "anchors",
    "gradients",
    "read_metrics",
    "realness",
    "save_animation",
    "save_curves",
    "save_grid",
    "save_samples",
    "save_scatter",
]
