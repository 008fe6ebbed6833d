"""Writes the README's table from the committed results; `--check` only compares.

python -m benchmarks.readme_table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "losses.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- benchmark table -->", "<!-- end of benchmark table -->"


def _rivals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in rows if "gankernels" not in r["contender"] and "floor" not in r["contender"]]


def table(results: dict[str, Any]) -> str:
    """One line per case: our time, and how many times longer each rival takes."""
    cases: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        cases.setdefault((row["operator"], row["shape"], row["dtype"]), []).append(row)
    lines = [
        "| operator, forward + backward | shape | dtype | gankernels | `value_and_grad` | rivals: time / ours |",
        "|---|---|---|---|---|---|",
    ]
    for (operator, shape, dtype), rows in cases.items():
        by_name = {row["contender"]: row for row in rows}
        ours = by_name["gankernels"]
        fused = by_name.get("gankernels value_and_grad")
        rivals = ", ".join(f"{r['contender']} {r['ratio_to_ours']:.2f}" for r in _rivals(rows))
        fused_text = f"{fused['median_us']:.1f} µs" if fused else ""
        lines.append(
            f"| `{operator}` | {shape.replace('x', ' × ')} | {dtype} | {ours['median_us']:.1f} µs "
            f"| {fused_text} | {rivals} |"
        )
    e = results["environment"]
    lines += [
        "",
        f"Medians of interleaved rounds on {e['threads']} thread of {e['processor']} "
        f"({e['cpu_capability']}), torch {e['torch']}, Python {e['python']}, {e['date']}, commit "
        f"{e['commit']}. Above 1, the rival is slower. Command: `{e['command']}`; all rows, floors "
        "included, are in `benchmarks/results/losses.json`.",
    ]
    return "\n".join(lines)


def updated(readme: str) -> str:
    head, rest = readme.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n{table(json.loads(RESULTS.read_text()))}\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where the README is out of date")
    options = parser.parse_args()
    before = README.read_text()
    after = updated(before)
    if options.check and before != after:
        raise SystemExit("README.md is out of date: run python -m benchmarks.readme_table")
    if not options.check:
        README.write_text(after)


if __name__ == "__main__":
    main()
