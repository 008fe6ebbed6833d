"""One thread per worker, seeded tests, and what the whole suite must know about the backend."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import zlib
from typing import Any

import backends
import marks
import pytest
import torch
from hypothesis import HealthCheck, settings

from gankernels import _backend
from gankernels.testing import OPERATORS

# The same examples on every run, however busy the machine is: a failure is a change in the code.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def pytest_configure(config: pytest.Config) -> None:
    if unknown := marks.undeclared(config, config.option.markexpr):
        raise pytest.UsageError(f"-m names a mark that pyproject.toml does not: {min(unknown)}")
    # Two workers on two cores: more threads would only wait for each other.
    torch.set_num_threads(1)
    # The process that xdist's workers report to collects nothing, so it would not load gpu/conftest.py.
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        gpu = importlib.import_module("gpu.conftest")
        if not config.pluginmanager.is_registered(gpu):
            config.pluginmanager.register(gpu, "gpu-conftest")


def pytest_collection() -> None:
    gc.disable()  # tests that are collected stay


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--operator", help="only the tests of one row of the operator table")
    parser.addoption("--shard", default="0/1", help="i/n: every n-th test, from the i-th on")


# `make check` leaves these to `make test`; Inductor compiles in interpreters of its own.
STARTS_INTERPRETERS = ("processes", "builds", "emulated", "dynamo")
running: list[pytest.Item] = []


def a_test_that_starts_an_interpreter_says_so(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "subprocess.Popen" or not running:
        return
    program = arguments[0] or arguments[1][0]
    if os.path.realpath(program) != os.path.realpath(sys.executable):
        return
    if not any(running[0].get_closest_marker(name) for name in STARTS_INTERPRETERS):
        raise RuntimeError(f"{running[0].nodeid} starts an interpreter: mark it as `processes`")


sys.addaudithook(a_test_that_starts_an_interpreter_says_so)


def pytest_runtest_setup(item: pytest.Item) -> None:
    running[:] = [item]


def pytest_runtest_teardown() -> None:
    running.clear()


def pytest_report_header() -> str:
    if _backend.EXTENSION is None:
        return f"gankernels: PyTorch reference ({_backend.REASON})"
    return f"gankernels: C++ extension ({_backend.EXTENSION.cpu_capability()})"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (name := config.getoption("--operator")) is not None:
        items[:] = of_operator(name, items)
    first, step = map(int, config.getoption("--shard").split("/"))
    items[:] = items[first::step]
    if _backend.EXTENSION is not None:
        return
    skip = pytest.mark.skip(reason=f"needs the compiled operators: {_backend.REASON}")
    for item in items:
        if item.get_closest_marker("compiled"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Every full collection of garbage would go through the fifty thousand tests."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """At exit nothing is kept from being collected, or libraries report it as lost."""
    gc.unfreeze()


def of_operator(name: str, items: list[pytest.Item]) -> list[pytest.Item]:
    names = [operator.name for operator in OPERATORS]
    if name not in names:
        raise pytest.UsageError(f"--operator must be one of {names}, got {name!r}")
    parameters = ((item, getattr(item, "callspec", None)) for item in items)
    return [i for i, c in parameters if c and getattr(c.params.get("operator"), "name", "") == name]


@pytest.fixture(autouse=True)
def _seed() -> None:
    """As torch.manual_seed, which keeps a stack trace at every call for each kind of device that is not there."""
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest) -> str:
    """Who serves the operators of CPU tensors in this test: a name of backends.BACKENDS."""
    name = str(getattr(request, "param", "cpu"))
    backends.serve(name, zlib.crc32(request.node.nodeid.encode()))
    return name


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every device of this machine that the operators run on."""
    return str(request.param)
