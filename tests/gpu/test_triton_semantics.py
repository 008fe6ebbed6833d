"""The Triton kernels' semantics, through autograd and the public functions, by Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs Triton, whose interpreter the tests run")

from gankernels.testing import DTYPES, OPERATORS

PROGRAM = Path(__file__).with_name("triton_interpreted.py")
CONTRACT = Path(__file__).parent.parent / "contract"
LAUNCHING = [o.name for o in OPERATORS if o.helpers]

pytestmark = pytest.mark.compiled


def interpreted(command: list[str], **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1", **environment},
        cwd=CONTRACT.parent.parent,
    )
    if result.returncode:
        raise AssertionError(result.stdout[-4000:] + result.stderr[-4000:])
    return result.stdout


@pytest.mark.parametrize("name", LAUNCHING)
def test_every_case_of_the_operator_table(name: str) -> None:
    output = interpreted([str(PROGRAM), name])
    match = re.search(r"(\d+) comparisons, (\d+) launches", output)
    assert match is not None
    comparisons, launches = map(int, match.groups())
    row = next(row for row in OPERATORS if row.name == name)
    # Every case once, and the first in every dtype with every reduction.
    others = sum(1 for _ in row.cases()) - 1
    assert comparisons >= others + len(DTYPES) * max(1, len(row.reductions))
    assert launches >= comparisons  # the kernels themselves, not C++ or the reference


def test_extremes() -> None:
    """-inf, NaN, logits of 1e4, zero bins: the contract's hand-computed numbers."""
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    plugin = ["-p", "gpu.triton_on_cpu"]
    path = os.pathsep.join([str(CONTRACT.parent), os.environ.get("PYTHONPATH", "")])
    output = interpreted(
        [*arguments, *plugin, str(CONTRACT / "test_extremes.py"), "-k", "not resampled"],
        GANKERNELS_INNER_RUN="1",
        PYTHONPATH=path,
    )
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) > 50
