"""The table of instructions: each opcode's function, which computes it for the active threads of a machine."""

from __future__ import annotations

from collections.abc import Callable

from .machine import Machine
from .parser import Instruction

Semantics = Callable[[Machine, Instruction], None]
OPCODES: dict[str, Semantics] = {}


def opcode(*names: str) -> Callable[[Semantics], Semantics]:
    """Register a function as what these opcodes do."""

    def register(function: Semantics) -> Semantics:
        OPCODES.update(dict.fromkeys(names, function))
        return function

    return register


def types(ins: Instruction) -> list[str]:
    """The instruction's types in the order written: ``cvt.rn.bf16.f32`` has [bf16, f32]."""
    return ins.types


def type_of(ins: Instruction) -> str:
    return ins.types[-1]
