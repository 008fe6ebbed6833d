"""Times the losses and prints a table; `--save` writes it to benchmarks/results/ as JSON and CSV.

python -m benchmarks.run                 the short table of `make bench`
python -m benchmarks.run --full --save   every shape and dtype, kept
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import gankernels as gk
from benchmarks.losses import FULL, QUICK, Case
from benchmarks.timing import Measurement, interleaved, paired_ratio

RESULTS = Path(__file__).parent / "results"
OURS = "gankernels"


def environment(threads: int) -> dict[str, Any]:
    """What a reader needs to reproduce the figures."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "command": " ".join([Path(sys.executable).name, "-m", "benchmarks.run", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "processor": _processor(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": gk.build_info()["cpu_capability"],
        "compiler": gk.build_info()["compiler"],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def rows_of(case: Case, measured: dict[str, Measurement]) -> list[dict[str, Any]]:
    """One row per contender: microseconds, and how many times longer than ours it takes."""
    ours = measured[OURS]
    return [
        {
            "operator": case.operator,
            "shape": "x".join(map(str, case.shape)),
            "dtype": case.dtype,
            "contender": name,
            "median_us": round(m.median, 2),
            "p20_us": round(m.percentile(20), 2),
            "p80_us": round(m.percentile(80), 2),
            "ratio_to_ours": round(paired_ratio(m, ours), 3),
        }
        for name, m in measured.items()
    ]


def print_rows(rows: list[dict[str, Any]]) -> None:
    head = rows[0]
    print(f"\n{head['operator']} {head['shape']} {head['dtype']}, forward + backward")
    print(f"  {'':28}{'median us':>12}{'p20':>10}{'p80':>10}{'x ours':>9}")
    for row in rows:
        loses = (
            row["ratio_to_ours"] < 1
            and OURS not in row["contender"]
            and ":" not in row["contender"]
        )
        print(
            f"  {row['contender']:28}{row['median_us']:12.1f}{row['p20_us']:10.1f}{row['p80_us']:10.1f}"
            f"{row['ratio_to_ours']:9.2f}{'   faster than ours' if loses else ''}"
        )


def save(name: str, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"environment": header, "rows": rows}, indent=1)
    )
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\nwritten: benchmarks/results/{name}.json and .csv")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every shape and dtype (10 minutes)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds per case")
    parser.add_argument(
        "--save", metavar="NAME", nargs="?", const="losses", help="keep the results"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    header = environment(options.threads)
    print("  ".join(f"{key}={value}" for key, value in header.items()))
    rows: list[dict[str, Any]] = []
    for make_case in FULL if options.full else QUICK:
        case = make_case()
        measured = interleaved(case.contenders, threads=options.threads, rounds=options.rounds)
        rows += rows_of(case, measured)
        print_rows(rows[-len(measured) :])
    if options.save:
        save(options.save, header, rows)


if __name__ == "__main__":
    main()
