"""The build backend: setuptools', after asking which torch there will be and where one may write.

A static requirement would have pip fetch the newest torch, several GB, for a build that another one then refuses.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import build_meta

from tools.setup_helpers.environment import check_torch, running_torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, Any] | None


def build_requirements() -> list[str]:
    """ninja, and the torch that will run: the release that is there, or the newest, which pip then installs."""
    running = running_torch()
    return ["ninja", f"torch=={running.split('+')[0]}" if running else "torch"]


def _without_label() -> None:
    """Sources fit every torch, and need none. A frontend runs each hook in a process of its own."""
    os.environ.pop("GANKERNELS_LOCAL_VERSION", None)


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    _without_label()
    return build_meta.get_requires_for_build_sdist(config_settings)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    _without_label()
    return build_meta.build_sdist(sdist_directory, config_settings)


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return build_requirements()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return build_requirements()


@contextmanager
def place_to_build(editable: bool = False) -> Iterator[None]:
    """The source tree, by one build at a time; a copy of it where nothing can be written there."""
    tree = Path.cwd()  # where a frontend calls the backend
    if os.access(tree, os.W_OK):
        with _alone(tree / "build"):
            yield
        return
    if editable:
        raise RuntimeError(f"an editable installation builds in {tree}, which cannot be written to")
    with tempfile.TemporaryDirectory(prefix="gankernels-") as folder:
        left = shutil.ignore_patterns(".git", ".venv*", "build", "__pycache__", "*.egg-info")
        copy = Path(shutil.copytree(tree, Path(folder, "sources"), ignore=left))
        for directory in [copy, *(p for p in copy.rglob("*") if p.is_dir())]:
            directory.chmod(0o755)
        os.chdir(copy)
        try:
            yield
        finally:
            os.chdir(tree)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, however that comes
        yield


def build_wheel(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    check_torch()
    with place_to_build():
        return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    check_torch()
    with place_to_build(editable=True):
        return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    check_torch()
    with place_to_build():
        return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    check_torch()
    with place_to_build(editable=True):
        return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)
