"""One row per operator, and the one tolerance: what every generic test is made from.

:data:`OPERATORS` holds the rows. A row says how to draw arguments for an operator, what it is
differentiable in, and how a user would write it in plain PyTorch; ``tests/contract`` runs the whole
contract on every row, and ``tests/operators/test_registration.py`` fails for an operator without one.
:func:`check_operator` runs the numerical part on any device.

Example:
    >>> from gankernels.testing import check_operator
    >>> check_operator("softmax_kl")  # every shape, dtype and reduction against float64
"""

from __future__ import annotations

from gankernels._checks import FLOAT_DTYPES as DTYPES
from gankernels._checks import REDUCTIONS
from gankernels.testing.accuracy import (
    assert_accurate,
    check_operator,
    compare,
    cotangent,
    differentiate,
    in_dtype,
    tolerance,
)
from gankernels.testing.cases import Arguments, Case, Draw
from gankernels.testing.counters import gradient_scale_counts
from gankernels.testing.installation import check_installation
from gankernels.testing.operator import Operator
from gankernels.testing.table import OPERATORS

__all__ = [
    "DTYPES",
    "OPERATORS",
    "REDUCTIONS",
    "Arguments",
    "Case",
    "Draw",
    "Operator",
    "assert_accurate",
    "check_installation",
    "check_operator",
    "compare",
    "cotangent",
    "differentiate",
    "gradient_scale_counts",
    "in_dtype",
    "tolerance",
]
