"""Each backend that can serve this GPU keeps the contract; the one not preferred runs in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gankernels as gk

DEVICE = Path(__file__).parent
ROOT = DEVICE.parents[2]


@pytest.mark.skipif("GANKERNELS_INNER_RUN" in os.environ, reason="this is such a run")
def test_triton_where_cuda_kernels_are_preferred() -> None:
    if gk.build_info()["backends"]["cuda"] != "CUDA C++":
        pytest.skip("Triton serves these tests already")
    paths = [str(DEVICE / name) for name in ("test_accuracy.py", "test_execution.py")]
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "GANKERNELS_BACKEND": "triton", "GANKERNELS_INNER_RUN": "1"},
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
