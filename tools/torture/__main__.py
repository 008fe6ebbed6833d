"""Runs the attacks, each in a process of its own, and keeps what they found.

python -m tools.torture --jobs 2             all of them, two at a time
python -m tools.torture --only files soak    these; the others keep their last result
python -m tools.torture --share 0.01         a hundredth of each, which keeps nothing
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from tools.torture import report
from tools.torture.attacks import ATTACKS


def attacked(name: str, share: float) -> dict[str, object]:
    """What an attack found; that it ended its process is a finding, too."""
    command = [sys.executable, "-m", "tools.torture.process", name, str(share)]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=report.ROOT, capture_output=True, text=True, check=False, env=os.environ
    )
    seconds = round(time.perf_counter() - start)
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        why = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        found = {"cases": 0, "failures": [f"ended with {done.returncode}: {why}"], "note": ""}
    return {"name": name, **found, "seconds": seconds}


def main() -> None:
    names = [attack.name for attack in ATTACKS]
    parser = argparse.ArgumentParser(
        prog="python -m tools.torture", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=names)
    parser.add_argument("--share", type=float, default=1.0, help="of the long form")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="attacks at a time")
    options = parser.parse_args()
    failed = False
    # The longest first, so that they do not end alone.
    known = report.load()
    longest_first = sorted(options.only, key=lambda n: -known.get(n, {}).get("seconds", 0))
    pool = ThreadPoolExecutor(options.jobs)
    running = [pool.submit(attacked, name, options.share) for name in longest_first]
    for done in as_completed(running):
        result = done.result()
        name = result["name"]
        failed = failed or bool(result["failures"])
        print(f"{name}: {result['cases']} cases, {len(result['failures'])} failures, "  # type: ignore[arg-type]
              f"{result['seconds']} s. {result['note']}", flush=True)  # fmt: skip
        for line in result["failures"]:  # type: ignore[attr-defined]
            print(f"  {line}", flush=True)
        if options.share == 1:
            report.keep(result)
    if options.share == 1:
        report.write()
    sys.exit(failed)


if __name__ == "__main__":
    main()
