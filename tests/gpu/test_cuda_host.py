"""The CUDA kernels as host C++: the contract of the operators, and what the sanitizers say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the emulation needs triton")

from gpu.cuda import build
from gpu.emulation import toolchain

pytestmark = pytest.mark.skipif(
    toolchain.NVCC is None, reason="nvcc is not on PATH: its headers hold the types of the kernels"
)

TESTS = Path(__file__).parents[1]
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread", "-DHOST_SHIM_THREADS"),
}


@pytest.mark.compiled
@pytest.mark.parametrize("file", ["test_values.py", "test_extremes.py", "test_layouts.py"])
def test_the_contract(file: str) -> None:
    """Bindings, launchers and kernels on CPU tensors pass the tests of the CPU's own kernels."""
    library = build.host_operators()
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "gpu.cuda.redirected"]
    if file == "test_values.py":
        options += ["-k", "not bfloat16"]  # the conversions of float16, of other widths
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(TESTS / "contract" / file)],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env={**os.environ, "GANKERNELS_CUDA_ON_CPU": str(library), "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    launches = re.search(r"(\d+) operators of the CUDA kernels", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100
    # Nothing passes for want of a redirected operator.
    assert launches is not None
    assert int(launches[1]) > int(passed[1])


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers(sanitizer: str) -> None:
    program = build.sanitized_program(sanitizer, *SANITIZERS[sanitizer])
    # Fibers switch stacks behind the sanitizer's back; the threads of a warp are many.
    environment = {"ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0"}
    done = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "0 failures" in done.stdout
