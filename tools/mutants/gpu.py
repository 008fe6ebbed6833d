"""The mutants of the kernels for GPUs: tests of their own break Triton's source or nvcc's PTX, and emulate it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

TESTS = {
    "CUDA": "tests/gpu/test_cuda_mutants.py",
    "Triton": "tests/gpu/test_triton_mutants.py",
}

Row = dict[str, str]


def outcomes(tree: Path) -> list[Row]:
    """Of every mutant in a built tree: a test of one passes where the mutant is caught.

    Raises:
        RuntimeError: The tests did not run, or what they break is wrong without a mutant.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "tests.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={log}",
        ]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(
            [*command, *TESTS.values()], cwd=tree, env=environment, capture_output=True, text=True, check=False
        )  # fmt: skip
        if not log.exists():
            raise RuntimeError((done.stdout + done.stderr)[-3000:])
        cases = list(ET.parse(log).getroot().iter("testcase"))
    rows = [row for case in cases if (row := _row(case)) is not None]
    if not rows:
        raise RuntimeError((done.stdout + done.stderr)[-3000:])
    return rows


def _row(case: ET.Element) -> Row | None:
    """None for a test of the kernels as they are."""
    test, _, name = str(case.get("name")).partition("[")
    ended = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
    if test != "test_mutants":
        if ended:
            raise RuntimeError(f"{test}: {ended[0]} without any mutant")
        return None
    kernels = next(k for k, path in TESTS.items() if Path(path).stem in str(case.get("classname")))
    outcome = "caught" if not ended else "survived" if ended == ["failure"] else "error"
    return {"name": name.removesuffix("]"), "kernels": kernels, "outcome": outcome}
