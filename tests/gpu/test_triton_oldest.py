"""The oldest Triton that serves compiles every kernel: the one that is installed is most often the newest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", minversion="3.4", reason="needs Triton, whose compiler the tests run")

from gankernels.triton import OLDEST, release
from tools.matrix import TRITONS
from tools.ptxsim.toolchain import CACHE, made_once

pytestmark = [pytest.mark.emulated, pytest.mark.builds]

ROOT = Path(__file__).parents[2]
VERSION = TRITONS[0]


@pytest.fixture(scope="module")
def oldest() -> Path:
    """A folder with that Triton, installed once, whoever asks."""

    def install(folder: Path) -> None:
        wanted = ["--no-deps", "--target", str(folder), f"triton=={VERSION}"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", *wanted]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"pip finds no Triton {VERSION} for this Python and machine")

    return made_once(CACHE / f"triton-{VERSION}", install)


def test_it_is_the_oldest_that_serves() -> None:
    assert release(VERSION) == OLDEST


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_it_compiles_every_kernel(dtype: str, oldest: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, (oldest, ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-m", "gpu.triton_compiled", dtype],
        env=os.environ | {"PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Triton {VERSION}: 4 + "), done.stdout
