"""What GitHub runs: as .ci/run, tools.matrix and pyproject.toml have it, with no right that is not needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.matrix import COMBINATIONS

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def used(name: str) -> dict[str, str]:
    """The actions of a workflow, and their versions."""
    return dict(re.findall(r"uses: (\S+)@(\S+)", WORKFLOWS[name]))


def jobs(name: str) -> dict[str, str]:
    _, *parts = re.split(r"^  (\w+):\n", WORKFLOWS[name].partition("\njobs:\n")[2], flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_a_clean_clone_is_checked_by_its_own_script_alone() -> None:
    assert re.findall(r"\brun: *(.*)", WORKFLOWS["ci"]) == [".ci/run"]
    assert set(used("ci")) == {"actions/checkout", "actions/setup-python"}


def test_every_combination_has_a_job_with_its_python_and_its_compiler() -> None:
    rows = re.findall(
        r"- \{ name: (\S+), python: \"(\S+)\"(?:, packages: (\S+))? \}", WORKFLOWS["matrix"]
    )
    assert rows == [
        (c.name, c.python, "" if c.compiler == "c++" else c.compiler.replace("clang++", "clang"))
        for c in COMBINATIONS
    ]


def test_wheels_are_made_for_the_pythons_of_the_settings() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    (of_settings,) = re.findall(r"^build = \[(\"cp.*)\]$", settings, re.M)
    (of_jobs,) = re.findall(r"^ +python: \[(cp.*?)\]", WORKFLOWS["wheels"], re.M)
    assert re.findall(r"cp\d+", of_jobs) == re.findall(r"cp\d+", of_settings)
    assert all(f'"{version}-*"' in of_settings for version in re.findall(r"cp\d+", of_jobs))


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_may_read_and_its_jobs_end(name: str) -> None:
    text = WORKFLOWS[name]
    assert "\npermissions:\n  contents: read\n\n" in text
    assert "\nconcurrency:\n" in text
    assert jobs(name)
    for job in jobs(name).values():
        assert re.search(r"^    timeout-minutes: \d+$", job, re.M)
    for action, version in used(name).items():
        assert re.fullmatch(r"v\d+", version) or action == "pypa/gh-action-pypi-publish"


def test_what_writes_is_behind_an_environment_and_has_no_secret() -> None:
    writing = {
        (name, job)
        for name in WORKFLOWS
        for job, text in jobs(name).items()
        if re.search(r": write\b", text)
    }
    assert writing == {("wheels", "release"), ("wheels", "publish")}
    for job in ("release", "publish"):
        assert "    environment: release" in jobs("wheels")[job]
        assert "    needs: check\n" in jobs("wheels")[job]
        assert "github.ref_type == 'tag'" in jobs("wheels")[job]
    assert not [name for name, text in WORKFLOWS.items() if "secrets." in text]
