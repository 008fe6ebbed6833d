"""Wrong calls, again and again: the same error every time, nothing written, nothing kept."""

from __future__ import annotations

from typing import Any

import torch
from bad_calls import BAD_CALLS, BadCall
from torch import Tensor

from gankernels import functional, reference, value_and_grad
from gankernels.testing import OPERATORS
from tools.torture.attack import Found
from tools.torture.memory import resident

REPETITIONS = 100_000
MOST_MIB = 16.0
FUSED = {operator.name for operator in OPERATORS if operator.fused_operator}


def forms(bad: BadCall) -> list[Any]:
    """The function, its reference, and its value with gradients, as far as there are these."""
    found = [getattr(reference, bad.function)]
    if hasattr(functional, bad.function):
        found.append(getattr(functional, bad.function))
    if bad.function in FUSED:
        found.append(value_and_grad(getattr(functional, bad.function)))
    return found


def refuse(form: Any, bad: BadCall) -> None:
    args, kwargs = bad.arguments()
    tensors = [
        x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.device.type == "cpu"
    ]
    before = [(x.clone(), x._version) for x in tensors if x.layout == torch.strided]
    try:
        form(*args, **kwargs)
    except bad.error as error:
        if str(error) != bad.message:
            raise AssertionError(f"expected {bad.message!r}, got {str(error)!r}") from error
    else:
        raise AssertionError("it was not refused")
    strided = [x for x in tensors if x.layout == torch.strided]
    for x, (copy, version) in zip(strided, before, strict=True):
        if x._version != version or not torch.equal(x, copy):
            raise AssertionError("an argument was written to")


def run(share: float) -> Found:
    found = Found()
    calls = [(form, bad) for bad in BAD_CALLS for form in forms(bad)]
    turns = max(2, round(share * REPETITIONS / len(calls)))
    start = 0.0
    for turn in range(turns):
        if turn == turns // 2:
            start = resident()
        for form, bad in calls:
            found.attempt(bad.label, lambda form=form, bad=bad: refuse(form, bad))
        if found.failures:
            return found
    grown = resident() - start
    if grown > MOST_MIB:
        found.failures.append(f"{grown:.1f} MiB more after the second half of the calls")
    found.note = (
        f"{len(BAD_CALLS)} wrong calls in every form; {grown:.1f} MiB more in the second half"
    )
    return found
