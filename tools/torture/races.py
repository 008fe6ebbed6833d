"""Data races between the threads of an operator, by ThreadSanitizer.

python -m tools.torture.races SHARE     the calls alone, as the attack makes them in an instrumented process
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from gankernels import value_and_grad
from gankernels.testing import OPERATORS, Case, Operator
from tools.torture import sanitizers
from tools.torture.attack import Found, results

# Each with work for several threads: classes side by side, long rows, classes apart.
SHAPES = ((4000, 20), (40, 2050), (8, 20, 16, 16))
DTYPES = (torch.float32, torch.bfloat16)
THREADS = 4
OPTIONS = {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1 exitcode=66"}
REPORT = r"^SUMMARY: ThreadSanitizer: .*$"


def call(operator: Operator, case: Case, dtype: torch.dtype, reduction: str | None) -> None:
    arguments = operator.draw(case, dtype, reduction=reduction)
    results(operator, arguments)
    if operator.fused_operator:
        value_and_grad(operator.functional)(**arguments)


def calls(share: float) -> int:
    """Every operator on several threads; how many calls there were."""
    torch.set_num_threads(THREADS)
    done = 0
    for operator in OPERATORS:
        settings = operator.settings[: max(1, round(share * len(operator.settings)))]
        reductions = operator.reductions or (None,)
        for options, shape, dtype, reduction in itertools.product(
            settings, SHAPES, DTYPES, reductions
        ):
            call(operator, Case(shape, options=options), dtype, reduction)
            done += 1
    return done


def interposed(place: Path) -> Path:
    """The library that stands before libgomp."""
    library = place / "tsan_gomp.so"
    source = Path(__file__).with_name("tsan_gomp.c")
    subprocess.run(["gcc", "-O1", "-fPIC", "-shared", source, "-o", library], check=True)
    return library


def run(share: float) -> Found:
    place = sanitizers.built("thread")
    preloaded = f"{sanitizers.library('libtsan.so')} {interposed(place)}"
    # ThreadSanitizer wants memory where it expects it.
    command = ["setarch", "-R", sys.executable, "-m", "tools.torture.races", str(share)]
    environment = os.environ | OPTIONS | {"LD_PRELOAD": preloaded, "PYTHONPATH": str(place)}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    counted = re.search(r"^(\d+) calls of an extension in (.*)$", done.stdout, re.M)
    if counted is None or Path(counted[2]) != place / "gankernels":
        return Found(failures=[(done.stderr or done.stdout).strip()[-500:]])
    reports = list(dict.fromkeys(re.findall(REPORT, done.stderr, re.M)))
    if done.returncode and not reports:
        reports = [f"ended with {done.returncode}: {done.stderr.strip()[-500:]}"]
    return Found(int(counted[1]), reports)


if __name__ == "__main__":
    import gankernels

    made = calls(float(sys.argv[1]))
    print(f"{made} calls of an extension in {Path(gankernels._C.__file__).parent}")
