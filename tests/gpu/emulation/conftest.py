"""The self-tests run sample kernels: they do not count as kernels of the package."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _not_counted() -> Iterator[None]:
    census = sys.modules.get("gpu.emulation.census")
    before = dict(census.LAUNCHES) if census else {}
    yield
    census = sys.modules.get("gpu.emulation.census")
    if census is not None:
        census.LAUNCHES.clear()
        census.LAUNCHES.update(before)
