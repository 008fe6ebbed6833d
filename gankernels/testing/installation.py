"""Whether an installation computes what it should, in seconds: a few calls of every operator on every device."""

from __future__ import annotations

import time
from typing import Any

import torch

from gankernels import _backend
from gankernels.testing.accuracy import compare
from gankernels.testing.operator import Operator
from gankernels.testing.table import OPERATORS

__all__ = ["check_installation"]

_DTYPES = (torch.float32, torch.bfloat16)


def check_installation() -> dict[str, dict[str, Any]]:
    """Compares a few calls of every operator with float64, on the CPU and on every GPU.

    Returns:
        For each device: ``backend`` (what serves it), ``operators``, ``calls``, ``seconds``, and
        ``failures``: one line for each call that was wrong or raised.

    Example:
        >>> from gankernels.testing import check_installation
        >>> check_installation()["cpu"]["failures"]
        []
    """
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return {device: _check_device(device) for device in ("cpu", *gpus)}


def _check_device(device: str) -> dict[str, Any]:
    start = time.perf_counter()
    calls, failures = 0, []
    for operator in OPERATORS:
        for case in operator.few_cases():
            for dtype in _DTYPES:
                calls += 1
                arguments = operator.draw(case, dtype, device)
                if error := _error(operator, arguments):
                    name = str(dtype).removeprefix("torch.")
                    failures.append(f"{operator.name} {case.label} {name}: {error}")
    return {
        "backend": _backend.build_info()["backends"][torch.device(device).type],
        "operators": len(OPERATORS),
        "calls": calls,
        "seconds": round(time.perf_counter() - start, 2),
        "failures": failures,
    }


def _error(operator: Operator, arguments: dict[str, Any]) -> str | None:
    try:
        compare(operator, arguments, operator.inputs(arguments))
    except Exception as error:  # whatever a broken installation does, the next call is tried too
        return (str(error) or type(error).__name__).splitlines()[0]
    return None
