"""What `make build` does once, what a setting redoes, and what is refused; with a stand-in for Python and pip."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.builds,
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make"),
]

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
[ "$1" = -c ] && { echo VERSION; exit; }
echo "$@" >> LOG
[ "$2" = venv ] && { mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; exit; }
case "$*" in *--editable*) [ ! -e FAIL ];; esac
"""
EDITABLE = "-m pip install --quiet --no-build-isolation --editable .[train,test,lint,dropin,docs]"


class Checkout:
    """The Makefile among sources of no content."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        for name in ("csrc", "tests/gpu", "tools/ptxsim"):
            (folder / name).mkdir(parents=True)
        for name in ("setup.py", "pyproject.toml"):
            (folder / name).touch()
        shutil.copy(ROOT / "Makefile", folder)
        self.python("3.11")

    def python(self, version: str) -> Path:
        path = self.folder / f"python{version}"
        text = STAND_IN.replace("VERSION", version).replace("LOG", str(self.log))
        path.write_text(text.replace("FAIL", str(self.folder / "fail")))
        path.chmod(0o755)
        return path

    def make(self, *settings: str) -> tuple[int, list[str], str]:
        """Exit status, what Python was asked for, and what make said."""
        self.log.write_text("")
        python = f"PYTHON={self.folder}/python3.11"
        done = subprocess.run(
            ["make", "build", python, *settings],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, self.log.read_text().splitlines(), done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_build_is_made_once(checkout: Checkout) -> None:
    status, asked, _ = checkout.make()
    assert status == 0
    assert asked == [
        "-m venv .venv",
        "-m pip install --quiet torch==2.13.0",
        "-m pip install --quiet setuptools>=77 wheel ninja numpy",
        EDITABLE,
    ]
    assert checkout.make()[:2] == (0, [])


@pytest.mark.parametrize(
    ("setting", "install"),
    [
        ("TORCH=torch==2.14.1", "-m pip install --quiet torch==2.14.1"),
        (
            "TORCH_INDEX=file:///wheels",
            "-m pip install --quiet --index-url file:///wheels torch==2.13.0",
        ),
    ],
)
def test_a_changed_setting_redoes_what_follows(
    checkout: Checkout, setting: str, install: str
) -> None:
    checkout.make()
    status, asked, _ = checkout.make(setting)
    assert status == 0
    assert asked[1:3] == ["-m pip uninstall --quiet --yes torch", install]
    assert asked[-1] == EDITABLE
    assert checkout.make(setting)[:2] == (0, [])


def test_a_torch_that_was_there_before_stays(checkout: Checkout) -> None:
    (checkout.folder / "mine" / "bin").mkdir(parents=True)
    shutil.copy(checkout.python("3.11"), checkout.folder / "mine" / "bin" / "python")
    _, asked, _ = checkout.make("VENV=mine")
    assert not [line for line in asked if "uninstall" in line]


def test_an_interrupted_build_goes_on(checkout: Checkout) -> None:
    (checkout.folder / "fail").touch()
    assert checkout.make()[0] != 0
    (checkout.folder / "fail").unlink()
    assert checkout.make()[:2] == (0, [EDITABLE])


def test_an_environment_of_another_python_is_refused(checkout: Checkout) -> None:
    checkout.make()
    status, asked, said = checkout.make(f"PYTHON={checkout.python('3.12')}")
    assert (status != 0, asked) == (True, [])
    assert ".venv is an environment of a Python 3.11, and" in said
    assert "make VENV=.venv-3.12 PYTHON=" in said


def test_an_environment_whose_python_is_gone_is_refused(checkout: Checkout) -> None:
    checkout.make()
    (checkout.folder / ".venv" / "bin" / "python").unlink()
    status, asked, said = checkout.make()
    assert (status != 0, asked) == (True, [])
    assert "a Python that is gone" in said


def test_a_space_in_the_environments_path_is_refused(checkout: Checkout) -> None:
    status, asked, said = checkout.make("VENV=my env")
    assert (status != 0, asked) == (True, [])
    assert 'VENV is "my env"' in said
