"""How much memory this process has, and had at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.torture.attack import Found


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@contextmanager
def watched(found: Found, what: str, most: float) -> Iterator[None]:
    """A finding if this process takes more than so many MiB meanwhile."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    yield
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    grown = int(line.split()[1]) / 1024 - before
    if grown > most:
        found.failures.append(f"{what}: {grown:.0f} MiB")
