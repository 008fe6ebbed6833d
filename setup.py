"""Builds gankernels._C from csrc/ against the installed torch.

Flags (environment variables, "1" to set):
  FORCE_CPU               build no CUDA code, even where a CUDA torch and nvcc are present
  FORCE_CUDA              build CUDA code, or fail, even where no device is present
  GANKERNELS_REQUIRE_EXT  fail the installation where the extension does not compile; without it the package
                          installs all the same and runs on its PyTorch reference, saying so at import
  DEBUG                   -O0 -g and assertions
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
METADATA = ROOT / "gankernels" / "_build.json"


def flag(name: str) -> bool:
    return os.environ.get(name, "0") == "1"


def compiler_version() -> str | None:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return None
    result = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return result.stdout.splitlines()[0] if result.stdout else compiler


def write_metadata(error: str | None) -> None:
    """What the package compares with the running torch at import, without loading the extension."""
    try:
        import torch

        version: str | None = torch.__version__
    except ImportError:
        version = None
    METADATA.write_text(
        json.dumps(
            {
                "torch": version,
                "python": sys.version.split()[0],
                "compiler": compiler_version(),
                "cuda": None,
                "debug": flag("DEBUG"),
                "error": error,
            },
            indent=1,
        )
    )


def extension():
    from torch.utils.cpp_extension import CppExtension

    cuda_sources = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cuda/*.cu"))
    if flag("FORCE_CUDA") and not cuda_sources:
        raise SystemExit("FORCE_CUDA=1, but this version of gankernels has no CUDA sources")
    optimisation = ["-O0", "-g", "-UNDEBUG"] if flag("DEBUG") else ["-O3", "-g0", "-DNDEBUG"]
    if sys.platform == "win32":
        flags = ["/std:c++20", "/O2", "/openmp"]
    else:
        # -fopenmp only when compiling: the symbols then resolve to the OpenMP runtime that torch itself loaded.
        flags = ["-std=c++20", *optimisation, "-fopenmp", "-Wall", "-Wextra", "-Wno-psabi"]
        flags += ["-Wno-maybe-uninitialized", "-fvisibility=hidden"]
    return CppExtension(
        name="gankernels._C",
        sources=sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.cpp")),
        depends=sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/**/*.h")),
        extra_compile_args={"cxx": flags},
    )


def commands():
    from torch.utils.cpp_extension import BuildExtension

    class BuildOrFallBack(BuildExtension):
        """Compiles; on failure leaves the reason where the package finds it, unless it was told to fail."""

        def run(self) -> None:
            try:
                super().run()
                write_metadata(error=None)
            except Exception as error:  # compilers fail in every way there is
                if flag("GANKERNELS_REQUIRE_EXT") or flag("FORCE_CUDA"):
                    raise
                reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
                write_metadata(error=f"the extension did not compile: {reason}")
                print(f"gankernels: compilation failed, the reference will serve\n{error}")
                for built in self.extensions:
                    Path(self.get_ext_fullpath(built.name)).unlink(missing_ok=True)
                self.extensions = []

        def copy_extensions_to_source(self) -> None:
            if self.extensions:
                super().copy_extensions_to_source()

    class MetadataBuild(build_py):
        """The metadata is written by build_ext, so the extension must be built before the files are copied."""

        def run(self) -> None:
            self.run_command("build_ext")
            super().run()

    return {"build_ext": BuildOrFallBack, "build_py": MetadataBuild}


try:
    import torch  # noqa: F401
except ImportError:
    if flag("GANKERNELS_REQUIRE_EXT"):
        raise
    write_metadata(error="torch was not installed at build time (use --no-build-isolation)")
    setup()
else:
    setup(ext_modules=[extension()], cmdclass=commands())
