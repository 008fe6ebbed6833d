"""The CUDA side of a build: whether there is one, for which GPUs, and where its headers lie."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tools.setup_helpers.environment import flag

ARCHITECTURES = "8.0;9.0;10.0+PTX"  # A100, H100, B200, and whatever comes after


def why_no_cuda() -> str | None:
    """What is missing for CUDA code, or None."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not list(Path().glob("csrc/cuda/*.cu")):
        return "this version of gankernels has no CUDA sources"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not a CUDA build of torch"
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        return "nvcc was not found: install the CUDA toolkit, or set CUDA_HOME to it"
    return None


def builds_cuda() -> bool:
    """Whether CUDA code is part of this build."""
    if flag("FORCE_CPU") and flag("FORCE_CUDA"):
        raise SystemExit("FORCE_CPU=1 and FORCE_CUDA=1 exclude each other")
    missing = why_no_cuda()
    if flag("FORCE_CUDA") and missing:
        raise SystemExit(f"FORCE_CUDA=1, but {missing}")
    return missing is None and not flag("FORCE_CPU")


def cuda_metadata() -> dict[str, str | None] | None:
    """The CUDA side of the build: versions and architectures."""
    if not builds_cuda():
        return None
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = subprocess.run(
        [str(Path(CUDA_HOME) / "bin" / "nvcc"), "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    release = [line for line in nvcc.stdout.splitlines() if "release" in line]
    return {
        "torch_cuda": torch.version.cuda,
        "nvcc": release[0].split("release ")[-1] if release else None,
        "architectures": os.environ["TORCH_CUDA_ARCH_LIST"],
    }


def cuda_include_dirs() -> list[str]:
    """Headers that PyPI's torch brings as packages of their own: toolkits may lack cusparse.h and others."""
    import torch

    packages = Path(torch.__file__).parent.parent / "nvidia"
    return [str(p) for p in sorted(packages.glob("cu*/include"))]


def toolkit_dirs(variable: str, option: str) -> list[str]:
    """Where nvcc itself looks: its headers and libraries need not lie beside it, nor in torch's packages."""
    from torch.utils.cpp_extension import CUDA_HOME

    command = [str(Path(CUDA_HOME) / "bin" / "nvcc"), "-dryrun", "-x", "cu", "-c", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = re.search(rf"{variable}=(.*)", done.stderr)
    found = re.findall(rf'"{option}([^"]+)"', line[1]) if line else []
    return [str(Path(p).resolve()) for p in found]
