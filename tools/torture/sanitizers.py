"""The operators' tests on an extension that checks every access, shift and conversion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.torture.attack import Found

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "torture"
COPIED = (
    *("csrc", "gankernels", "tests", "tools"),
    *("setup.py", "pyproject.toml", "conftest.py", "README.md", "LICENSE"),
)
FLAGS = {
    "address,undefined": "-fsanitize=address,undefined -fno-sanitize-recover=undefined "
    "-fno-omit-frame-pointer",
    "thread": "-fsanitize=thread",
}
TESTED = "address,undefined"
REPORT = r"^.*(?:ERROR: |runtime error: |SUMMARY: |FAILED ).*$"
# Torch frees nothing at exit, and its own libraries are not instrumented.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}
TESTS = (
    "tests/contract",
    "tests/operators/test_python_binding.py",
    "tests/operators/test_gradient_layers.py",
)
SLOW = "not (emulated or builds or inductor or processes)"
SHARDS = 12


def library(name: str) -> str:
    done = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def built(sanitizers: str) -> Path:
    """A copy of the sources with an extension of its own."""
    place = PLACE / sanitizers.replace(",", "-")
    for name in COPIED:
        source, to = ROOT / name, place / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__", "_build.json")
            shutil.copytree(source, to, dirs_exist_ok=True, ignore=ignored)
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to)
    environment = os.environ | {
        "CFLAGS": FLAGS[sanitizers],
        "LDFLAGS": f"-fsanitize={sanitizers}",
        "GANKERNELS_REQUIRE_EXT": "1",
        "FORCE_CPU": "1",
        "DEBUG": "1",  # no optimisation, and assertions
    }
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    return place


def tested(place: Path, shard: str) -> subprocess.CompletedProcess[str]:
    environment = (
        os.environ
        | OPTIONS
        | {
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            "PYTHONPATH": str(place),
            "GANKERNELS_TEST_BACKENDS": "cpu",
        }
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *TESTS]
    command += ["-m", SLOW, "--shard", shard]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def run(share: float) -> Found:
    found = Found()
    place = built(TESTED)
    for shard in range(max(1, round(share * SHARDS))):
        done = tested(place, f"{shard}/{SHARDS}")
        passed = re.search(r"(\d+) passed", done.stdout)
        found.cases += int(passed[1]) if passed else 0
        if done.returncode != 0:
            output = done.stdout + done.stderr
            reports = re.findall(REPORT, output, re.M)
            found.failures += reports[:5] or [output[-500:]]
    return found
