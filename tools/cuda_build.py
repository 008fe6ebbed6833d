"""Builds the extension with its CUDA kernels against a CUDA build of torch, and records what came out.

    python tools/cuda_build.py

Needs nvcc, but no GPU: the kernels are compiled for A100, H100 and B200, the extension is imported, the
registered kernels are listed, and a launch is tried. Where there is no device the launch must fail with CUDA's
own words. Torch (about 5.5 GB) goes into a virtual environment of its own, the build into a copy of the sources.
Writes docs/results/cuda-build.json and docs/cuda-build.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "cuda-build.json"
PAGE = ROOT / "docs" / "cuda-build.md"
TORCH = "torch==2.14.1"
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc", "gankernels", "tools")

# Runs in the CUDA environment: what the built package says of itself.
PROBE = """
import json, torch, gankernels
from gankernels import _C
names = sorted(n.split("::")[1] for n in torch._C._dispatch_get_all_op_names() if n.startswith("gankernels::"))
has = lambda name: torch._C._dispatch_has_kernel_for_dispatch_key("gankernels::" + name, "CUDA")
print(json.dumps({
    "torch": torch.__version__,
    "torch_cuda": torch.version.cuda,
    "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    "cuda_compiled": _C.cuda_compiled(),
    "registered": [name for name in names if has(name)],
    "launch_error": _C.cuda_launch_error(),
    "library": _C.__file__,
}))
"""


def run(command: list[str | Path], **options: Any) -> str:
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        )
    return done.stdout


def environment(folder: Path) -> Path:
    """The Python of a virtual environment with a CUDA build of torch, made where there is none yet."""
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", folder])
    found = subprocess.run(
        [str(python), "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    if not found.stdout.startswith(TORCH.removeprefix("torch==")):
        print(f"installing {TORCH} into {folder} (about 5.5 GB)", flush=True)
        run(
            [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                TORCH,
                "setuptools>=77",
                "wheel",
                "ninja",
                "numpy",
            ]
        )
    return python


def build(python: Path, copy: Path) -> float | None:
    """Builds in a copy of the sources, so that the checkout's own extension stays.

    Returns the seconds that it took, or None where objects of an earlier run were kept.
    """
    resumed = (copy / "build").exists()
    copy.mkdir(
        parents=True, exist_ok=True
    )  # what an earlier run compiled and is unchanged, ninja keeps
    for name in ("csrc", "gankernels", "tools"):
        shutil.rmtree(copy / name, ignore_errors=True)
    built = shutil.ignore_patterns("*.so", "_build.json", "__pycache__")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=built)
        else:
            shutil.copy(source, copy / name)
    start = time.monotonic()
    print("compiling", flush=True)
    run(
        [python, "setup.py", "build_ext", "--inplace"],
        cwd=copy,
        env={**os.environ, "FORCE_CUDA": "1", "PATH": f"{python.parent}:{os.environ['PATH']}"},
    )
    return None if resumed else time.monotonic() - start


def device_code(python: Path, library: str) -> dict[str, list[str]]:
    """The architectures that the library holds machine code and PTX for."""
    # Triton, which comes with torch, brings one.
    bundled = python.parent.parent.glob(
        "lib/python*/site-packages/triton/backends/nvidia/bin/cuobjdump"
    )
    cuobjdump = shutil.which("cuobjdump") or next(bundled, None)
    if cuobjdump is None:
        return {}
    found = {}
    for kind, option in (("machine_code", "--list-elf"), ("ptx", "--list-ptx")):
        names = run([cuobjdump, option, library])
        found[kind] = sorted(set(re.findall(r"(sm_\d+|compute_\d+)", names)))
    return found


def record(python: Path, copy: Path, seconds: float | None) -> dict[str, Any]:
    probed = json.loads(run([python, "-c", PROBE], cwd=copy).splitlines()[-1])
    library = probed.pop("library")
    metadata = json.loads((copy / "gankernels" / "_build.json").read_text())
    return {
        **probed,
        **{key: metadata["cuda"][key] for key in ("nvcc", "architectures")},
        "device_code": device_code(python, library),
        "compiler": metadata["compiler"],
        "python": metadata["python"],
        "processors": os.cpu_count(),
        "build_seconds": None if seconds is None else round(seconds),
        "library_megabytes": round(Path(library).stat().st_size / 2**20, 1),
    }


def check(found: dict[str, Any]) -> None:
    """The operators are all there, and a launch without a device says so."""
    from_source = set()
    for source in (ROOT / "csrc" / "cuda").glob("*.cpp"):
        from_source |= set(re.findall(r'm\.impl\("(\w+)"', source.read_text()))
    if not found["cuda_compiled"] or not from_source <= set(found["registered"]):
        raise SystemExit(f"not registered: {sorted(from_source - set(found['registered']))}")
    if found["device"] is None and "cudaError" not in (found["launch_error"] or ""):
        raise SystemExit(f"no device, but launching said {found['launch_error']!r}")
    if found["device"] is not None and found["launch_error"] is not None:
        raise SystemExit(f"launching on {found['device']}: {found['launch_error']}")


def build_time(found: dict[str, Any]) -> str:
    if found["build_seconds"] is None:
        return "not measured: an earlier run's objects were kept"
    return f"{found['build_seconds']} s on {found['processors']} processors"


def page(found: dict[str, Any]) -> str:
    """docs/cuda-build.md."""
    rows = {
        "torch": f"{found['torch']} (CUDA {found['torch_cuda']})",
        "nvcc": found["nvcc"],
        "C++ compiler": found["compiler"],
        "Python": found["python"],
        "architectures asked for": found["architectures"],
        "machine code in the library": ", ".join(found["device_code"].get("machine_code", []))
        or "not looked at",
        "PTX in the library": ", ".join(found["device_code"].get("ptx", [])) or "not looked at",
        "build time": build_time(found),
        "size of the extension": f"{found['library_megabytes']} MiB",
        "device": found["device"] or "none",
        "launching a kernel": found["launch_error"] or "works",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    names = "\n".join(f"- `gankernels::{name}`" for name in found["registered"])
    return f"""# The extension built with its CUDA kernels

Written by `make cuda-build` from [results/cuda-build.json](results/cuda-build.json), in an environment with a
CUDA build of torch and nvcc.

| | |
|---|---|
{table}

Kernels registered under the CUDA key:

{names}

To build it for yourself: `FORCE_CUDA=1 pip install --no-build-isolation .` beside a CUDA build of torch, with
nvcc on the path. `TORCH_CUDA_ARCH_LIST` names other GPUs, `FORCE_CPU=1` leaves the CUDA kernels out.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv-cuda", help="default: .venv-cuda"
    )
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "cuda", help="default: build/cuda"
    )
    arguments = parser.parse_args()
    python = environment(arguments.venv.resolve())
    seconds = build(python, arguments.build.resolve())
    found = record(python, arguments.build.resolve(), seconds)
    print(json.dumps(found, indent=1))
    check(found)
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()
