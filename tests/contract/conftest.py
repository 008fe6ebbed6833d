"""Every test of the contract on every backend that this machine has, and on none of them in vain."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict

import backends
import pytest
import torch

# GANKERNELS_TEST_BACKENDS=cpu, or several with commas between them: no others.
# What a factor or a temperature changes of a kernel: its numbers.
OF_NUMBERS = ("test_values.py", "test_value_and_grad.py", "test_extremes.py")
WANTED = os.environ.get("GANKERNELS_TEST_BACKENDS", ",".join(backends.BACKENDS)).split(",")
AVAILABLE = tuple(name for name in backends.available() if name in WANTED)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = next(metafunc.definition.iter_markers("backends"), None)
    names = [n for n in AVAILABLE if chosen is None or n in chosen.args]
    emulated = pytest.mark.emulated
    marked = [pytest.param(n, marks=emulated if n in ("triton", "cuda") else ()) for n in names]
    if chosen is not None and not names:
        reason = f"of {', '.join(chosen.args)}, and this run has {', '.join(AVAILABLE)}"
        marked = [pytest.param("cpu", marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("backend", marked, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_turn([item for item in items if asks_something(item)])


def backend_of(item: pytest.Item) -> str:
    return str(item.callspec.params.get("backend", "cpu")) if hasattr(item, "callspec") else "cpu"


def asks_something(item: pytest.Item) -> bool:
    """Whether a test looks at the backend that it is for."""
    backend = backend_of(item)
    if backend == "cpu":
        return True
    parameters = item.callspec.params  # type: ignore[attr-defined]
    if parameters.get("device", "cpu") != "cpu":
        return False
    if backend == "reference":
        return item.get_closest_marker("compiled") is None
    operator, case = parameters.get("operator"), parameters.get("case")
    if operator is None or not backends.serves(operator):
        return operator is None
    # Emulation takes its time: the rest of the contract on the settings that change more than numbers.
    return case is None or case.options not in operator.further or item.path.name in OF_NUMBERS


def in_turn(items: list[pytest.Item]) -> list[pytest.Item]:
    """On a backend that takes its time a case has float32 and one other dtype, another at every case."""
    dtypes: dict[object, list[object]] = defaultdict(list)
    for item in items:
        if (case := slow_case(item)) is not None:
            dtypes[case].append(dtype_of(item))
    chosen = {
        case: found[zlib.crc32(repr(case).encode()) % len(found)] for case, found in dtypes.items()
    }
    return [
        item
        for item in items
        if (case := slow_case(item)) is None
        or dtype_of(item) in (torch.float32, chosen[case])
        or is_first(item)
    ]


def dtype_of(item: pytest.Item) -> object:
    return item.callspec.params["dtype"]  # type: ignore[attr-defined]


def is_first(item: pytest.Item) -> bool:
    """A row's first case has every dtype."""
    parameters = item.callspec.params  # type: ignore[attr-defined]
    return bool(parameters["case"] == next(parameters["operator"].cases()))


def slow_case(item: pytest.Item) -> object:
    """What distinguishes a test of a slow backend from others, but for its dtype; None for the rest."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if not backends.BACKENDS[backend_of(item)].in_turn or not {"case", "dtype"} <= set(parameters):
        return None
    labels = (
        getattr(x, "label", getattr(x, "name", str(x)))
        for n, x in parameters.items()
        if n != "dtype"
    )
    return (item.nodeid.split("[")[0], *labels)
