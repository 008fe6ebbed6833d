"""The operators from several threads and processes at once: the same bits as one after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from contract.common import assert_same
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gankernels.testing import OPERATORS, Arguments, Case, Operator
from tools.torture.attack import Found, results

THREADS, TURNS = 8, 400
SECONDS = 120  # for what must not hang


def calls(shape: tuple[int, int] = (64, 20)) -> list[tuple[Operator, Arguments]]:
    """One of every operator, on tensors that all threads read."""
    return [
        (operator, operator.draw(Case(shape, options=operator.settings[-1]), torch.float32))
        for operator in OPERATORS
    ]


def of_threads(found: Found, share: float) -> None:
    """Each thread goes through all operators, each from another one on, on shared inputs."""
    given = calls()
    expected = [results(*call) for call in given]

    def work(thread: int) -> None:
        for turn in range(max(1, round(share * TURNS))):
            for i in range(len(given)):
                at = (i + thread * 7) % len(given)
                assert_same(results(*given[at]), expected[at])
            if thread == 0:
                torch.set_num_threads(1 + turn % 2)  # while the others compute

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for thread, future in enumerate([pool.submit(work, n) for n in range(THREADS)]):
                found.attempt(f"thread {thread}", future.result)
    finally:
        torch.set_num_threads(before)


class Losses(Dataset[Tensor]):
    """Items that a worker computes by forward and backward of an operator."""

    def __len__(self) -> int:
        return len(OPERATORS)

    def __getitem__(self, index: int) -> Tensor:
        return torch.cat([x.flatten() for x in results(*calls((6, 5))[index])])


def of_workers(found: Found) -> None:
    expected = [Losses()[i] for i in range(len(OPERATORS))]
    for context in ("fork", "spawn"):
        loader = DataLoader(
            Losses(),
            batch_size=None,
            num_workers=2,
            multiprocessing_context=context,
            timeout=SECONDS,
        )

        def check(loader: Any = loader) -> None:
            for got, wanted in zip(loader, expected, strict=True):
                assert_same([got], [wanted])

        found.attempt(f"DataLoader workers, {context}", check)


def _child(queue: Any) -> None:
    signal.alarm(SECONDS)
    queue.put([[x.numpy() for x in results(*call)] for call in calls()])


def of_fork(found: Found) -> None:
    """A child forked after the parent's threads have computed."""
    torch.set_num_threads(2)
    expected = [results(*call) for call in calls((900, 20))] and [
        results(*call) for call in calls()
    ]

    def check() -> None:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_child, args=(queue,))
        child.start()
        for got, wanted in zip(queue.get(timeout=SECONDS), expected, strict=True):
            assert_same([torch.from_numpy(x) for x in got], wanted)
        child.join(SECONDS)
        if child.exitcode != 0:
            raise AssertionError(f"the child ended with {child.exitcode}")

    found.attempt("a forked child", check)


SUBINTERPRETER = """
import importlib.util
new = importlib.util.find_spec("_interpreters") is not None
interpreters = __import__("_interpreters" if new else "_xxsubinterpreters")
here = interpreters.create()
try:
    found = interpreters.run_string(here, "import gankernels")
except Exception as error:  # Python 3.12 and before raise what 3.13 returns
    found = error
assert "main interpreter of a process alone" in str(found), found
import gankernels, torch
assert gankernels.logistic_d_loss(torch.zeros(3), torch.zeros(3)).isfinite()
"""


def of_subinterpreters(found: Found) -> None:
    """PyTorch waits for ever in one, or ends the process: refused before it is imported."""

    def check() -> None:
        done = subprocess.run(
            [sys.executable, "-c", SUBINTERPRETER], capture_output=True, text=True, timeout=SECONDS, check=False
        )  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"ended with {done.returncode}: {done.stderr}")

    found.attempt("a subinterpreter", check)


def run(share: float) -> Found:
    found = Found(note=f"{THREADS} threads on {os.cpu_count()} cores")
    of_threads(found, share)
    of_workers(found)
    of_fork(found)
    of_subinterpreters(found)
    found.cases += THREADS * max(1, round(share * TURNS)) * len(OPERATORS)
    return found
