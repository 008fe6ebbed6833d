"""The special function unit: ex2, lg2, rcp, sqrt, rsqrt, sin, cos, tanh, rounded from float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..machine import Machine
from ..parser import Instruction
from ..registry import OPCODES, Semantics, type_of
from ..types import Array
from .arithmetic import approximate, finish, float_sources

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}


def elementary(function: Callable[[Array], Array]) -> Semantics:
    def semantics(machine: Machine, ins: Instruction) -> None:
        type_ = type_of(ins)
        (source,) = float_sources(machine, ins, type_, 1)
        value = function(source.astype(np.float64) if type_ == "f32" else source)
        narrow = np.float32 if type_ in ("f32", "bf16", "bf16x2") else source.dtype
        value = value.astype(narrow)
        if "approx" in ins.mods and type_ == "f32":
            value = approximate(machine, value)
        machine.put(ins.args[0], type_, finish(ins, value, type_))

    return semantics


OPCODES.update({name: elementary(function) for name, function in FUNCTIONS.items()})
