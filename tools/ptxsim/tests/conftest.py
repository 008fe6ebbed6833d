"""One thread, seeded tests, and launches of sample kernels that count as nobody's."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

collect_ignore = ["samples"]  # no tests, and some cannot be imported without triton


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _not_counted() -> Iterator[None]:
    """The samples are not kernels of those who ask what a run has executed."""
    census = sys.modules.get("tools.ptxsim.census")
    before = dict(census.LAUNCHES) if census else {}
    yield
    census = sys.modules.get("tools.ptxsim.census")
    if census is not None:
        census.LAUNCHES.clear()
        census.LAUNCHES.update(before)
