"""Compiles an unchanged tree once, and of a changed one the translation units that see the change."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Compiled once: nearly all of a translation unit's time goes to these.
PRECOMPILED = """\
#include <Python.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
"""


class CompileError(RuntimeError):
    """A change that is no valid C++."""


def run(command: Sequence[str], **options: object) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if result.returncode:
        raise CompileError(f"{' '.join(command)}\n{result.stderr[-4000:]}")


class Build:
    """The objects of an unchanged tree, and what it takes to replace some of them."""

    def __init__(self, tree: Path, objects: Path) -> None:
        from torch.utils import cpp_extension

        self.tree, self.objects = tree, objects
        includes = [*cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
        self.compiler = os.environ.get("CXX", "c++")
        self.flags = ["-std=c++20", "-g0", "-DNDEBUG", "-fPIC", "-w"]
        self.flags += ["-fvisibility=hidden", *(f"-I{path}" for path in includes)]
        self.libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
        self.libraries += ["-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"]
        # Without csrc/cuda, which a build for the CPU leaves out; its mutants are PTX, in tests/gpu.
        found = set(tree.glob("csrc/**/*.cpp")) - set(tree.glob("csrc/cuda/*.cpp"))
        self.units = sorted(str(p.relative_to(tree)) for p in found)
        self.header = objects / "torch.h"

    def everything(self, jobs: int) -> None:
        self.objects.mkdir()
        self.header.write_text(PRECOMPILED)
        gch = str(self.header) + ".gch"
        run([self.compiler, *self.flags, "-x", "c++-header", str(self.header), "-o", gch])
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda unit: self.compile(self.tree, unit, self.objects), self.units))
        self.link(self.tree, {})

    def compile(self, tree: Path, unit: str, into: Path) -> Path:
        target = into / (unit.replace("/", "_") + ".o")
        # The kernels are free of torch: their instruction set must not reach its headers.
        with_torch = "kernels_" not in unit and "capability" not in unit
        options = ["-include", str(self.header)] if with_torch else ["-O1"]
        command = [self.compiler, *self.flags, *options, "-MMD", "-c", unit, "-o", str(target)]
        run(command, cwd=tree)
        return target

    def dependents(self, file: str) -> list[str]:
        """The translation units that include ``file``."""
        if file.endswith(".cpp"):
            return [file]
        found = []
        for unit in self.units:
            text = (self.objects / (unit.replace("/", "_") + ".d")).read_text()
            paths = {os.path.normpath(p) for p in text.replace("\\n", " ").split()}
            if file in paths:
                found.append(unit)
        return found

    def link(self, tree: Path, changed: dict[str, Path]) -> None:
        objects = [
            changed.get(unit, self.objects / (unit.replace("/", "_") + ".o")) for unit in self.units
        ]
        target = tree / "gankernels" / ("_C" + sysconfig.get_config_var("EXT_SUFFIX"))
        command = [self.compiler, "-shared", *map(str, objects), *self.libraries, "-o", str(target)]
        run(command)
