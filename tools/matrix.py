"""make matrix: builds and tests named combinations of torch, Python, compiler and Triton, one after the other.

Each has an environment of its own under build/matrix, which is deleted when it is done: a CUDA build of torch is
several GB. Some then make a wheel and use it in a bare one. What has a result of this tree is not run again;
docs/results/versions.json holds all results.

python -m tools.matrix                      what has no result yet
python -m tools.matrix NAME ... [--again]   these; --list names all
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import commit
from tools import dist

ROOT = Path(__file__).resolve().parent.parent
DIST_RECORD = dist.RECORD.relative_to(ROOT)
WHEEL_KEYS = ("bytes", "fits", "torch_built", "torch_running")
WORK, RECORD = ROOT / "build" / "matrix", ROOT / "docs" / "results" / "versions.json"
# Results and pages may differ from the commit that is named.
TESTED = ("csrc", "gankernels", "tests", "tools", "setup.py", "pyproject.toml")
# The operators and the training code on a CPU, without what `make test` adds.
CORE = ("-m", "not (emulated or builds or inductor or processes)")
# Every variant of every Triton kernel: compiled for NVIDIA and AMD, and run in the emulator.
EMULATED = tuple(
    f"tests/gpu/test_triton_{name}.py"
    for name in ("backend", "compiled", "emulated", "failures", "replays", "replay_forms")
)


@dataclass(frozen=True)
class Combination:
    """What is installed, and which tests then run."""

    torch: str
    python: str = "3.11"
    compiler: str = "c++"
    triton: str | None = None
    numpy: str = "numpy"
    shard: str = "0/1"  # i/n: every n-th test
    wheel: bool = False  # afterwards a wheel is made there, and used in a bare environment

    @property
    def name(self) -> str:
        if self.triton is not None:
            return f"triton-{self.triton}"
        return f"torch-{self.torch}-python-{self.python}-{self.compiler}"

    @property
    def tests(self) -> tuple[str, ...]:
        chosen = CORE if self.triton is None else EMULATED
        return (*chosen, "--shard", self.shard)


NEWEST = "2.15.0"
# Beside 2.13.0, Python 3.11 and GCC, which `make test` is for: each with a Python that it had when it was new.
TORCHES = (
    Combination("2.6.0", "3.10", numpy="numpy<2"),
    Combination("2.7.1", "3.12"),
    Combination("2.8.0", "3.13"),
    Combination("2.9.1", "3.12", wheel=True),
    Combination("2.10.0", "3.11"),
    Combination("2.11.0", "3.12", wheel=True),
    Combination("2.12.0", "3.10"),
    Combination("2.14.1", "3.11", wheel=True),
    Combination(NEWEST, "3.13", wheel=True),
    Combination(NEWEST, "3.14"),
)
COMPILERS = ("g++-11", "g++-13", "g++-14", "clang++-14", "clang++-15", "clang++-19")
TRITONS = ("3.4.0", "3.5.1", "3.6.0", "3.7.1", "3.8.0", "3.9.0")
COMBINATIONS = (
    *TORCHES,
    *(Combination("2.13.0", compiler=compiler) for compiler in COMPILERS),
    *(Combination("2.13.0", triton=triton) for triton in TRITONS),
)


def run(command: list[object], log: Path, **options: Any) -> int:
    with log.open("a") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        file.flush()
        words = list(map(str, command))
        return subprocess.run(
            words, stdout=file, stderr=subprocess.STDOUT, check=False, **options
        ).returncode


def counts(said: str) -> dict[str, Any]:
    """How many tests passed, failed and were skipped by pytest's own words, and the first that failed."""
    last = said.strip().splitlines()[-1]
    found: dict[str, Any] = {
        name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|skipped)", last)
    }
    if broken := re.search(r"(\d+) error", last):
        found["failed"] = found.get("failed", 0) + int(broken[1])
    if not found:
        raise RuntimeError(f"no test ran: {last}")
    if failures := sorted(set(re.findall(r"^FAILED (.+?)(?: - .*)?$", said, re.MULTILINE))):
        found["failures"] = failures[:20]
    return found


class Trial:
    """One combination, in a folder of its own."""

    def __init__(self, combination: Combination, index: str | None, jobs: int) -> None:
        self.combination, self.index, self.jobs = combination, index, jobs
        self.folder = WORK / combination.name
        self.tree, self.python = (
            self.folder / "tree",
            self.folder / "environment" / "bin" / "python",
        )
        self.log = WORK / f"{combination.name}.log"
        self.log.unlink(missing_ok=True)
        compiler = combination.compiler
        c = compiler.replace("clang++", "clang").replace("g++", "gcc").replace("c++", "cc")
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GANKERNELS_")},
            **{"CXX": compiler, "CC": c, "MAX_JOBS": str(jobs), "GANKERNELS_REQUIRE_EXT": "1"},
            "GANKERNELS_TEST_BACKENDS": "cpu",
            "FORCE_CPU": "1",  # most torches are CUDA builds, and nvcc takes longer than all the rest
        }

    def step(self, *command: object) -> None:
        if run(list(command), self.log, cwd=self.folder, env=self.environment) != 0:
            raise RuntimeError(f"{' '.join(map(str, command[1:4]))} ... failed: see {self.log}")

    def install(self) -> None:
        python = shutil.which(f"python{self.combination.python}")
        if python is None or shutil.which(self.combination.compiler) is None:
            raise RuntimeError(f"no python{self.combination.python} or {self.combination.compiler}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # Not the working tree, whose table and results of this run no longer agree.
        archive = self.folder / "tree.tar"
        subprocess.run(["git", "archive", "-o", archive, "HEAD"], cwd=ROOT, check=True)
        shutil.unpack_archive(archive, self.tree)
        self.step(python, "-m", "venv", "environment")
        pip = (self.python, "-m", "pip", "install", "--quiet")
        index = ("--index-url", self.index) if self.index else ()
        self.step(*pip, *index, f"torch=={self.combination.torch}")
        self.step(*pip, "setuptools>=77", "wheel", "ninja", self.combination.numpy)

    def build(self) -> float:
        start = time.monotonic()
        pip = (self.python, "-m", "pip", "install", "--quiet")
        self.step(*pip, "--no-build-isolation", "--editable", f"{self.tree}[train,test]")
        return time.monotonic() - start

    def test(self) -> dict[str, Any]:
        command = [self.python, "-m", "pytest", "-q", "-n", self.jobs, "--dist", "worksteal"]
        run([*command, *self.combination.tests], self.log, cwd=self.tree, env=self.environment)
        return counts(self.log.read_text())

    def wheel(self, tested: str) -> dict[str, Any]:
        """What tools.dist records of a wheel against this torch, or its error."""
        index = ("--index", self.index) if self.index else ()
        command = [self.python, "-m", "tools.dist", "--torch", f"torch=={self.combination.torch}"]
        environment = {**self.environment, "GANKERNELS_COMMIT": tested}  # the tree has none
        if run([*command, *index], self.log, cwd=self.tree, env=environment) != 0:
            return {"error": self.log.read_text().strip().splitlines()[-1]}
        recorded = json.loads((self.tree / DIST_RECORD).read_text())
        return {key: recorded[key] for key in WHEEL_KEYS}

    def versions(self) -> dict[str, Any]:
        code = (
            "import json, sys, numpy, gankernels as gk; from importlib.metadata import version as v\n"
            "try: triton = v('triton')\nexcept Exception: triton = None\n"
            "i = gk.build_info()\n"
            "print(json.dumps({'torch': i['torch_running'], 'python': sys.version.split()[0], "
            "'numpy': numpy.__version__, 'triton': triton, 'compiler': i['compiler'], "
            "'extension': i['extension'], 'reason': i['reason']}))"
        )
        command = [str(self.python), "-c", code]
        done = subprocess.run(
            command, cwd=self.tree, env=self.environment, capture_output=True, text=True, check=True
        )
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def outcome(self, tested: str) -> dict[str, Any]:
        found: dict[str, Any] = {"tests": "pytest " + " ".join(self.combination.tests)}
        try:
            self.install()
            found["build_seconds"] = round(self.build())
            found |= self.versions()
            if not found["extension"]:
                raise RuntimeError(found["reason"])
            found |= self.test()
            if self.combination.wheel:
                found["wheel"] = self.wheel(tested)
        except RuntimeError as error:
            found["error"] = str(error)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        return found


class TritonTrial(Trial):
    """A Triton that goes before the one of this environment, whose build is tested."""

    def install(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.python, self.tree = Path(sys.executable), ROOT
        packages = self.folder / "packages"
        triton = f"triton=={self.combination.triton}"
        self.step(
            self.python, "-m", "pip", "install", "-q", "--no-deps", "--target", packages, triton
        )
        self.environment["PYTHONPATH"] = str(packages)
        self.environment["TRITON_CACHE_DIR"] = str(self.folder / "cache")

    def build(self) -> float:
        return 0.0


def read() -> dict[str, Any]:
    return dict(json.loads(RECORD.read_text())) if RECORD.exists() else {}


def is_broken(found: dict[str, Any]) -> bool:
    """Whether something did not work: the build, a test, or the wheel."""
    return "error" in found or found.get("failed", 0) > 0 or "error" in found.get("wheel", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="combinations; all by default")
    parser.add_argument("--list", action="store_true", help="name the combinations")
    parser.add_argument("--again", action="store_true", help="also what has a result")
    parser.add_argument("--index", help="where pip finds torch, if not where it finds the rest")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th test, which is recorded")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    by_name = {c.name: c for c in COMBINATIONS}
    if unknown := set(arguments.names) - set(by_name):
        parser.error(f"unknown: {sorted(unknown)}; --list names all")
    if arguments.list:
        print("\n".join(by_name))
        return
    WORK.mkdir(parents=True, exist_ok=True)
    results = read()
    for name in arguments.names or by_name:
        if name in results and not arguments.again:
            continue
        chosen = Combination(**{**vars(by_name[name]), "shard": arguments.shard})
        print(f"{name}: log in {WORK / name}.log", flush=True)
        tested = {"date": datetime.date.today().isoformat(), "commit": commit(TESTED)}
        trial = Trial if chosen.triton is None else TritonTrial
        found = trial(chosen, arguments.index, arguments.jobs).outcome(tested["commit"])
        found |= tested
        print(json.dumps(found, indent=1), flush=True)
        results = {**read(), name: found}  # another of these may have written
        RECORD.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(any(is_broken(results[n]) for n in arguments.names if n in results))


if __name__ == "__main__":
    main()
