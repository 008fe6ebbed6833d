"""Building with CUDA: what setup.py refuses, and the record of the build that was made."""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import cuda_build

pytestmark = pytest.mark.builds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in cuda_build.SOURCES:
        source = ROOT / name
        if source.is_dir():
            built = shutil.ignore_patterns("*.so", "_build.json", "__pycache__")
            shutil.copytree(source, tmp_path / name, ignore=built)
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


def refusal(checkout: Path, **flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        capture_output=True,
        text=True,
        cwd=checkout,
        env={**os.environ, **flags},
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is a CUDA build")
def test_cuda_needs_a_cuda_torch(checkout: Path) -> None:
    expected = f"FORCE_CUDA=1, but torch {torch.__version__} is not a CUDA build of torch"
    assert expected in refusal(checkout, FORCE_CUDA="1")


def test_flags_that_exclude_each_other(checkout: Path) -> None:
    message = refusal(checkout, FORCE_CUDA="1", FORCE_CPU="1")
    assert "FORCE_CPU=1 and FORCE_CUDA=1 exclude each other" in message


def test_the_recorded_build_has_every_operator() -> None:
    found = json.loads(cuda_build.RECORD.read_text())
    cuda_build.check(found)
    assert found["architectures"] == "8.0;9.0;10.0+PTX"
    for arch in ("sm_80", "sm_90", "sm_100"):
        assert arch in found["device_code"]["machine_code"]
    assert cuda_build.PAGE.read_text() == cuda_build.page(found)


def test_no_two_sources_compile_to_one_object() -> None:
    """torch's build names objects by stem: x.cpp and x.cu in one folder would overwrite each other."""
    sources = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cpp", ".cu")]
    objects = collections.Counter(p.with_suffix(".o") for p in sources)
    assert [str(o) for o, n in objects.items() if n > 1] == []


def test_every_operator_of_a_backend_has_a_cuda_kernel() -> None:
    """What is implemented under the CPU's key, csrc/cuda implements too: the same list of operators."""
    for backend, key in (("cpu", "CPU"), ("cuda", "GK_CUDA_KEY")):
        source = (ROOT / "csrc" / backend / "backend.cpp").read_text()
        name = backend.capitalize()
        assert f"TORCH_LIBRARY_IMPL(gankernels, {key}, m) {{ implement<{name}>(m); }}" in source
