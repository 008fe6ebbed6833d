"""Tries mutants in checkouts of the last commit, several at a time."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.mutants.build import Build, CompileError, run
from tools.mutants.gpu import Row, outcomes
from tools.mutants.mutant import Mutant, Tests
from tools.mutants.report import ROOT, Outcome, write_gpu_result, write_result


def run_tests(tree: Path, tests: Tests, timeout: float = 600) -> Outcome:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    environment = {
        **os.environ,
        "GANKERNELS_CPU_CAPABILITY": "portable",
        "GANKERNELS_REQUIRE_EXT": "1",
        "GANKERNELS_TEST_BACKENDS": "cpu,reference",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tree),
    }
    try:
        result = subprocess.run(
            [*command, *tests.arguments],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome("caught", "timeout")
    if result.returncode == 0:
        return Outcome("survived", "")
    failed = re.search(r"^FAILED (\S+)", result.stdout, re.MULTILINE)
    if result.returncode == 1 and failed:
        return Outcome("caught", failed[1])
    if result.returncode < 0:
        return Outcome("caught", f"crash (signal {-result.returncode})")
    return Outcome("error", (result.stdout + result.stderr)[-3000:])


def try_mutant(mutant: Mutant, tree: Path, build: Build, scratch: Path) -> Outcome:
    path = tree / mutant.file
    original = path.read_text()
    if original.count(mutant.old) != 1:
        return Outcome("error", f"the old text occurs {original.count(mutant.old)} times")
    compiled = mutant.file.startswith("csrc")
    start = time.monotonic()
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        if compiled:
            objects = scratch / mutant.name
            objects.mkdir()
            units = mutant.units or build.dependents(mutant.file)
            build.link(tree, {unit: build.compile(tree, unit, objects) for unit in units})
        outcome = run_tests(tree, mutant.tests)
    except CompileError as error:
        outcome = Outcome("error", str(error))
    finally:
        path.write_text(original)
        if compiled:
            build.link(tree, {})
    outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def check_out(into: Path) -> str:
    """The last commit, and its name: what is checked must be what somebody else can check out."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    into.mkdir()
    archive = into.parent / "tree.tar"
    run(["git", "archive", "-o", str(archive), commit], cwd=ROOT)
    shutil.unpack_archive(archive, into)
    return commit


def versions(compiler: str) -> dict[str, str]:
    import torch

    line = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "compiler": line.splitlines()[0],
    }


def failing_anyway(mutants: Iterable[Mutant], trees: Sequence[Path]) -> dict[Tests, str]:
    """The tests that fail without any mutant: they catch nothing."""
    selections = list(dict.fromkeys(mutant.tests for mutant in mutants))
    with ThreadPoolExecutor(len(trees)) as pool:
        outcomes = list(pool.map(lambda tests: run_tests(trees[0], tests), selections))
    failing = {}
    for tests, found in zip(selections, outcomes, strict=True):
        if found.outcome != "survived":
            print(f"fails without any mutant: {tests.arguments}: {found.by}", flush=True)
            failing[tests] = found.by
    return failing


def check(mutants: Sequence[Mutant], jobs: int, gpu: bool) -> tuple[list[Outcome], list[Row]]:
    """What happened to the mutants and, where asked for, to those of the kernels for GPUs."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        base = Path(temporary)
        tree = base / "tree0"
        commit = check_out(tree)
        build = Build(tree, base / "objects")
        print(f"building {commit[:10]} in {tree}", flush=True)
        found_versions = versions(build.compiler)
        build.everything(jobs)
        metadata = {**found_versions, "cuda": None, "debug": False, "error": None}
        (tree / "gankernels" / "_build.json").write_text(json.dumps(metadata))
        trees = [tree] + [base / f"tree{i}" for i in range(1, jobs)]
        for copy in trees[1:]:
            shutil.copytree(tree, copy)
        print("running the tests without any mutant", flush=True)
        failing = failing_anyway(mutants, trees)
        free: queue.Queue[Path] = queue.Queue()
        for each in trees:
            free.put(each)
        scratch = base / "scratch"
        scratch.mkdir()
        lock = threading.Lock()

        def one(mutant: Mutant) -> Outcome:
            if mutant.tests in failing:
                outcome = Outcome("error", f"fails without any mutant: {failing[mutant.tests]}")
            else:
                mine = free.get()
                try:
                    outcome = try_mutant(mutant, mine, build, scratch)
                finally:
                    free.put(mine)
            with lock:
                write_result(commit, found_versions, mutant, outcome)
            print(
                f"{outcome.outcome:9}{outcome.seconds:6.1f} s  {mutant.name}  {outcome.by}",
                flush=True,
            )
            return outcome

        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(one, mutants))
        rows = outcomes(tree) if gpu else []
        if gpu:
            write_gpu_result(commit, rows)
        return found, rows
