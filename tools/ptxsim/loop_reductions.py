"""Reductions that a loop carries from one turn to the next, found in Triton's intermediate representation."""

from __future__ import annotations

import re
from typing import NamedTuple

_DEFINITION = re.compile(r"^\s*(%[\w$.-]+)(?::\d+)?(?:, %[\w$.:-]+)* = \"?([\w.]+)\"?(.*)")
_NAME = re.compile(r"%[\w$.-]+")
_REGION = re.compile(r"([\w.]+)[\" (].*\{\s*(?:loc\(.*\))?$")


class _Value(NamedTuple):
    operation: str
    operands: tuple[str, ...]
    depth: int


def carried_reductions(ir: str) -> list[str]:
    """The ``tt.reduce`` results that arithmetic alone leads from to what an ``scf.for`` yields.

    A selection ends the trail: Triton's passes follow sums and maxima, not choices. So does the result of an
    inner loop, which is looked at on its own.

    Args:
        ir: Text of a module, ``compiled.asm["ttir"]``.
    """
    values: dict[str, _Value] = {}
    regions: list[str] = []
    found: list[str] = []
    for line in ir.splitlines():
        text = line.strip()
        if text.startswith("}"):
            regions.pop()
        if text.startswith("scf.yield") and regions[-1] == "scf.for":
            for name in _NAME.findall(text.split(":")[0]):
                found += _reductions(name, values, len(regions))
        definition = _DEFINITION.match(line)
        if definition:
            name, operation, rest = definition.groups()
            operands = tuple(_NAME.findall(rest.split(" : ")[0]))
            values[name] = _Value(operation, operands, len(regions))
        if text.endswith("{") or re.search(r"\{ loc\(.*\)$", text):
            operation = definition[2] if definition else text.split("(")[0].split(" ")[0]
            regions.append(operation.strip('"'))
    return found


def _reductions(name: str, values: dict[str, _Value], depth: int) -> list[str]:
    """The reductions of this region that ``name`` is computed from by arithmetic."""
    value = values.get(name)
    if value is None or value.depth < depth:  # from before the loop, or carried into this turn
        return []
    if value.operation == "tt.reduce":
        return [name]
    if value.operation in ("arith.select", "scf.for", "scf.if", "tt.load"):
        return []
    return [r for operand in value.operands for r in _reductions(operand, values, depth)]
