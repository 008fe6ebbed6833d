"""The one command for a machine with a GPU: what can be tried of it without one."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpu import conftest
from tools import gpu_first_contact as contact
from tools import gpu_replay as replay

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.emulated
@pytest.mark.processes
def test_dry_run(tmp_path: Path) -> None:
    """Everything is collected, imported and launched, and the emulator's own launches repeat to the last bit."""
    pytest.importorskip("triton", minversion="3.4", reason="the emulation needs triton")
    if contact.shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    command = [sys.executable, "tools/gpu_first_contact.py", "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + (tmp_path / "log.txt").read_text()[-4000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = {r["name"]: r for stage in summary["stages"] for r in stage["commands"]}
    assert set(rows) >= {"collect", "benchmarks", "launches", "replay-cuda", "replay-triton"}
    for backend in contact.BACKENDS:
        found = rows[f"replay-{backend}"]["replay"]
        assert found["equal"] > 0
        assert found["within"] == found["differs"] == found["failed"] == 0
    written = {p.name for p in tmp_path.iterdir() if p.suffix != ".pt"}
    assert written == {"summary.json", "log.txt", "replay.json"}


def test_what_runs_on_a_device_alone_may_start_interpreters() -> None:
    """No run without a GPU gets as far as to say that a test there is not marked."""
    marks: list[Any] = []
    path = ROOT / "tests" / "gpu" / "device" / "test_execution.py"
    conftest.pytest_collection_modifyitems([SimpleNamespace(path=path, add_marker=marks.append)])  # type: ignore[list-item]
    assert marks[0].name == "processes"


def command(code: str, name: str = "it") -> Any:
    return contact.Command(name, [sys.executable, "-c", code])


@pytest.mark.processes
def test_no_stage_stops_the_next_and_each_has_its_limit(tmp_path: Path) -> None:
    results = contact.Results(tmp_path, {}, [])
    fails = contact.Stage("fails", 60, (command("print('before'); raise SystemExit(3)"),))
    hangs = contact.Stage("hangs", 2, (command("import time; time.sleep(60)", "hanging"),))
    absent = contact.Stage("absent", 5, (contact.Command("none", ["/no/such/program"]),))
    works = contact.Stage("works", 60, (command("print('done')", "one"), command("pass", "two")))
    for stage in (fails, hangs, absent, works):
        for outcome in contact.run_group([stage], 60.0):
            results.add(*outcome)
    assert results.failed == ["it", "hanging", "none"]
    saved = json.loads((tmp_path / "summary.json").read_text())["stages"]
    status = {row["name"]: row["status"] for stage in saved for row in stage["commands"]}
    expected = {"it": 3, "hanging": "stopped after 2 s", "none": 127, "one": 0, "two": 0}
    assert status == expected
    assert "before" in (tmp_path / "log.txt").read_text()


@pytest.mark.processes
def test_what_ended_is_on_the_disk_while_others_beside_it_run(tmp_path: Path) -> None:
    results = contact.Results(tmp_path, {}, [])
    slow = contact.Stage("slow", 60, (command("import time; time.sleep(3)", "slow"),))
    quick = contact.Stage("quick", 60, (command("print('done')", "quick"),))
    written = []
    for outcome in contact.run_group([slow, quick], 60.0):
        results.add(*outcome)
        saved = json.loads((tmp_path / "summary.json").read_text())["stages"]
        written.append([stage["stage"] for stage in saved])
    assert written == [["quick"], ["quick", "slow"]]


def test_stages_that_run_alone_share_no_group() -> None:
    names = ["a", "b", "MEASURE", "c", "d"]
    stages = [contact.Stage(n, 1, (), alone=n.isupper()) for n in names]
    together = [[s.name for s in group] for group in contact.groups(stages, overlap=True)]
    assert together == [["a", "b"], ["MEASURE"], ["c", "d"]]
    apart = [[s.name for s in group] for group in contact.groups(stages, overlap=False)]
    assert apart == [[n] for n in names]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "float64", "no dtype"])
def test_every_test_of_an_operator_is_in_one_part(name: str) -> None:
    def chosen(expression: str) -> bool:
        """As pytest's -k has it: each word is whether it is in the name."""
        words = {word: word in name for word in re.findall(r"\w+", expression)}
        return bool(eval(expression, {}, {w: words[w] for w in words.keys() - {"and", "not"}}))

    assert sum(map(chosen, contact.PARTS.values())) == 1


def test_commands_that_are_left_out() -> None:
    few, one = (
        contact.Stage(name, 5, tuple(contact.Command(c, []) for c in commands))
        for name, commands in (("few", ("a", "b")), ("one", ("c",)))
    )
    left = list(contact.without([few, one], ["b", "c"]))
    assert [(s.name, [c.name for c in s.commands]) for s in left] == [("few", ["a"])]


def test_what_tests_reported(tmp_path: Path) -> None:
    report = tmp_path / "r.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a.b" name="fine"/>'
        '<testcase classname="a.b" name="bad"><failure message="why">text</failure></testcase>'
        '<testcase classname="a.b" name="not"><skipped message="no GPU"/></testcase>'
        "</testsuite></testsuites>"
    )
    found = contact.counts(report)
    assert found["passed"] == 1
    assert found["failed"] == [{"test": "b::bad", "message": "why"}]
    assert found["skipped"] == {"b::not": "no GPU"}


def test_what_is_missing_is_named() -> None:
    everything = dict.fromkeys(
        ("gpu", "cuda_home", "python_headers", "triton", "pytest", "sanitizer"), "there"
    )
    assert contact.missing(everything) == []
    without = contact.missing({**everything, "python_headers": None})
    assert len(without) == 1
    assert "Python.h" in without[0]


@pytest.mark.processes
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "tools/gpu_first_contact.py", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no GPU: --dry-run tries what can be tried without one" in done.stderr


# --- what counts as the same ---------------------------------------------------------------------


def verdict(got: torch.Tensor, exact: torch.Tensor, bound: float | None) -> str:
    """None: of a kernel without approximations."""
    approximate = bound is not None
    return str(replay.compared([got], [exact], [bound or 0.0], approximate)["verdict"])


def test_without_approximations_every_bit_counts() -> None:
    x = torch.tensor([1.0, -2.0, float("inf"), float("nan")])
    assert verdict(x.clone(), x, None) == "equal"
    assert verdict(torch.nextafter(x, torch.zeros(())), x, None) == "differs"
    finite = x[:2]  # an infinity's neighbour is none, which would differ under any rule
    assert verdict(torch.nextafter(finite, torch.zeros(())), finite, None) == "differs"
    assert verdict(torch.tensor([1.0, -2.0, float("inf"), 3.0]), x, None) == "differs"
    assert verdict(x.double(), x, None) == "differs"
    assert verdict(x[:3], x, None) == "differs"


def test_an_approximation_may_be_off_by_what_its_error_changes() -> None:
    x = torch.tensor([1.0, -2.0])
    allowed = replay.ALLOWED * 1e-5 + 2 * replay.last_place(x)
    assert verdict(x + torch.tensor([0.9 * allowed, 0.0]), x, 1e-5) == "within"
    assert verdict(x + torch.tensor([1.2 * allowed, 0.0]), x, 1e-5) == "differs"
    # Noise that moved nothing allows the last place all the same.
    assert verdict(torch.nextafter(x, torch.zeros(())), x, 0.0) == "within"


def test_a_loss_may_be_off_by_the_last_place_of_what_it_is_a_difference_of() -> None:
    loss, gradient = torch.tensor(0.5), torch.tensor([0.5])
    logits = torch.tensor([[-6.0, 6.0, float("inf")]])
    terms = replay.size_of_terms((logits, 1, [logits[:0]], None))
    assert terms == pytest.approx(12 + math.log(2))
    off = 1.5 * terms * torch.finfo(torch.float32).eps

    def verdict_of(a: torch.Tensor, b: torch.Tensor, approximate: bool = True) -> object:
        found = replay.compared([a, b], [loss, gradient], [0.0, 0.0], approximate, terms)
        return found["verdict"]

    assert verdict_of(loss + off, gradient) == "within"
    assert verdict_of(loss + 2 * off, gradient) == "differs"
    assert verdict_of(loss, gradient + off) == "differs"
    assert verdict_of(loss + off, gradient, approximate=False) == "differs"
