"""Everything that a machine with a GPU can tell, in one command: builds, tests, replays, sanitises and measures.

    python tools/gpu_first_contact.py --out DIR        # half an hour at most; needs no network and no git
    python tools/gpu_first_contact.py --dry-run        # without a GPU: collects, imports, replays in the emulator

Stages run one after another, each within a time limit of its own, and none stops the next. What a command
finds is written when it ends: summary.json, log.txt, replay.json and the tables of the benchmarks, small text
all of it. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("cuda", "triton")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
DEVICE_TESTS = "tests/gpu/device"
LOG_OF_A_COMMAND = 60_000  # characters, the last ones
CORES = os.cpu_count() or 1
PYTHON = sys.executable


@dataclasses.dataclass(frozen=True)
class Command:
    """A process of a stage."""

    name: str
    words: Sequence[str]
    variables: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Stage:
    """Commands that run side by side; of a stage that runs alone one after another, beside nothing else."""

    name: str
    seconds: int
    commands: tuple[Command, ...]
    alone: bool = False


# --- the machine ---------------------------------------------------------------------------------


def version_of(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def last_line(*words: str) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return None
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1] if lines and not done.returncode else None


def digest() -> str:
    """Of the sources that are measured: a tree without git says what it is all the same."""
    found = hashlib.sha256()
    for folder in ("csrc", "gankernels", "tests/gpu", "tools", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".cpp", ".h", ".cu", ".cuh"):
                found.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return found.hexdigest()[:16]


def gpu() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None}
    found = torch.cuda.get_device_properties(0)
    return {
        "gpu": found.name,
        "compute_capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "l2_mib": round(found.L2_cache_size / 2**20, 1),
        "driver": last_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def environment() -> dict[str, Any]:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    packages = ("numpy", "triton", "pytest", "pytest-xdist", "hypothesis", "liger-kernel")
    return {
        "date": datetime.date.today().isoformat(),
        "sources": digest(),
        "commit": os.environ.get("GANKERNELS_COMMIT") or last_line("git", "rev-parse", "HEAD"),
        **gpu(),
        "processors": CORES,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        **{name: version_of(name) for name in packages},
        "cuda_home": CUDA_HOME,
        "nvcc": last_line("nvcc", "--version"),
        "compiler": last_line(os.environ.get("CXX", "c++"), "-dumpfullversion"),
        "sanitizer": shutil.which("compute-sanitizer"),
        "python_headers": str(headers) if headers.exists() else None,
    }


def missing(found: dict[str, Any]) -> list[str]:
    """What stands in the way, in words."""
    reasons = {
        "gpu": "no GPU: torch sees none",
        "cuda_home": "no CUDA toolkit: CUDA_HOME is not set and nvcc is not on the path; no build",
        "python_headers": "no Python.h (python3-dev): neither the extension nor Triton's launcher builds",
        "triton": "no triton",
        "pytest": "no pytest: no test runs",
        "sanitizer": "no compute-sanitizer",
    }
    return [reason for name, reason in reasons.items() if not found.get(name)]


# --- stages --------------------------------------------------------------------------------------


def python(*words: str) -> list[str]:
    return [PYTHON, *words]


def on(backend: str) -> tuple[tuple[str, str], ...]:
    return (("GANKERNELS_BACKEND", backend),)


def build(capability: str, force: bool) -> Stage:
    variables = {
        "FORCE_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": capability,
        "MAX_JOBS": str(CORES),
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
    }
    words = ["setup.py", "build_ext", "--inplace", *(["--force"] if force else [])]
    command = Command("extension", python(*words), tuple(variables.items()))
    return Stage("build", 420, (command,), alone=True)


# By the dtype in a test's name: what is cut short is one of them.
PARTS = {
    "fp32 and the rest": "not float64 and not float16",
    "bf16": "bfloat16",
    "fp16": "float16 and not bfloat16",
    "fp64": "float64",
}


def tests(
    name: str, seconds: int, file: str, out: Path, workers: int, parts: dict[str, str] | None
) -> Stage:
    """A file of tests on every backend; in ``parts`` by names of tests (as pytest's ``-k``), if any."""
    commands = []
    for backend in BACKENDS:
        for part, chosen in (parts or {"": ""}).items():
            called = f"{name}-{backend} {part}".rstrip()
            report = f"--junitxml={out / f'{called}.xml'}"
            words = ["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", report, file]
            words += ["-k", chosen] if chosen else []
            if version_of("pytest-xdist") and workers > 1:
                words += ["-n", str(workers), "--dist", "worksteal"]
            commands.append(Command(called, python(*words), on(backend)))
    return Stage(name, seconds, tuple(commands))


def replay(out: Path, recorded: Path) -> Iterator[Stage]:
    files = {backend: recorded / f"replay-{backend}.pt" for backend in BACKENDS}
    tool = "tools/gpu_replay.py"
    absent = [b for b in BACKENDS if not files[b].exists()]
    if absent:
        record = [
            Command(f"record-{b}", python(tool, "record", str(files[b]), "--backend", b), on(b))
            for b in absent
        ]
        yield Stage("record", 900, tuple(record), alone=len(record) == 1)
    checks = [
        Command(
            f"replay-{b}",
            python(tool, "check", str(files[b]), "--json", str(out / f"replay-{b}.json")),
            on(b),
        )
        for b in BACKENDS
    ]
    yield Stage("replay", 240, tuple(checks))


def sanitize() -> Stage:
    """Torch's caching allocator would hide an access beyond a tensor within its own block."""
    uncached = ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    commands = []
    for backend in BACKENDS:
        for tool in SANITIZERS:
            sanitizer = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
            words = [*sanitizer, *python("tools/gpu_sanitize.py")]
            commands.append(Command(f"{tool}-{backend}", words, (uncached, *on(backend))))
    return Stage("sanitize", 240, tuple(commands))


def training() -> Stage:
    """The three systems, from the command line to the pictures."""
    runs = ROOT / "build" / "first-contact-runs"
    shutil.rmtree(runs, ignore_errors=True)
    commands = []
    for recipe in ("grl", "dcgan", "realness"):
        words = ["-m", "gankernels", "train", recipe, "--device", "cuda", "--steps", "200"]
        words += ["--log-every", "50", "--out", str(runs / recipe), "--quiet"]
        commands.append(Command(f"train-{recipe}", python(*words)))
    return Stage("training", 120, tuple(commands))


def benchmarks(quick: bool) -> Iterator[Stage]:
    options = ["--save", *(["--quick"] if quick else [])]
    losses = Command("losses", python("-m", "benchmarks.gpu", *options))
    yield Stage("benchmarks", 300, (losses,), alone=True)
    if (ROOT / "benchmarks" / "gpu_steps.py").exists():
        fewer = ["--seconds", "70"] if quick else []
        steps = Command("steps", python("-m", "benchmarks.gpu_steps", "--save", *fewer))
        yield Stage("steps", 300, (steps,), alone=True)


def stages(out: Path, options: argparse.Namespace, found: dict[str, Any]) -> Iterator[Stage]:
    capability = found.get("compute_capability") or "9.0"
    if options.rebuild or not built_for(found["torch"], capability):
        yield build(capability, force=options.rebuild)
    workers = min(CORES // 4, 8)
    yield tests("operators", 420, f"{DEVICE_TESTS}/test_accuracy.py", out, workers, PARTS)
    yield from replay(out, options.recorded)
    yield tests("execution", 180, f"{DEVICE_TESTS}/test_execution.py", out, 1, None)
    if (ROOT / DEVICE_TESTS / "test_graphed_steps.py").exists():
        yield tests("graphed", 180, f"{DEVICE_TESTS}/test_graphed_steps.py", out, 1, None)
    yield training()
    if found["sanitizer"]:
        yield sanitize()
    yield from benchmarks(options.quick)


def built_for(torch_version: str, capability: str) -> bool:
    """Whether the extension beside the package was built for this torch and this GPU, and loads."""
    try:
        metadata = json.loads((ROOT / "gankernels" / "_build.json").read_text())
        architectures = metadata["cuda"]["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    loads = last_line(
        PYTHON, "-c", "import torch; from gankernels import _C; print(_C.cuda_compiled())"
    )
    return metadata["torch"] == torch_version and capability in architectures and loads == "True"


def dry_stages(out: Path, options: argparse.Namespace) -> Iterator[Stage]:
    """What can be tried of all this without a GPU."""
    collect = ["-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", DEVICE_TESTS]
    yield Stage("collect", 120, (Command("collect", python(*collect)),))
    imports = "import benchmarks.gpu as b; print(len(b.CASES), 'cases')"
    yield Stage("imports", 60, (Command("benchmarks", python("-c", imports)),))
    watched = python("tools/gpu_sanitize.py", "--device", "cpu")
    yield Stage("launches", 120, (Command("launches", watched),))
    tool, few = "tools/gpu_replay.py", ["--few"]
    files = {b: str(out / f"replay-{b}.pt") for b in BACKENDS}
    record = [
        Command(f"record-{b}", python(tool, "record", files[b], "--backend", b, *few))
        for b in BACKENDS
    ]
    yield Stage("record", 300, tuple(record))
    again = [
        Command(
            f"replay-{b}",
            python(tool, "check", files[b], "--emulated", "--json", f"{out}/replay-{b}.json"),
        )
        for b in BACKENDS
    ]
    yield Stage("replay", 300, tuple(again))


# --- running them --------------------------------------------------------------------------------


def run(command: Command, seconds: float) -> dict[str, Any]:
    """One process and its children, ended at the limit."""
    start = time.monotonic()
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **dict(command.variables)}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        process = subprocess.Popen(
            command.words, cwd=ROOT, env=variables, start_new_session=True, **options
        )
    except OSError as error:
        return {"name": command.name, "status": 127, "seconds": 0.0, "output": str(error)}
    try:
        output, _ = process.communicate(timeout=seconds)
        status: int | str = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = f"stopped after {seconds:.0f} s"
    took = round(time.monotonic() - start, 1)
    return {"name": command.name, "status": status, "seconds": took, "output": output}


def groups(chosen: list[Stage], overlap: bool) -> list[list[Stage]]:
    """The stages in order, one at a time, or neighbours that may run beside others together."""
    found: list[list[Stage]] = []
    for stage in chosen:
        if overlap and not stage.alone and found and not found[-1][0].alone:
            found[-1].append(stage)
        else:
            found.append([stage])
    return found


def without(chosen: Iterable[Stage], left_out: Sequence[str]) -> Iterator[Stage]:
    """The stages less the commands of these names."""
    for stage in chosen:
        kept = tuple(command for command in stage.commands if command.name not in left_out)
        if kept:
            yield dataclasses.replace(stage, commands=kept)


def run_group(group: list[Stage], left: float) -> Iterator[tuple[Stage, dict[str, Any]]]:
    """What comes of each stage's commands, as they end, each at the limit of its stage at the latest."""
    workers = 1 if group[0].alone else sum(len(stage.commands) for stage in group)
    with ThreadPoolExecutor(workers) as pool:
        runs = {
            pool.submit(run, command, min(stage.seconds, left)): stage
            for stage in group
            for command in stage.commands
        }
        for done in as_completed(runs):
            yield runs[done], done.result()


def counts(report: Path) -> dict[str, Any]:
    """Of a test report: how many passed, what failed, why others were skipped."""
    root = ElementTree.parse(report).getroot()
    failed, skipped, passed = [], {}, 0
    for case in root.iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        problem = next(
            (case.find(k) for k in ("failure", "error") if case.find(k) is not None), None
        )
        skip = case.find("skipped")
        if problem is not None:
            failed.append({"test": name, "message": str(problem.get("message"))[:1500]})
        elif skip is not None:
            skipped[name] = skip.get("message")
        else:
            passed += 1
    return {"passed": passed, "failed": failed, "skipped": skipped}


class Results:
    """What was found, on the disk after every command: whoever ends this process loses what runs, no more."""

    def __init__(self, out: Path, found: dict[str, Any], missing: list[str]) -> None:
        self.out, self.began = out, time.time()
        self.summary: dict[str, Any] = {"environment": found, "missing": missing, "stages": []}
        (out / "log.txt").write_text("")
        self.write()

    def write(self) -> None:
        (self.out / "summary.json").write_text(json.dumps(self.summary, indent=1) + "\n")

    def add(self, stage: Stage, outcome: dict[str, Any]) -> None:
        text = outcome.pop("output") or ""
        with (self.out / "log.txt").open("a") as log:
            log.write(f"\n===== {stage.name}: {outcome['name']} ({outcome['status']})\n")
            log.write(text[-LOG_OF_A_COMMAND:])
        last = [line for line in text.splitlines() if line.strip()][-1:]
        report = self.out / f"{outcome['name']}.xml"
        tests = counts(report) if report.exists() else {}
        report.unlink(missing_ok=True)
        commit = self.summary["environment"].get("commit")
        row = {**outcome, "commit": commit, "last_line": "".join(last)[:300], **tests}
        self.rows_of(stage).append(row)
        self.write()
        print(
            f"{stage.name:12} {row['name']:20} {row['status']!s:6} {row['seconds']:7.1f} s  ",
            end="",
        )
        print(row["last_line"][:100], flush=True)

    def rows_of(self, stage: Stage) -> list[dict[str, Any]]:
        stages: list[dict[str, Any]] = self.summary["stages"]
        for found in stages:
            if found["stage"] == stage.name:
                return found["commands"]  # type: ignore[no-any-return]
        stages.append({"stage": stage.name, "commands": []})
        return stages[-1]["commands"]  # type: ignore[no-any-return]

    def gather(self) -> None:
        """One file of all replays; the tables of the benchmarks beside it."""
        replays = {}
        rows = {row["name"]: row for stage in self.summary["stages"] for row in stage["commands"]}
        for file in sorted(self.out.glob("replay-*.json")):
            found = replays[file.stem.removeprefix("replay-")] = json.loads(file.read_text())
            rows[file.stem]["replay"] = {k: v for k, v in found.items() if k != "not_equal"}
            file.unlink()
        self.write()
        if replays:
            (self.out / "replay.json").write_text(json.dumps(replays, indent=1) + "\n")
        tables = ROOT / "benchmarks" / "results"
        for file in tables.glob("gpu-*.json"):
            if file.stat().st_mtime >= self.began:
                shutil.copy(file, self.out / file.name)

    @property
    def failed(self) -> list[str]:
        rows = [row for stage in self.summary["stages"] for row in stage["commands"]]
        return [row["name"] for row in rows if row["status"] != 0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "first-contact")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU: what can be tried")
    parser.add_argument("--rebuild", action="store_true", help="build even if it is built")
    parser.add_argument("--quick", action="store_true", help="fewer sizes in the benchmarks")
    parser.add_argument("--budget", type=float, default=3000, help="seconds for all stages")
    parser.add_argument(
        "--overlap", action="store_true", help="run stages that measure nothing side by side"
    )
    parser.add_argument("--only", help="stages, separated by commas")
    parser.add_argument("--without", help="commands of stages, separated by commas")
    parser.add_argument(
        "--recorded",
        type=Path,
        default=ROOT / "build" / "replay",
        help="folder of the emulator's recordings; made where they are missing",
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    found = environment()
    results = Results(out, found, missing(found))
    print(json.dumps(found, indent=1))
    print("\n".join(results.summary["missing"]))
    if not options.dry_run and found["gpu"] is None:
        raise SystemExit("no GPU: --dry-run tries what can be tried without one")
    chosen = dry_stages(out, options) if options.dry_run else stages(out, options, found)
    wanted = [
        stage for stage in chosen if not options.only or stage.name in options.only.split(",")
    ]
    left_out = (options.without or "").split(",")
    end = time.monotonic() + options.budget
    for group in groups(list(without(wanted, left_out)), options.overlap):
        left = end - time.monotonic()
        if left < 5:
            print(f"{', '.join(s.name for s in group)}: no time is left")
            continue
        for stage, outcome in run_group(group, left):
            results.add(stage, outcome)
    results.gather()
    if results.failed:
        raise SystemExit(f"failed: {', '.join(results.failed)}")


if __name__ == "__main__":
    main()
