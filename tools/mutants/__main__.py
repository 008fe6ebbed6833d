"""``python -m tools.mutants``: tries all of them, or those that are named."""

from __future__ import annotations

import argparse
import sys

import tools.mutants
from tools.mutants.data import MUTANTS
from tools.mutants.runner import check


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutants", description=tools.mutants.__doc__
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only", nargs="+", metavar="NAME", help="these; the others keep their last result"
    )
    which.add_argument("--gpu", action="store_true", help="those of the kernels for GPUs alone")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    arguments = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in arguments.only or ():
        if name not in known:
            parser.error(f"--only must name mutants of tools/mutants/data, got {name!r}")
    names = [] if arguments.gpu else arguments.only or known
    mutants = [known[name] for name in names]
    outcomes, rows = check(mutants, max(1, arguments.jobs), gpu=not arguments.only)
    tried = len(mutants) + len(rows)
    escaped = [m.name for m, o in zip(mutants, outcomes, strict=True) if o.outcome != "caught"]
    escaped += [row["name"] for row in rows if row["outcome"] != "caught"]
    print(f"{tried - len(escaped)} of {tried} mutants caught")
    if escaped:
        print("not caught:", *escaped)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
