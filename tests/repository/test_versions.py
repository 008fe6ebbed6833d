"""The record of what was built and tested elsewhere than here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import marks
import pytest

from benchmarks import versions
from tools import dist, matrix
from tools.matrix import COMBINATIONS, RECORD

OBTAINED = {"tests", "commit", "date"}


def test_no_two_combinations_have_one_name() -> None:
    names = [combination.name for combination in COMBINATIONS]
    assert len(set(names)) == len(names)


def test_marks_that_the_commands_ask_for_are_declared(pytestconfig: pytest.Config) -> None:
    makefile = (matrix.ROOT / "Makefile").read_text()
    (slow,) = re.findall(r"^SLOW := (.*)$", makefile, re.M)
    asked = " ".join([*re.findall(r'-m "(.*)"', makefile), matrix.CORE[1]])
    asked = asked.replace("$(SLOW)", slow)
    assert {"emulated", "dynamo"} < marks.named(asked)
    assert not marks.undeclared(pytestconfig, asked)


def test_results_are_of_named_combinations_and_say_how_they_were_obtained() -> None:
    results = json.loads(RECORD.read_text())
    assert set(results) <= {combination.name for combination in COMBINATIONS}
    for name, found in results.items():
        assert set(found) >= OBTAINED, name
        assert "modified" not in found["commit"], name
        assert "error" in found or found.get("passed", 0) + found.get("failed", 0) > 0, name


def test_compilers_are_named_as_people_do() -> None:
    assert versions._compiler("c++ (Debian 12.2.0-14+deb12u1) 12.2.0") == "GCC 12.2"
    assert versions._compiler("Debian clang version 19.1.7 (3~deb12u1)") == "Clang 19.1"
    assert versions._compiler("") == ""


def test_the_table_names_what_was_not_run() -> None:
    table = versions.versions()
    results = json.loads(RECORD.read_text())
    for combination in COMBINATIONS:
        assert (f"`{combination.name}`" in table) == (combination.name not in results)


# --- AArch64 -------------------------------------------------------------------------------------

EMULATED = {
    "machine": "aarch64",
    "emulator": "qemu-aarch64 version 7.2 (Debian)",
    "compiler": "c++ (Debian 12.2.0) 12.2.0",
    "torch_running": "2.10.0+cpu",
    "python": "3.11.2",
    "check": {"cpu": {"calls": 8, "operators": 3, "failures": ["softmax_kl"]}},
    "tests": "pytest tests/contract --shard 0/10",
    "passed": 1700,
    "failed": 2,
    "skipped": 4,
    "date": "2026-01-01",
    "commit": "0000000",
    "command": "python tools/aarch64.py",
}


def test_what_failed_on_aarch64_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "AARCH64", tmp_path / "aarch64.json")
    versions.AARCH64.write_text(json.dumps(EMULATED))
    said = versions.aarch64()
    assert "with 1 failures" in said
    assert "1,700 passed, 2 failed, 4 skipped" in said
    assert "one in 10" in said


def test_the_record_of_aarch64_is_of_a_commit() -> None:
    found = json.loads(versions.AARCH64.read_text())
    assert set(found) >= set(EMULATED) - {"failed", "skipped"}
    assert found["machine"] == "aarch64"
    assert "modified" not in found["commit"]


# --- the wheel -----------------------------------------------------------------------------------

NAMES = ("gankernels-0.1.0.tar.gz", "gankernels-0.1.0+torch2.11.cu13-cp312-cp312-linux_x86_64.whl")
RECORDED = {
    "command": "make dist",
    "date": "2026-01-01",
    "commit": "0000000",
    "label": "torch2.11.cu13",
    "python": "3.12.1",
    "fits": "manylinux_2_34_x86_64",
    "bytes": {NAMES[0]: 1_000_000, NAMES[1]: 1_677_354},
    "torch_built": "2.11.0+cu130",
    "torch_running": "2.11.0+cu130",
    "compiler": "c++ 12",
}
TESTED = {"tests": "pytest --shard 0/1", "torch": "2.11.0+cu130", "python": "3.12.1", "passed": 7}


class Trial(matrix.Trial):
    """A trial whose tree makes no wheel, but leaves what tools.dist would have left."""

    def __init__(self, folder: Path, script: str) -> None:
        super().__init__(matrix.Combination("2.11.0", wheel=True), None, 1)
        self.tree, self.python, self.log = folder, folder / "python", folder / "log"
        record = folder / matrix.DIST_RECORD
        record.parent.mkdir(parents=True)
        record.write_text("{}")  # of an earlier build, as the archive has it
        (folder / "made").write_text(json.dumps(RECORDED))
        self.python.write_text(f"#!/bin/sh\necho $@ $GANKERNELS_COMMIT > asked\n{script}\n")
        self.python.chmod(0o755)


def test_what_becomes_of_a_wheel_is_recorded(tmp_path: Path) -> None:
    found = Trial(tmp_path, f"cp made {matrix.DIST_RECORD}").wheel("abc1234")
    assert (tmp_path / "asked").read_text() == "-m tools.dist --torch torch==2.11.0 abc1234\n"
    assert found == {
        key: RECORDED[key] for key in ("bytes", "fits", "torch_built", "torch_running")
    }


def test_a_wheel_that_does_not_work_is_recorded_with_its_error(tmp_path: Path) -> None:
    found = Trial(tmp_path, "echo failed with status 1: auditwheel >&2\nexit 1").wheel("abc1234")
    assert found == {"error": "failed with status 1: auditwheel"}
    assert matrix.is_broken({**TESTED, "wheel": found})
    assert not matrix.is_broken({**TESTED, "failed": 0, "wheel": {"fits": ""}})


@pytest.mark.parametrize(
    ("wheel", "said"),
    [
        (
            RECORDED,
            "7 passed, 0 failed; wheel built, and used in a bare environment (manylinux_2_34_x86_64, 1.7 MB)",
        ),
        ({"error": "no disk"}, "7 passed, 0 failed; wheel: no disk"),
    ],
)
def test_the_table_shows_what_became_of_a_wheel(wheel: dict[str, object], said: str) -> None:
    assert versions._line({**TESTED, "wheel": wheel})[-1] == said
    assert "wheel" not in str(versions._line(TESTED)[-1])


def test_the_matrix_reads_what_the_wheels_tool_writes() -> None:
    recorded = json.loads(dist.RECORD.read_text())
    assert set(recorded) >= set(matrix.WHEEL_KEYS)
    assert "modified" not in recorded["commit"]
    assert [name for name in recorded["bytes"] if f"+{recorded['label']}-" in name]
    assert [c.name for c in COMBINATIONS if c.wheel and c.triton is not None] == []
