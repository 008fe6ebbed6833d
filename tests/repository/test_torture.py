"""A hundredth of every attack, and the page of what the whole ones found."""

from __future__ import annotations

import pytest

from tools.torture import report
from tools.torture.__main__ import attacked
from tools.torture.attack import Found
from tools.torture.attacks import ATTACKS
from tools.torture.process import attacked_here

# Builds of their own, and minutes of calls: `make torture` alone.
LONG = ("sanitizers", "races", "tidy", "training", "soak")
# Which leave a process as it was: one of their own would take longer to start than they to run.
HERE = (
    "numerics",
    "lists",
    "foreign",
    "digits",
    "refusals",
    "abuse",
    "files",
    "data",
    "texts",
    "commands",
)
SHARES = {
    "numerics": 0.01,
    "foreign": 0.03,
    "lists": 0.05,
    "refusals": 0.01,
    "commands": 0.1,
    "entries": 0.02,
    "abuse": 0.1,
    "threads": 0.003,
    "digits": 0.1,
    "files": 0.01,
    "texts": 0.01,
    "data": 0.02,
    "wrappers": 0.1,
    "faults": 0.01,
    "writes": 0.005,
}
LEAST = {
    "numerics": 200,
    "foreign": 100,
    "lists": 600,
    "refusals": 1_000,
    "commands": 35,
    "entries": 1_000,
    "abuse": 300,
    "threads": 200,
    "digits": 2_000,
    "files": 30,
    "texts": 90,
    "data": 130,
    "wrappers": 16,
    "faults": 7,
    "writes": 3,
}


def test_every_attack_is_run_here_or_is_long() -> None:
    assert {attack.name for attack in ATTACKS} == {*SHARES, *LONG}


@pytest.mark.processes
@pytest.mark.compiled
@pytest.mark.parametrize("name", SHARES)
def test_a_share_of_an_attack_finds_nothing(name: str) -> None:
    result = (attacked_here if name in HERE else attacked)(name, SHARES[name])
    assert result["failures"] == []
    assert result["cases"] >= LEAST[name]


def test_a_failed_case_is_a_finding() -> None:
    found = Found()
    found.attempt("nothing", lambda: None)
    found.attempt("a division", lambda: 1 / 0)
    assert found.cases == 2
    assert len(found.failures) == 1
    assert found.failures[0].startswith("a division: ZeroDivisionError: division by zero")


@pytest.mark.processes
def test_an_attack_that_ends_its_process_is_a_finding() -> None:
    (failure,) = attacked("no such attack", 1.0)["failures"]
    assert failure.startswith("ended with 1: StopIteration")


def test_the_page_shows_the_committed_results() -> None:
    text = report.PAGE.read_text()
    assert report.page(text) == text


def test_the_committed_results_are_of_whole_attacks() -> None:
    results = report.load()
    assert set(results) == {attack.name for attack in ATTACKS}
    for result in results.values():
        assert result["failures"] == []
        assert not result["commit"].endswith("-modified")
