"""What was built and tested elsewhere, from what tools/matrix.py and tools/aarch64.py write."""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks.results import table
from tools.aarch64 import RECORD as AARCH64
from tools.matrix import COMBINATIONS, RECORD


def _compiler(said: str) -> str:
    """``c++ (Debian 12.2.0-14+deb12u1) 12.2.0`` -> ``GCC 12.2``."""
    if not said:
        return ""
    family = "Clang" if "clang" in said else "GCC"
    number = re.search(r"version (\d+\.\d+)|\) (\d+\.\d+)", said)
    return f"{family} {next(filter(None, number.groups()))}" if number else said


def _tests(found: dict[str, Any]) -> str:
    kind = "Triton, compiled and emulated" if "triton_compiled" in found["tests"] else "CPU"
    shard = re.search(r"--shard 0/(\d+)", found["tests"])
    share = int(shard[1]) if shard else 1
    return kind if share == 1 else f"{kind}, one in {share}"


def _wheel(found: dict[str, Any]) -> str:
    """What became of the wheel, where one was made."""
    if "error" in found:
        return f"; wheel: {found['error']}"
    size = next(n for name, n in found["bytes"].items() if name.endswith(".whl"))
    return f"; wheel built, and used in a bare environment ({found['fits']}, {size / 1e6:.1f} MB)"


def _outcome(found: dict[str, Any]) -> str:
    """How many tests passed and failed, and which failed."""
    outcome = f"{found.get('passed', 0):,} passed, {found.get('failed', 0):,} failed"
    outcome += f", {found['skipped']:,} skipped" if found.get("skipped") else ""
    names = sorted({re.sub(r".*::|\[.*", "", test) for test in found.get("failures", ())})
    return outcome + (f" ({', '.join(f'`{name}`' for name in names)})" if names else "")


def _line(found: dict[str, Any]) -> list[object]:
    outcome = found["error"] if "error" in found else _outcome(found)
    if "wheel" in found:
        outcome += _wheel(found["wheel"])
    versions = [found.get(key, "") for key in ("torch", "python", "numpy", "triton")]
    return [*versions, _compiler(found.get("compiler") or ""), _tests(found), outcome]


def _order(named: tuple[str, Any]) -> list[object]:
    """2.9 before 2.11."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", named[0])]


def versions() -> str:
    """What has a result, and the names of what has none."""
    results = json.loads(RECORD.read_text())
    head = ["torch", "Python", "numpy", "Triton", "compiler", "tests", "outcome"]
    text = table(head, [_line(found) for _, found in sorted(results.items(), key=_order)])
    waiting = [f"`{c.name}`" for c in COMBINATIONS if c.name not in results]
    dates = sorted(found["date"] for found in results.values())
    return (
        f"{text}\n\nCommand: `make matrix`, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; commits and "
        f"commands are in `docs/results/versions.json`. Named there and not run: {', '.join(waiting)}."
    )


def aarch64() -> str:
    """What was built and tested for AArch64, from what tools/aarch64.py writes."""
    found = json.loads(AARCH64.read_text())
    (check,) = found["check"].values()
    emulator = found["emulator"].split(" (")[0]
    share = found["tests"].split("--shard 0/")[1]
    failures = len(check["failures"])
    return (
        f"On AArch64, under {emulator}, {_compiler(found['compiler'])} built the extension without a warning "
        f"against torch {found['torch_running']} for Python {found['python']}, and torch loads it: "
        f"`gankernels info --check` made {check['calls']} calls of {check['operators']} operators, with "
        f"{failures} failures, and of one in {share} of the contract's and the operators' tests (without "
        f"`torch.compile`) {_outcome(found)}. Command: `{found['command']}`, {found['date']}, commit "
        f"{found['commit']}; `docs/results/aarch64.json`."
    )
