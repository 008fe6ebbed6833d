"""The compilers and disassemblers that work without a GPU: nvcc, and what the triton wheel bundles.

Nothing here may run in a process with TRITON_INTERPRET=1: there tl.max and its kin are interpreted functions.
"""

from __future__ import annotations

import fcntl
import hashlib
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import triton

BUNDLED = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ARCHITECTURES = (80, 90, 100)
NVCC = shutil.which("nvcc")
NVCC_OPTIONS = ("-std=c++17", "-O3", "-lineinfo")
CACHE = pathlib.Path(__file__).resolve().parents[2] / "build" / "gpu-cache"

RESOURCE = re.compile(r"(\w+(?:\[\d+\])?):(\d+)")


def ptxas(arch: int) -> str:
    """The assembler that triton itself uses for an architecture."""
    return str(BUNDLED / ("ptxas-blackwell" if arch >= 90 else "ptxas"))


def gpu_name(arch: int) -> str:
    return f"sm_{arch}" + ("a" if arch >= 90 else "")


def _of_cubin(tool: str, options: list[str], cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(BUNDLED / tool), *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def resource_usage(cubin: bytes) -> dict[str, dict[str, int]]:
    """Per entry, what cuobjdump reports: REG, STACK, SHARED, LOCAL, CONSTANT[0] ..."""
    found: dict[str, dict[str, int]] = {}
    entry = None
    for line in _of_cubin("cuobjdump", ["--dump-resource-usage"], cubin).splitlines():
        if function := re.search(r"Function (\S+):", line):
            entry = function[1]
        elif entry and "REG:" in line:
            found[entry] = {key: int(value) for key, value in RESOURCE.findall(line)}
            entry = None
    return found


@lru_cache(maxsize=16)  # ten megabytes of text, and seconds, where it is of many kernels
def disassemble(cubin: bytes) -> str:
    """SASS, with labels at the targets of branches."""
    return _of_cubin("nvdisasm", ["-c"], cubin)


def assemble(ptx: str, arch: int, *options: str) -> tuple[bytes, dict[str, dict[str, int]]]:
    """The cubin of some PTX, and per entry regs, stack, spill_stores, spill_loads, smem, barriers."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "k.ptx"), pathlib.Path(folder, "k.cubin")
        source.write_text(ptx)
        named = re.search(r"^\.target\s+(\w+)", ptx, re.M)
        name = named[1] if named else gpu_name(arch)
        command = [
            ptxas(arch),
            "-v",
            f"--gpu-name={name}",
            *options,
            str(source),
            "-o",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return target.read_bytes(), ptxas_report(done.stderr)


def ptxas_report(log: str) -> dict[str, dict[str, int]]:
    """What ``ptxas -v`` prints, per entry."""
    found: dict[str, dict[str, int]] = {}
    entry: dict[str, int] = {}
    frame = re.compile(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    )
    for line in log.splitlines():
        if name := re.search(
            r"(?:Compiling entry function '|Function properties for )([\w$]+)", line
        ):
            entry = found.setdefault(name[1], {})
        elif sizes := frame.search(line):
            keys = ("stack", "spill_stores", "spill_loads")
            entry.update(zip(keys, map(int, sizes.groups()), strict=True))
        elif used := re.search(r"Used (\d+) registers", line):
            barriers, smem = (
                re.search(r"used (\d+) barriers", line),
                re.search(r"(\d+) bytes smem", line),
            )
            entry["regs"] = int(used[1])
            entry["barriers"] = int(barriers[1]) if barriers else 0
            entry["smem"] = int(smem[1]) if smem else 0
    return found


class Compiled(NamedTuple):
    """A .cu file for one architecture: PTX with source lines, machine code, and ptxas's report per entry."""

    ptx: str
    cubin: bytes
    report: dict[str, dict[str, int]]


def nvcc(
    source: pathlib.Path, arch: int, *options: str, tree: pathlib.Path | None = None
) -> Compiled:
    """Compile a .cu file; each content is compiled once, whoever asks (the cache is ``build/gpu-cache``).

    Args:
        source: the file.
        arch: 90 for sm_90.
        options: more for nvcc.
        tree: the folder under which everything lies that it includes; its own folder unless said.
    """
    if NVCC is None:
        raise RuntimeError("nvcc is not on PATH")
    folder = (
        CACHE / f"{source.stem}-sm_{arch}-{digest(source, tree or source.parent, arch, options)}"
    )
    made_once(folder, lambda work: compile_into(work, source, arch, options))
    report = ptxas_report((folder / "k.log").read_text())
    return Compiled((folder / "k.ptx").read_text(), (folder / "k.cubin").read_bytes(), report)


def made_once(folder: pathlib.Path, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """A folder of the cache, filled by the first who asks: it is what ``make`` was given once that is whole."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                made = pathlib.Path(work) / "made"
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder


def compile_into(
    folder: pathlib.Path, source: pathlib.Path, arch: int, options: tuple[str, ...]
) -> None:
    assert NVCC is not None
    ptx, cubin = folder / "k.ptx", folder / "k.cubin"
    front = [NVCC, *NVCC_OPTIONS, f"-arch=sm_{arch}", "-ptx", *options, str(source), "-o", str(ptx)]
    subprocess.run(front, check=True)
    back = [toolkit("ptxas"), "-v", f"--gpu-name=sm_{arch}", str(ptx), "-o", str(cubin)]
    done = subprocess.run(back, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    (folder / "k.log").write_text(done.stderr)


def toolkit(program: str) -> str:
    """A program of the CUDA toolkit that nvcc belongs to."""
    assert NVCC is not None
    return str(pathlib.Path(NVCC).resolve().with_name(program))


def digest(source: pathlib.Path, tree: pathlib.Path, arch: int, options: tuple[str, ...]) -> str:
    """Of everything that the result depends on: the compiler, the options, every source in the tree."""
    assert NVCC is not None
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True).stdout
    found = hashlib.sha256(repr((version, source.name, arch, options, NVCC_OPTIONS)).encode())
    for file in sorted(f for f in tree.rglob("*") if f.suffix in (".cu", ".cuh", ".h")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
