"""The same contract on every backend of this machine: each instruction set, and without kernels.

What runs is chosen at import, so each backend is a fresh interpreter that runs contract tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gankernels import build_info

CONTRACT = Path(__file__).parent
CAPABILITIES = ("avx512", "avx2", "portable")

# The numbers of every case and at every extreme.
NUMERIC = ["test_values.py", "test_extremes.py"]
# All but what looks at kernels, and what reads strides that the reference leaves to PyTorch.
FALLBACK = [
    *NUMERIC,
    "test_ownership.py",
    "test_derivatives.py",
    "test_transforms.py",
    "test_modes.py",
    "test_value_and_grad.py",
    "test_properties.py",
    "test_bad_calls.py",
]

pytestmark = pytest.mark.skipif(
    "GANKERNELS_INNER_RUN" in os.environ, reason="this is one of the runs that these tests start"
)


def run_contract(files: list[str], *options: str, **environment: str) -> tuple[str, int, int]:
    """The output, and how many tests passed and were skipped; raises if any failed."""
    paths = [str(CONTRACT / name) for name in files]
    arguments = ["-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", *options, *paths]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        capture_output=True,
        text=True,
        cwd=CONTRACT.parent.parent,
        env={**os.environ, "GANKERNELS_INNER_RUN": "1", **environment},
        check=False,
    )
    if result.returncode:
        raise AssertionError(result.stdout[-8000:] + result.stderr[-2000:])
    counts = dict(
        (word, int(n)) for n, word in re.findall(r"(\d+) (passed|skipped)", result.stdout)
    )
    return result.stdout, counts["passed"], counts.get("skipped", 0)


@pytest.mark.compiled
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_instruction_set(capability: str, record_property: pytest.FixtureRequest) -> None:
    environment = {"GANKERNELS_CPU_CAPABILITY": capability}
    probe = "import gankernels; print(gankernels.build_info()['cpu_capability'])"
    chosen = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout.strip()
    best = CAPABILITIES.index(str(build_info()["cpu_capability"]))
    if CAPABILITIES.index(capability) < best:
        pytest.skip(f"this CPU has no {capability}")
    assert chosen == capability
    if capability == build_info()["cpu_capability"]:
        return  # the tests around this one run on it
    _, passed, _ = run_contract(NUMERIC, **environment)
    assert passed > 300


def test_the_reference_alone_keeps_the_contract() -> None:
    output, passed, skipped = run_contract(FALLBACK, GANKERNELS_BACKEND="reference")
    assert passed > 300
    # What is skipped needs kernels by its nature, and says so.
    reasons = re.findall(r"^SKIPPED \[(\d+)\] \S+:\d+: (.*)$", output, re.MULTILINE)
    assert sum(int(n) for n, _ in reasons) == skipped
    assert all(reason.startswith("needs the compiled operators") for _, reason in reasons)
