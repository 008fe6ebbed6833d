"""The record of what was built and tested elsewhere than here."""

from __future__ import annotations

import json

from benchmarks import versions
from tools.matrix import COMBINATIONS, RECORD

OBTAINED = {"tests", "commit", "date"}


def test_no_two_combinations_have_one_name() -> None:
    names = [combination.name for combination in COMBINATIONS]
    assert len(set(names)) == len(names)


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
