"""What each instruction computes. Importing the package fills the table of opcodes."""

from __future__ import annotations

from . import arithmetic, atomics, bits, conversion, data, elementary, matrix, select, warp

__all__ = [
    "arithmetic",
    "atomics",
    "bits",
    "conversion",
    "data",
    "elementary",
    "matrix",
    "select",
    "warp",
]
