"""What ends a run from outside: signals, noted until it has saved itself, and the loss of other processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LostProcessError", "RunInterruptedError", "stop_signals"]


class LostProcessError(RuntimeError):
    """Another process of the run is gone, or cannot be reached; the last checkpoint stands.

    Args:
        rank: This process.
        why: What the connection says.
    """

    def __init__(self, rank: int, why: str) -> None:
        super().__init__(
            f"process {rank} lost the connection to another process of the run ({why})"
        )
        self.rank = rank


class RunInterruptedError(Exception):
    """A signal asked the run to stop; it was saved first.

    Args:
        step: Steps done.
        signum: The signal.
    """

    def __init__(self, step: int, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.step = step
        self.signum = signum


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that fills when SIGTERM or Ctrl-C arrives. A second Ctrl-C acts at once; further SIGTERMs do not,
    since a launcher and a scheduler often send one each: whoever will not wait has SIGKILL.
    """
    arrived: list[int] = []
    before: dict[int, Any] = {}

    def note(signum: int, _frame: object) -> None:
        arrived.append(signum)
        if signum == signal.SIGINT:
            signal.signal(signum, before[signum])

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals are the caller's business
        before.clear()
    try:
        yield arrived
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
