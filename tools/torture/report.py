"""The results of the attacks, and the page that shows them."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import commit

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "torture.json"
PAGE = ROOT / "docs" / "reliability.md"
# What an attack runs on.
ATTACKED = ("csrc", "gankernels", "tools", "tests")
BEGIN, END = "<!-- attacks -->", "<!-- end of attacks -->"


def load() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(result: dict[str, Any]) -> None:
    """Puts a result in place of the last one of its attack."""
    known = load()
    known[result["name"]] = {
        **result,
        "date": datetime.date.today().isoformat(),
        "commit": commit(ATTACKED),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def table() -> str:
    from tools.torture.attacks import ATTACKS

    known = load()
    lines = [
        "| promise | attack | cases | failures | repeat it with | when |",
        "|---|---|---|---|---|---|",
    ]
    for attack in ATTACKS:
        result = known.get(attack.name)
        command = f"`python -m tools.torture --only {attack.name}`"
        if result is None:
            lines.append(f"| {attack.promise} | {attack.how} | not run | | {command} | |")
            continue
        note = f"; {result['note']}" if result["note"] else ""
        when = f"{result['date']}, commit {result['commit']}, torch {result['torch']}, {result['seconds']} s"
        lines.append(
            f"| {attack.promise} | {attack.how}{note} | {result['cases']:,} | {len(result['failures'])} "
            f"| {command} | {when} |"
        )
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def write() -> None:
    PAGE.write_text(page(PAGE.read_text()))
