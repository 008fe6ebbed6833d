"""The extension module: its sources and the compiler's flags."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tools.setup_helpers import cuda
from tools.setup_helpers.environment import flag


def sources(pattern: str) -> list[str]:
    return sorted(map(str, Path().glob(pattern)))


def cxx_flags() -> list[str]:
    if sys.platform == "win32":
        return ["/std:c++20", "/O2", "/openmp"]
    optimisation = ["-O0", "-g", "-UNDEBUG"] if flag("DEBUG") else ["-O3", "-g0", "-DNDEBUG"]
    warnings = ["-Wall", "-Wextra", "-Wno-psabi"]
    # Braces may be left out in C++, of which GCC says nothing; what GCC takes for uninitialized is not.
    warnings += ["-Wno-missing-braces", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"]
    if flag("GANKERNELS_WERROR"):
        warnings.append("-Werror")
    return ["-std=c++20", *optimisation, *warnings, "-fvisibility=hidden"]


def of_the_system(extension: Any) -> None:
    """Foreign headers become the system's: warnings about them would hide those about ours."""
    if sys.platform == "win32":
        return
    found = [word for path in extension.include_dirs for word in ("-isystem", path)]
    for flags in extension.extra_compile_args.values():
        flags += found
    extension.include_dirs = []


def extension() -> Any:
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    of_cuda = sources("csrc/cuda/*.cpp")
    options: dict[str, Any] = {
        "name": "gankernels._C",
        "sources": [s for s in sources("csrc/**/*.cpp") if s not in of_cuda],
        "depends": sources("csrc/**/*.h"),
        "extra_compile_args": {"cxx": cxx_flags()},
        "extra_link_args": ["-Wl,-s"] if sys.platform == "linux" and not flag("DEBUG") else [],
    }
    if cuda.builds_cuda():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", cuda.ARCHITECTURES)
        options["sources"] += of_cuda + sources("csrc/cuda/*.cu")
        options["depends"] += sources("csrc/cuda/*.cuh")
        options["define_macros"] = [("GANKERNELS_CUDA", "1")]
        options["include_dirs"] = cuda.cuda_include_dirs()
        options["library_dirs"] = cuda.toolkit_dirs("LIBRARIES", "-L")
        # Searched after those: the C++ compiler's own variable.
        given = os.environ.get("CPLUS_INCLUDE_PATH", "")
        found = filter(None, [given, *cuda.toolkit_dirs("INCLUDES", "-I")])
        os.environ["CPLUS_INCLUDE_PATH"] = os.pathsep.join(found)
        # No contraction to fma: the tests' host build of the same code then computes the same.
        options["extra_compile_args"]["nvcc"] = ["-std=c++20", "-O3", "-fmad=false"]
    built = (CUDAExtension if cuda.builds_cuda() else CppExtension)(**options)
    of_the_system(built)
    return built
