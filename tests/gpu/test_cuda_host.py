"""The CUDA kernels as host C++: what the sanitizers say. The contract runs on them in tests/contract."""

from __future__ import annotations

import os
import subprocess

import pytest

pytest.importorskip("triton", minversion="3.4", reason="the emulation needs triton")

from gpu.cuda import build
from tools.ptxsim import toolchain

pytestmark = [
    pytest.mark.builds,
    pytest.mark.skipif(
        toolchain.NVCC is None,
        reason="nvcc is not on PATH: its headers hold the types of the kernels",
    ),
]

# Of the first compiling takes longest, of the second running.
SANITIZERS = {
    "address": ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-fsanitize=thread", "-DHOST_SHIM_THREADS"),
}


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
