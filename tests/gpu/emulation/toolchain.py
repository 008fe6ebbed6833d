"""The compilers and disassemblers that work without a GPU: nvcc, and what the triton wheel bundles.

Nothing here may run in a process with TRITON_INTERPRET=1: there tl.max and its kin are interpreted functions.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import tempfile

import triton

BUNDLED = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ARCHITECTURES = (80, 90, 100)
NVCC = shutil.which("nvcc")

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


def nvcc_ptx(source: pathlib.Path, arch: int, *options: str) -> str:
    """PTX of a .cu file, with source lines for the messages of faults."""
    assert NVCC is not None, "nvcc is not on PATH"
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder, "k.ptx")
        command = [NVCC, "-std=c++17", "-O3", "-lineinfo", f"-arch=sm_{arch}", "-ptx", *options]
        subprocess.run([*command, str(source), "-o", str(target)], check=True)
        return target.read_text()
