"""Signals that ask a run to stop, noted until the run has saved itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["RunInterruptedError", "stop_signals"]


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
    """A list that fills when SIGTERM or Ctrl-C arrives; a second one acts at once."""
    arrived: list[int] = []
    before: dict[int, Any] = {}

    def note(signum: int, _frame: object) -> None:
        arrived.append(signum)
        for s, handler in before.items():
            signal.signal(s, handler)

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
