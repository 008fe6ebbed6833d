"""The kernels share their work among torch's threads, whichever compiler built them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import gankernels as gk

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.backends("cpu"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

ROWS, CLASSES = 20_000, 256


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def times_on_cpu() -> dict[str, int]:
    """Nanoseconds that each thread of this process has run."""
    tasks = Path("/proc/self/task").iterdir()
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}


def shares(work: Callable[[], object]) -> list[float]:
    """How the time of some work was shared among threads, largest share first."""
    before = times_on_cpu()
    end = time.perf_counter() + 0.3  # the kernel keeps these times by ticks of some milliseconds
    while time.perf_counter() < end:
        work()
    spent = [time - before.get(thread, 0) for thread, time in times_on_cpu().items()]
    return sorted((s / sum(spent) for s in spent), reverse=True)


@pytest.mark.parametrize("shape", [(ROWS, CLASSES), (ROWS * CLASSES,)], ids=["rows", "elements"])
def test_two_threads_share_the_work(shape: tuple[int, ...]) -> None:
    logits = torch.zeros(shape)
    target = torch.full((CLASSES,), 1 / CLASSES)
    first, second, *_ = shares(
        lambda: gk.softmax_kl(logits, target) if logits.ndim == 2 else gk.hinge_g_loss(logits)
    )
    assert first + second > 0.9
    assert second > 0.2  # waiting for the other counts, too
