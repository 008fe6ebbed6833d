"""Which backend serves GPUs, and why: every GANKERNELS_BACKEND, with and without a GPU build of torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.compiled, pytest.mark.processes]

REPORT = """
import json, sys, torch
PREPARE
import gankernels as gk
from gankernels import _backend
has = torch._C._dispatch_has_kernel_for_dispatch_key
from gankernels.triton import implemented
info = gk.build_info()
print(json.dumps({
    "backends": info["backends"],
    "reasons": info["reasons"],
    "kernels": [has("gankernels::" + name, "CUDA") for name in implemented() if _backend.EXTENSION],
    "devices": sorted(_backend.DEVICE_TYPES),
    "imported": "triton" in sys.modules,
}))
"""
# torch as a GPU build presents itself, and the extension as one with CUDA kernels does.
GPU_BUILD = 'torch.version.cuda = "13.0"'
NO_TRITON = (
    GPU_BUILD + "; sys.modules['triton'] = None; import importlib.util as u; find = u.find_spec; "
)
NO_TRITON += "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)"

OLD_TRITON = GPU_BUILD + "; import importlib.metadata as m; real = m.version; "
OLD_TRITON += "m.version = lambda name: '3.3.1' if name == 'triton' else real(name)"


def run(prepare: str, backend: str = "auto") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GANKERNELS_BACKEND": backend}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REPORT.replace("PREPARE", prepare)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def report(prepare: str, backend: str = "auto") -> dict:  # type: ignore[type-arg]
    result = run(prepare, backend)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def stub(kernels: bool) -> str:
    """The extension says that it has CUDA kernels, or none, whatever it was built with."""
    return f"""
import importlib.abc, importlib.machinery
class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "gankernels._C":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.cuda_compiled = lambda: {kernels}
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Patch())
"""


def test_auto_takes_triton_where_the_extension_has_no_cuda_kernels() -> None:
    found = report(GPU_BUILD + stub(kernels=False))
    assert found["backends"] == {"cpu": "C++ extension", "cuda": "Triton"}
    assert found["reasons"]["cuda"] == "the C++ extension was built without CUDA kernels"
    assert all(found["kernels"])
    assert found["devices"] == ["cpu", "cuda"]
    assert not found["imported"]  # Triton itself waits for the first call


def test_auto_takes_the_cuda_kernels_of_the_extension_first() -> None:
    found = report(GPU_BUILD + stub(kernels=True))
    assert found["backends"]["cuda"] == "CUDA C++"
    assert found["devices"] == ["cpu", "cuda"]


def test_triton_can_be_chosen_over_them() -> None:
    found = report(GPU_BUILD + stub(kernels=True), "triton")
    assert found["backends"]["cuda"] == "Triton"
    assert found["reasons"]["cuda"] == "GANKERNELS_BACKEND=triton"
    assert all(found["kernels"])


def test_without_either_the_reference_serves_gpus() -> None:
    found = report(NO_TRITON + stub(kernels=False))
    assert found["backends"] == {"cpu": "C++ extension", "cuda": "reference"}
    assert "Triton is not installed" in found["reasons"]["cuda"]
    assert found["devices"] == ["cpu"]


def test_a_triton_that_is_too_old_serves_nothing() -> None:
    found = report(OLD_TRITON + stub(kernels=False))
    assert found["backends"] == {"cpu": "C++ extension", "cuda": "reference"}
    assert "Triton 3.3.1 is older than 3.4" in found["reasons"]["cuda"]


def test_a_cpu_build_of_torch_says_so() -> None:
    found = report("torch.version.cuda = torch.version.hip = None" + stub(kernels=False))
    assert found["backends"]["cuda"] == "reference"
    assert "is built without GPU support" in found["reasons"]["cuda"]


def test_the_reference_serves_everything_where_it_is_chosen() -> None:
    found = report(GPU_BUILD, "reference")
    assert found["backends"] == {"cpu": "reference", "cuda": "reference"}
    assert set(found["reasons"].values()) == {"GANKERNELS_BACKEND=reference"}
    assert found["devices"] == []


@pytest.mark.parametrize(
    ("backend", "prepare", "message"),
    [
        (
            "cuda",
            GPU_BUILD + stub(kernels=False),
            "GANKERNELS_BACKEND=cuda, but the C++ extension was built without CUDA kernels: build it "
            "with FORCE_CUDA=1",
        ),
        ("triton", NO_TRITON + stub(kernels=False), "but Triton is not installed (pip install"),
        ("triton", OLD_TRITON + stub(kernels=False), "but Triton 3.3.1 is older than 3.4"),
    ],
    ids=["cuda", "triton", "old triton"],
)
def test_what_is_asked_for_and_not_there_is_an_error(
    backend: str, prepare: str, message: str
) -> None:
    result = run(prepare, backend)
    assert result.returncode != 0
    assert "RuntimeError: GANKERNELS_BACKEND=" in result.stderr
    assert message in result.stderr
