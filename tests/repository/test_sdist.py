"""The source distribution holds what git tracks, and nothing that a build or a test leaves behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.builds

ROOT = Path(__file__).parents[2]
LITTER = ("gankernels/_build.json", "gankernels/_C.so", "csrc/x.o.pyc", "build/x.o", "runs/x.png")
GENERATED = ("PKG-INFO", "setup.cfg", "gankernels.egg-info/")


def tracked() -> set[str]:
    """What git tracks, as far as it is there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a clone of the repository")
    names = listed.stdout.decode().split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked files, and what lies between them in a tree that has been worked in."""
    clone = tmp_path / "clone"
    for name in tracked():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    for name in LITTER:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    return clone


def test_the_sdist_is_what_git_tracks(clone: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(tmp_path)],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("gankernels-*.tar.gz")
    with tarfile.open(archive) as tar:
        members = {m.name.split("/", 1)[1] for m in tar.getmembers() if m.isfile()}
    assert {m for m in members if not m.startswith(GENERATED)} == tracked()
