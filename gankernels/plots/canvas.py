"""Figures beside pyplot: matplotlib's object interface on the Agg canvas."""

from __future__ import annotations

from typing import Any

from gankernels._extras import require

__all__ = ["figure", "legend"]


def figure(width: float, height: float) -> Any:
    """A figure of ``width`` by ``height`` inches that a program's own pyplot state knows nothing of.

    Raises:
        ImportError: matplotlib is missing; the message says what to type.
    """
    made = require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(made)
    return made


def legend(axis: Any) -> None:
    """A legend where it hides least."""
    # Not left to the default, which is the same place and a warning where the search took a second:
    # on a busy machine it does.
    axis.legend(loc="best")
