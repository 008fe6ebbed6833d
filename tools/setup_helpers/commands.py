"""The build's commands: compile, or leave the reason where the package finds it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

from tools.setup_helpers import cuda
from tools.setup_helpers.compilers import (
    Recorded,
    compiler_version,
    find_ninja,
    first_error,
    why_no_cxx20,
)
from tools.setup_helpers.environment import building_torch, flag
from tools.setup_helpers.units import units

NO_TORCH = "torch was not installed at build time (use --no-build-isolation)"


def write_metadata(path: Path, error: str | None) -> None:
    """What the package compares with the running torch at import, without loading the extension."""
    version = building_torch()
    facts = {
        "torch": version,
        "python": sys.version.split()[0],
        "compiler": compiler_version(),
        "cuda": cuda.cuda_metadata() if version and error is None else None,
        "debug": flag("DEBUG"),
        "error": error,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1))


def objects_folder() -> Path:
    """Where objects lie until the next build: one place for each Python, torch and compiler."""
    of = f"{building_torch()} {compiler_version()} {flag('DEBUG')}"
    tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    return Path("build") / f"temp.{tag}-{hashlib.sha256(of.encode()).hexdigest()[:8]}"


class FreshBuildPy(build_py):
    """Copies the package into an empty folder: modules that are gone would be installed from an earlier build."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "gankernels", ignore_errors=True)
        super().run()


def commands() -> dict[str, Any]:
    try:
        from torch.utils.cpp_extension import BuildExtension
    except ImportError:
        if flag("GANKERNELS_REQUIRE_EXT") or flag("FORCE_CUDA"):
            raise
        BuildExtension = None
    find_ninja()
    return {"build_ext": _build_command(BuildExtension), "build_py": FreshBuildPy}


def _build_command(torchs: Any) -> Any:
    class BuildOrFallBack(torchs or build_ext):  # type: ignore[misc]
        """Compiles; on failure leaves the reason where the package finds it, unless it was told to fail."""

        def finalize_options(self) -> None:
            super().finalize_options()
            # An editable installation gives a temporary folder, and would compile everything each time.
            self.build_temp = str(objects_folder())

        def run(self) -> None:
            if torchs is None:
                self.fall_back(NO_TORCH)
                return
            recorded, inplace = Recorded(), self.inplace
            try:
                missing = why_no_cxx20()
                if missing:
                    raise RuntimeError(missing)
                with recorded:
                    super().run()
                write_metadata(self.metadata_path(), error=None)
            except Exception as error:  # compilers fail in every way there is
                if flag("GANKERNELS_REQUIRE_EXT") or flag("FORCE_CUDA"):
                    raise
                self.inplace = inplace  # setuptools changes it while it compiles
                reason = first_error(recorded.text or str(error) or repr(error))
                self.fall_back(f"the extension did not compile: {reason}")
                print(f"gankernels: compilation failed, the reference will serve\n{error}")

        def build_extension(self, ext: Any) -> None:
            """Here and not before: an sdist has the sources, not what is compiled in their place."""
            ext.depends += ext.sources
            ext.sources = units(ext.sources, Path("build", "units"))
            super().build_extension(ext)

        def fall_back(self, reason: str) -> None:
            write_metadata(self.metadata_path(), error=reason)
            for built in self.extensions:
                Path(self.get_ext_fullpath(built.name)).unlink(missing_ok=True)
            self.extensions = []

        def metadata_path(self) -> Path:
            """Beside the extension: in the sources only where those are what will be imported."""
            return Path("" if self.inplace else self.build_lib) / "gankernels" / "_build.json"

        def copy_extensions_to_source(self) -> None:
            if self.extensions:
                super().copy_extensions_to_source()

        def get_outputs(self) -> list[str]:
            return [*super().get_outputs(), str(self.metadata_path())]

    return BuildOrFallBack
