"""Other people's kernels, counted as ours are: what runs computes its loss, and counts are of its launches."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip(
    "triton", minversion="3.4", reason="needs the triton wheel: its compiler and disassemblers"
)

pytest.importorskip("torch", minversion="2.11", reason="older Inductors were not tried")

from benchmarks import formulas
from tools.gpu_table import peers_check, peers_counts, peers_inductor, peers_liger, peers_page
from tools.gpu_table.peers_counts import Launch, Problem

pytestmark = pytest.mark.emulated
REALNESS = Problem("realness_d_loss", (64, 20), torch.float32)
LOGISTIC = Problem("logistic_d_loss", (4096,), torch.float32)
ROW = {"operator", "shape", "dtype", "contender", "launches", "of_pytorch", "traffic", "requested"}
ROW |= {"instructions_per_element", "registers", "spills", "bound", "limited_by", "kernels"}


def test_rows_say_how_they_were_obtained() -> None:
    found = json.loads(peers_page.RESULTS.read_text())
    environment = found["environment"]
    assert {"command", "date", "commit", "torch", "triton", "liger_kernel"} <= set(environment)
    assert "modified" not in environment["commit"]
    assert all(set(row) == ROW for row in found["rows"])
    assert len({(*peers_page.problem(r), r["contender"]) for r in found["rows"]}) == len(
        found["rows"]
    )


def test_whoever_is_ahead_of_one_of_our_rows_is_named() -> None:
    ours = {
        "contender": "gankernels",
        "operator": "o",
        "shape": "1",
        "dtype": "fp32",
        "launches": 2,
    }
    figures = {"of_pytorch": 0, "traffic": 2.0, "requested": 2.0, "instructions_per_element": 9.0}
    ours |= figures | {"registers": 64, "spills": 0, "bound": 0.5, "limited_by": "dram"}
    ahead = {**ours, "contender": "other", "traffic": 1.5, "bound": 0.6}
    text = peers_page.ahead([ours, ahead, {**ours, "contender": "behind", "traffic": 2.5}])
    assert "read + written / ideal | other 1.50" in text
    assert "other 60.0% (dram)" in text
    assert "behind" not in text
    assert text.count("other") == 2


def test_liger() -> None:
    """One test, for its kernels are compiled once: results, counts, and that eight blocks stand for all."""
    pytest.importorskip("liger_kernel", reason="needs Liger's kernels")
    torch.manual_seed(0)
    whole, results = peers_liger.divergence(REALNESS, peers_check.ALL)
    peers_check.compare("Liger", results, formulas.kl_div_realness_d, REALNESS)
    own = [launch for launch in whole if launch.execution is not None]
    assert [launch.name for launch in own] == [
        "_kldiv_kernel_forward",
        "_kldiv_kernel_forward",
        "_kldiv_kernel_backward",
        "_kldiv_kernel_backward",
    ]
    matrix, losses = 64 * 20 * 4, 64 * 4
    assert [launch.traffic for launch in own] == [2 * matrix + losses] * 2 + [2 * matrix] * 2
    softmax = [launch for launch in whole if launch.name.startswith("aten::_log_softmax")]
    assert [launch.traffic for launch in softmax] == [2 * matrix] * 2 + [3 * matrix] * 2
    check_first_blocks(whole, peers_liger.divergence(REALNESS, 8)[0])
    torch.manual_seed(0)
    _, results = peers_liger.cross_entropy(REALNESS, peers_check.ALL)
    peers_check.compare("Liger cross-entropy", results, peers_liger.of_classes, REALNESS)


def check_first_blocks(whole: list[Launch], some: list[Launch]) -> None:
    all_rows = peers_counts.row(REALNESS, "", whole)
    row = peers_counts.row(REALNESS, "", some)
    for key in ("launches", "traffic", "registers", "spills"):
        assert row[key] == all_rows[key]
    for key in ("requested", "instructions_per_element", "bound"):
        assert row[key] == pytest.approx(all_rows[key], rel=0.02)


@pytest.mark.parametrize("problem", [REALNESS, LOGISTIC], ids=lambda p: p.operator)
def test_inductor(problem: Problem) -> None:
    """What it generates for a GPU computes the loss; its launches read the logits forward and backward."""
    realness = problem is REALNESS
    formula = formulas.cross_entropy_realness_d if realness else formulas.bce_logistic_d
    torch.manual_seed(0)
    found, results = peers_inductor.run(formula, problem, peers_check.ALL)
    peers_check.compare("Inductor", results, formula, problem)
    assert all(launch.execution is not None for launch in found)
    assert all("one of" in launch.execution.configuration for launch in found if launch.execution)
    row = peers_counts.row(problem, "", found)
    assert 1.5 <= row["traffic"] < 2.5
    assert row["spills"] == 0
