"""Builds of csrc/cuda for machines without a GPU: its bindings on CPU tensors, over one of two kinds of kernels.

``host``: the kernels themselves as host C++ (``cuda_host_shim.h``). ``emulated``: nvcc's own launch stubs over a
runtime without a device (``fake_cudart.c``), whose launches the PTX emulator runs. Each build is made once for a
content and kept in ``build/gpu-cache``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from tools.ptxsim import toolchain
from tools.setup_helpers.units import unit

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SOURCES = ROOT / "csrc"
KERNELS = sorted((SOURCES / "cuda").glob("*.cu"))
BINDINGS = sorted((SOURCES / "cuda").glob("*.cpp"))
TORCH = Path(torch.__file__).parent
# The same rounding in every build: nothing is contracted to fma.
NVCC_OPTIONS = ("-fmad=false",)
# A switch that leaves out a case of an enumeration is an error here, as where the CPU's kernels are compiled.
STRICT = ("-Werror=switch",)
HOST_OPTIONS = ("-x", "c++", "-std=c++20", "-fPIC", "-ffp-contract=off", "-DGANKERNELS_HOST_SHIM")
# Where the kernels' loads and stores are hidden from the optimiser by alignment, as on the device.
QUIET = ("-Wno-unknown-pragmas", "-Wno-psabi", "-Wno-attributes")


@cache
def cuda_headers() -> list[str]:
    """Where nvcc finds its headers: their types, constants and conversions work in host C++ too."""
    assert toolchain.NVCC is not None
    command = [toolchain.NVCC, "-dryrun", "-x", "cu", "-c", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"INCLUDES=(.*)", done.stderr)
    assert found is not None, done.stderr
    return [option.strip('"').removeprefix("-I") for option in shlex.split(found[1])]


def compiled(source: Path, arch: int) -> toolchain.Compiled:
    """A kernel file for an architecture."""
    return toolchain.nvcc(source, arch, *NVCC_OPTIONS, tree=SOURCES)


@cache
def report(source: Path, arch: int) -> dict[str, dict[str, int]]:
    """What ptxas says of its kernels; asked at every launch, where reading all of ``compiled`` takes 10 ms."""
    return compiled(source, arch).report


def run(command: Sequence[str | Path]) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-4000:]}")


def digest(files: Iterable[Path], words: Sequence[object]) -> str:
    """Of sources and of whatever else decides what is made of them."""
    found = hashlib.sha256(repr((torch.__version__, toolchain.NVCC, *words)).encode())
    for file in sorted(files):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


def headers(*folders: Path) -> list[Path]:
    return [f for folder in folders for f in folder.rglob("*") if f.suffix in (".cuh", ".h")]


def cached(name: str, files: Iterable[Path], make: Callable[[Path], None], *words: object) -> Path:
    """The file that ``make`` wrote, once for this content, whoever asks."""
    toolchain.CACHE.mkdir(parents=True, exist_ok=True)
    stem, _, suffix = name.rpartition(".")
    target = toolchain.CACHE / f"{stem}-{digest(files, words)}.{suffix}"
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be making it
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=toolchain.CACHE) as folder:
                made = Path(folder) / target.name
                make(made)
                os.replace(made, target)
    return target


@cache
def bindings() -> Path:
    """The bindings as one file: most of the time of each would go to torch's headers."""
    return unit(BINDINGS, toolchain.CACHE / "units")


def host_object(source: Path, *options: str) -> Path:
    """An object file of g++."""
    options = options or ("-O1",)
    includes: list[str | Path] = [f"-I{HERE}"]
    for folder in cuda_headers():
        includes += ["-isystem", folder]
    if source == bindings() or source.parent == HERE:
        includes += ["-isystem", TORCH / "include"]
        includes += ["-isystem", TORCH / "include" / "torch" / "csrc" / "api" / "include"]
    command = [compiler(), *HOST_OPTIONS, *STRICT, *QUIET, *options, *includes, "-c", source, "-o"]
    files = [source, *(BINDINGS if source == bindings() else ()), *headers(SOURCES, HERE)]
    return cached(f"{source.name}.o", files, lambda target: run([*command, target]), command)


def nvcc_object(source: Path) -> Path:
    """An object file of nvcc: launch stubs, and PTX that nobody loads."""
    assert toolchain.NVCC is not None
    device = ["-gencode", "arch=compute_90,code=compute_90"]
    command = [
        toolchain.NVCC,
        "-std=c++20",
        *NVCC_OPTIONS,
        *device,
        "-Xcicc",
        "-O0",
        "-Xcompiler",
        "-fPIC",
        "-c",
        source,
        "-o",
    ]
    files = [source, *headers(SOURCES)]
    return cached(f"{source.name}.nvcc.o", files, lambda target: run([*command, target]), command)


def c_object(source: Path) -> Path:
    command = [os.environ.get("CC", "cc"), "-O1", "-fPIC", "-c", source, "-o"]
    return cached(f"{source.name}.o", [source], lambda target: run([*command, target]))


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def side_by_side(jobs: Sequence[Callable[[], Path]]) -> list[Path]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        return [f.result() for f in [pool.submit(job) for job in jobs]]


def linked(name: str, objects: Sequence[Path], *options: str) -> Path:
    library = TORCH / "lib"
    torch_libraries = [f"-L{library}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{library}"]
    # Its own stand-in for the CUDA runtime, also where a CUDA torch has loaded the real one.
    bound_inside = "-Wl,-Bsymbolic"
    command = [compiler(), "-shared", bound_inside, *objects, *torch_libraries, *options, "-o"]
    return cached(name, [], lambda target: run([*command, target]), command)


def host_operators() -> Path:
    """Bindings and kernels as host C++: a library of operators on CPU tensors."""
    jobs = [partial(host_object, s) for s in (bindings(), *KERNELS)]
    return linked("host.so", [*side_by_side(jobs), c_object(HERE / "host_runtime.c")])


def kernels(library: Path) -> dict[str, Callable[..., Any]]:
    """The kernels of a library of operators, by the operators' names, for CPU tensors.

    Both libraries register theirs under one dispatch key, where the one that is loaded last hides the other.
    """
    torch.ops.load_library(str(library))
    key = torch._C.DispatchKey.PrivateUse1
    names = torch._C._dispatch_get_registrations_for_dispatch_key("PrivateUse1")
    found = {n: torch.library.get_kernel(n, key) for n in names if n.startswith("gankernels::")}
    keys = torch._C.DispatchKeySet(key)
    return {n.removeprefix("gankernels::"): partial(k.call_boxed, keys) for n, k in found.items()}


def emulated_operators() -> Path:
    """Bindings on CPU tensors over nvcc's launch stubs and a runtime without a device."""
    jobs = [partial(nvcc_object, s) for s in KERNELS]
    jobs += [partial(host_object, s) for s in (bindings(), HERE / "recorder.cpp")]
    return linked("emulated.so", [*side_by_side(jobs), c_object(HERE / "fake_cudart.c")])


def sanitized_program(name: str, *options: str) -> Path:
    """The kernels for float32 as host C++ with a sanitizer in them, and a program that launches them all."""
    others = {f"divergence_{dtype}" for dtype in ("half", "bfloat16", "double")}
    sources = [*(s for s in KERNELS if s.stem not in others), HERE / "sanitized_main.cpp"]
    objects = side_by_side([partial(host_object, s, "-g1", *options) for s in sources])
    objects.append(c_object(HERE / "host_runtime.c"))
    command = [compiler(), *options, *objects, "-pthread", "-o"]
    return cached(f"{name}.exe", [], lambda target: run([*command, target]), command)
