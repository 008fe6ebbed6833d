"""What runs of tests/gpu share: which files are tests, who needs a device, what was executed from real PTX."""

from __future__ import annotations

import collections
import os
import pathlib
import sys
from typing import Any

import pytest
import torch

CENSUS = "gpu_census"
Counted = tuple[str, int, tuple[str, ...], str, int]  # census.Execution and its launches
executed: list[Counted] = []


@pytest.fixture(autouse=True)
def _nothing_is_replayed_from_an_earlier_test() -> None:
    """Tests change kernels, and how they are run."""
    replays = sys.modules.get("gankernels.triton.replays")
    if replays is not None:
        replays.forget()


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels whose arguments Triton bound: those of launches that were no replays."""
    from triton.runtime.jit import JITFunction

    names: list[str] = []
    run = JITFunction.run

    def counted(kernel: JITFunction, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("warmup"):  # compiled, not launched
            names.append(kernel.__name__)
        return run(kernel, *args, **kwargs)

    monkeypatch.setattr(JITFunction, "run", counted)
    return names


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
    """Only test modules: helpers have no doctests, and some need triton to be imported at all."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in device/ need a GPU; ``make gpu-test`` insists on one. What compiles there starts interpreters."""
    here = pathlib.Path(__file__).parent / "device"
    waiting = [item for item in items if here in item.path.parents]
    for item in waiting:
        item.add_marker(pytest.mark.processes)
    if not waiting or torch.cuda.is_available():
        return
    if os.environ.get("GANKERNELS_REQUIRE_GPU") == "1":
        raise pytest.UsageError(f"no CUDA device: torch {torch.__version__} sees none")
    for item in waiting:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def launches() -> list[Counted]:
    """This process's launches; none where nothing imported the emulator."""
    census = sys.modules.get("tools.ptxsim.census")
    return [] if census is None else [(*key, n) for key, n in census.LAUNCHES.items()]


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # xdist's way from worker to controller
    if output is None:
        executed.extend(launches())
    else:
        output[CENSUS] = launches()


class Controller:
    """Gathers the workers' counts."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        executed.extend(getattr(node, "workeroutput", {}).get(CENSUS, []))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Controller(), "gpu-census")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not executed:
        return
    from tools.ptxsim import census

    total: collections.Counter[census.Execution] = collections.Counter()
    for kernel, arch, types, variant, n in executed:
        total[census.Execution(kernel, arch, tuple(types), variant)] += n
    terminalreporter.write_sep("-", "GPU kernels, on the CPU")
    terminalreporter.write_line(census.summary(total))
