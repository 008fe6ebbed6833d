"""A million calls: memory stays where it is, and the last result has the bits of the first."""

from __future__ import annotations

import torch

from gankernels.testing import OPERATORS, Case
from tools.torture.attack import Found, results
from tools.torture.memory import resident

CALLS = 1_000_000
MOST_MIB = 8.0


def run(share: float) -> Found:
    found = Found()
    each = max(20, round(share * CALLS / len(OPERATORS)))
    most = 0.0
    for operator in OPERATORS:
        arguments = operator.draw(Case((16, 20), options=operator.settings[0]), torch.float32)
        first = results(operator, arguments)
        for _ in range(each // 10):
            results(operator, arguments)
        before = resident()
        for _ in range(each - each // 10):
            last = results(operator, arguments)
        grown = resident() - before
        most = max(most, grown)
        found.cases += each
        if grown > MOST_MIB:
            found.failures.append(f"{operator.name}: {grown:.1f} MiB more after {each} calls")
        if not all(torch.equal(a, b) for a, b in zip(first, last, strict=True)):
            found.failures.append(f"{operator.name}: the last result is not the first")
    found.note = f"at most {most:.1f} MiB more in an operator's calls"
    return found
