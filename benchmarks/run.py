"""Times the package and prints tables; `--save` keeps them in benchmarks/results/ as JSON and CSV.

python -m benchmarks.run                        the short table of `make bench`
python -m benchmarks.run losses --full --save   every operator, shape and dtype, compiled rivals
python -m benchmarks.run dispatch               where the microseconds of a small call go
python -m benchmarks.run steps                  whole training steps of the three systems
python -m benchmarks.run profile                which operators those steps spend their time in
python -m benchmarks.run scaling                against rows, classes, threads and processes
python -m benchmarks.run dropin                 the losses of examples/dropin, before and after
python -m benchmarks.run each                   losses of every element against a line of PyTorch
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import dispatch, dropin, gpu, losses, profile, results, scaling, steps
from benchmarks.timing import interleaved
from gankernels.training.malloc import keep_pages

SUITES = ("losses", "dispatch", "steps", "profile", "scaling", "dropin", "each")
ROUNDS = {
    "losses": 25,
    "dispatch": 25,
    "steps": 15,
    "profile": 1,
    "scaling": 9,
    "dropin": 25,
    "each": 15,
}


def _losses(options: argparse.Namespace, rounds: int) -> Iterator[list[dict[str, Any]]]:
    cases = losses.FULL if options.full else losses.QUICK
    for make_case in losses.EACH if options.suite == "each" else cases:
        torch._dynamo.reset()  # its cache of compiled shapes is bounded
        case = make_case()
        large = math.prod(case.shape) > 2**21  # seconds per round, and little noise
        measured = interleaved(
            case.contenders,
            threads=options.threads,
            rounds=max(5, rounds // 4) if large else rounds,
        )
        rows = losses.rows_of(case, measured)
        losses.print_rows(rows)
        yield rows


def _rows(options: argparse.Namespace, rounds: int) -> Iterator[list[dict[str, Any]]]:
    """Groups of rows, each printed as soon as it is measured."""
    if options.suite in ("losses", "each"):
        yield from _losses(options, rounds)
    elif options.suite == "steps":
        for system in steps.SYSTEMS:
            rows = steps.measure(system, options.threads, rounds)
            steps.print_rows(rows)
            yield rows
    elif options.suite == "profile":
        rows = profile.measure()
        profile.print_rows(rows)
        yield rows
    else:
        suite = {"dispatch": dispatch, "scaling": scaling, "dropin": dropin}[options.suite]
        rows = suite.measure(options.threads, rounds)
        suite.print_rows(rows)
        yield rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", choices=SUITES, default="losses")
    parser.add_argument(
        "--full", action="store_true", help="losses: every operator, shape and dtype (ten minutes)"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: the losses on a GPU, with device events, cold caches and CUDA-graph replay",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="interleaved rounds per case")
    parser.add_argument(
        "--pages",
        choices=("kept", "default"),
        default="kept",
        help="whether the C library keeps freed pages (as `gankernels train` does) or returns them: "
        "the same for every contender; large results then cost page faults or do not",
    )
    parser.add_argument("--save", action="store_true", help="keep the results")
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        if options.suite != "losses":
            parser.error(f"--device cuda times the losses, got {options.suite}")
        gpu.main(["--save"] if options.save else [])
        return
    torch.set_num_threads(options.threads)
    if options.pages == "kept":
        keep_pages()
    header = results.environment(options.threads) | {"pages": options.pages}
    print("  ".join(f"{key}={value}" for key, value in header.items()))
    rounds = options.rounds or ROUNDS[options.suite]
    rows = [row for group in _rows(options, rounds) for row in group]
    if options.save:
        full = "_full" if options.suite == "losses" and options.full else ""
        pages = "_default_pages" if options.pages == "default" else ""
        results.save(f"{options.suite}{full}{pages}", header, rows)


if __name__ == "__main__":
    main()
