"""Fused losses, gradient reversal and training steps for GANs in PyTorch."""

from gankernels import _interpreter

# isort: split
from gankernels import (
    anchors,
    compat,
    functional,
    layers,
    lecam,
    modules,
    penalties,
    plots,
    reference,
)
from gankernels._backend import build_info
from gankernels._value_and_grad import value_and_grad
from gankernels.functional import *
from gankernels.layers import *
from gankernels.lecam import *
from gankernels.modules import *
from gankernels.penalties import *

__version__ = "0.1.0"

__all__ = [
    "anchors",
    "build_info",
    "compat",
    "penalties",
    "plots",
    "reference",
    "value_and_grad",
    *functional.__all__,
    *layers.__all__,
    *lecam.__all__,
    *modules.__all__,
    *penalties.__all__,
]


def __dir__() -> list[str]:
    return [*__all__, "__version__", "functional"]
