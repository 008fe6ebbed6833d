"""Builds gankernels._C from csrc/ against the installed torch.

Flags (environment variables, "1" to set):
  FORCE_CPU               build no CUDA code, even where a CUDA torch and nvcc are present
  FORCE_CUDA              build CUDA code, or fail; with neither flag, built where torch and nvcc are there for it
  TORCH_CUDA_ARCH_LIST    the GPUs to build for, by default 8.0, 9.0 and 10.0 with PTX for later ones
  GANKERNELS_REQUIRE_EXT  fail the installation where the extension does not compile; without it the package
                          installs all the same and runs on its PyTorch reference, saying so at import
  DEBUG                   -O0 -g and assertions
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
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


CXX20 = "#include <concepts>\ntemplate <std::integral T> struct S {}; S<int> s;\n"


def first_error(output: str) -> str:
    """The compiler's own first line about an error, out of all that a build printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(fatal )?error\b ?[:C]", line, re.IGNORECASE)]
    return (errors or lines or ["no message"])[0]


class Recorded:
    """What a block and its child processes print: ninja shows a compiler's errors and raises without them."""

    text = ""

    def __enter__(self) -> Recorded:
        sys.stdout.flush(), sys.stderr.flush()
        self.file = tempfile.TemporaryFile()
        self.saved = [os.dup(stream) for stream in (1, 2)]
        for stream in (1, 2):
            os.dup2(self.file.fileno(), stream)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush(), sys.stderr.flush()
        for stream, saved in zip((1, 2), self.saved, strict=True):
            os.dup2(saved, stream)
            os.close(saved)
        self.file.seek(0)
        self.text = self.file.read().decode(errors="replace")
        self.file.close()
        print(self.text, end="", flush=True)


def why_no_cxx20() -> str | None:
    """Why the C++ compiler cannot build this, or None; asked before torch's headers are read."""
    if sys.platform == "win32":
        return None
    compiler = os.environ.get("CXX", "c++")
    command = [*shlex.split(compiler), "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    if shutil.which(command[0]) is None:
        return f"there is no C++ compiler {compiler!r}: install one, or set CXX to it"
    done = subprocess.run(command, input=CXX20, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"{compiler_version() or compiler} does not compile C++20: {first_error(done.stderr)}"


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
                "cuda": cuda_metadata() if version and error is None else None,
                "debug": flag("DEBUG"),
                "error": error,
            },
            indent=1,
        )
    )


# --- CUDA ------------------------------------------------------------------------------------------------------

ARCHITECTURES = "8.0;9.0;10.0+PTX"  # A100, H100, B200, and whatever comes after


def why_no_cuda() -> str | None:
    """What is missing for CUDA code, or None."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not list(ROOT.glob("csrc/cuda/*.cu")):
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


def sources(pattern: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(pattern))


def extension():
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    cuda = builds_cuda()
    optimisation = ["-O0", "-g", "-UNDEBUG"] if flag("DEBUG") else ["-O3", "-g0", "-DNDEBUG"]
    if sys.platform == "win32":
        flags = ["/std:c++20", "/O2", "/openmp"]
    else:
        # -fopenmp only when compiling: the symbols then resolve to the OpenMP runtime that torch itself loaded.
        flags = ["-std=c++20", *optimisation, "-fopenmp", "-Wall", "-Wextra", "-Wno-psabi"]
        flags += ["-Wno-maybe-uninitialized", "-fvisibility=hidden"]
    of_cuda = sources("csrc/cuda/*.cpp")
    options = {
        "name": "gankernels._C",
        "sources": [s for s in sources("csrc/**/*.cpp") if s not in of_cuda],
        "depends": sources("csrc/**/*.h"),
        "extra_compile_args": {"cxx": flags},
    }
    if not cuda:
        return CppExtension(**options)
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    options["sources"] += of_cuda + sources("csrc/cuda/*.cu")
    options["depends"] += sources("csrc/cuda/*.cuh")
    options["define_macros"] = [("GANKERNELS_CUDA", "1")]
    options["include_dirs"] = cuda_include_dirs()
    options["library_dirs"] = toolkit_dirs("LIBRARIES", "-L")
    # Searched after those: the C++ compiler's own variable.
    given = os.environ.get("CPLUS_INCLUDE_PATH", "")
    os.environ["CPLUS_INCLUDE_PATH"] = os.pathsep.join(
        filter(None, [given, *toolkit_dirs("INCLUDES", "-I")])
    )
    # No contraction to fma: the tests' host build of the same code then computes the same.
    options["extra_compile_args"]["nvcc"] = ["-std=c++20", "-O3", "-fmad=false"]
    return CUDAExtension(**options)


def commands():
    from torch.utils.cpp_extension import BuildExtension

    class BuildOrFallBack(BuildExtension):
        """Compiles; on failure leaves the reason where the package finds it, unless it was told to fail."""

        def run(self) -> None:
            recorded = Recorded()
            try:
                missing = why_no_cxx20()
                if missing:
                    raise RuntimeError(missing)
                with recorded:
                    super().run()
                write_metadata(error=None)
            except Exception as error:  # compilers fail in every way there is
                if flag("GANKERNELS_REQUIRE_EXT") or flag("FORCE_CUDA"):
                    raise
                reason = first_error(recorded.text or str(error) or repr(error))
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
