"""Where results go and what stands beside them: machine, versions, commit, date, command."""

from __future__ import annotations

import csv
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

import gankernels as gk

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
# What runs in a measurement on a CPU.
MEASURED = (
    *("csrc", ":!csrc/cuda", "gankernels", ":!gankernels/triton"),
    *("benchmarks/*.py", "examples/dropin"),
)


def environment(threads: int) -> dict[str, Any]:
    """What a reader needs to reproduce the figures."""
    build = gk.build_info()
    return {
        "command": " ".join([Path(sys.executable).name, "-m", "benchmarks.run", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": build["cpu_capability"],
        "compiler": build["compiler"],
    }


def commit(of: Sequence[str] = MEASURED) -> str:
    """The commit that was measured, marked where these of its files differ from it."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return found.stdout.strip()

    if given := os.environ.get("GANKERNELS_COMMIT"):
        return given  # where the sources were copied without their repository
    if shutil.which("git") is None:
        return "unknown"
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", *of)
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-modified" if dirty else "")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def save(name: str, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write ``benchmarks/results/NAME.json`` and ``.csv``."""
    RESULTS.mkdir(exist_ok=True)
    contents = {"environment": header, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(contents, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"\nwritten: benchmarks/results/{name}.json and .csv")


@cache
def load(name: str) -> dict[str, Any]:
    """What :func:`save` wrote; read once per process."""
    return dict(json.loads((RESULTS / f"{name}.json").read_text()))


def written(shape: str) -> str:
    """``128x20`` as a reader expects it."""
    return shape.replace("x", " × ")


def by_case(name: str) -> dict[tuple[str, str, str], dict[str, Row]]:
    """Saved rows by operator, shape and dtype, then by contender."""
    cases: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in load(name)["rows"]:
        case = cases.setdefault((row["operator"], row["shape"], row["dtype"]), {})
        case[row["contender"]] = row
    return cases


def table(head: list[str], lines: list[list[object]]) -> str:
    """A table of Markdown."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(map(str, x)) + " |" for x in (head, rule, *lines))
