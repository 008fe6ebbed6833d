"""The benchmark programs: what they time is right, and what they print is what they measured."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

import gankernels as gk
from benchmarks import dispatch, gpu, gpu_steps, losses, scaling, steps
from benchmarks.timing import Measurement, interleaved, paired_ratio


def test_rounds_are_interleaved_and_ratios_are_paired() -> None:
    order: list[str] = []
    contenders = {name: (lambda name=name: order.append(name)) for name in "abc"}
    measured = interleaved(contenders, rounds=4, seconds_per_block=0.0)
    blocks = "".join(name for name, _ in itertools.groupby(order))
    assert blocks.endswith("abc" + "bca" + "cab" + "abc")
    assert all(len(m.samples) == 4 for m in measured.values())
    # The machine was four times as slow in the last round: a paired ratio does not see it.
    rival, ours = Measurement((2.0, 8.0, 2.0)), Measurement((1.0, 4.0, 1.0))
    assert paired_ratio(rival, ours) == 2.0


def test_a_wrong_gradient_is_not_timed() -> None:
    leaves = [torch.randn(4, 3, requires_grad=True)]
    losses.check(lambda x: x.exp().sum(), lambda x: x.exp().sum(), leaves)
    with pytest.raises(AssertionError, match="gradients are off"):
        losses.check(lambda x: 1.001 * x.exp().sum(), lambda x: x.exp().sum(), leaves)


@pytest.mark.parametrize("make_case", losses.QUICK[:2] + losses.QUICK[4:6])
def test_every_contender_of_a_case_runs(make_case) -> None:
    case = make_case()
    rows = losses.rows_of(case, interleaved(case.contenders, rounds=1, seconds_per_block=0.0))
    assert [row["contender"] for row in rows] == list(case.contenders)
    assert next(row for row in rows if row["contender"] == "gankernels")["ratio_to_ours"] == 1.0


def test_the_cases_of_the_gpu_are_right_on_any_device() -> None:
    for case in (gpu.realness_d(8, 20, "fp32", "cpu"), gpu.logistic_d((8,), "bf16", "cpu")):
        assert case.moved == 4 * math.prod(case.shape) * (4 if case.dtype == "fp32" else 2)
        for name, call in case.contenders.items():
            if not name.endswith("compiled"):
                call()
    logits = losses.two_batches((8,), torch.float32)
    wrong = {"half": lambda real, fake: 0.5 * gk.reference.logistic_d_loss(real, fake)}
    with pytest.raises(AssertionError, match="gradients are off"):
        gpu._case("logistic_d_loss", "fp32", logits, gk.logistic_d_loss, wrong, "half")


def test_rivals_are_told_from_our_own_ways_and_from_floors() -> None:
    names = ["F.cross_entropy", "article formula, compiled", "plain PyTorch"]
    assert all(losses.is_rival(name) for name in names)
    others = ["gankernels", "gankernels value_and_grad", "floor: copy", "F.cross_entropy forward"]
    assert not any(losses.is_rival(name) for name in others)


@pytest.mark.parametrize(
    "contender",
    [c for c in steps.CONTENDERS if not c.config.compile],
    ids=lambda c: f"{c.system}: {c.name}",
)
def test_steps_update_as_the_plain_loop_does(contender: steps.Contender) -> None:
    assert steps.check(contender) <= steps.TOLERANCE


def test_a_step_with_other_updates_is_not_timed() -> None:
    one_pass = next(c for c in steps.CONTENDERS if c.step == "one_pass")
    # Simultaneous updates are not those of the article's alternating loop.
    wrong = steps.Contender("wrong", one_pass.system, "one_pass", options=one_pass.options)
    with pytest.raises(AssertionError, match="weights differ"):
        steps.check(wrong)


@pytest.mark.parametrize("name", ["grl 28", "dcgan 32", "realness 32"])
def test_steps_of_the_gpu_update_as_the_articles_do(name: str) -> None:
    assert gpu_steps.check(gpu_steps.SYSTEMS[name], "cpu") <= steps.TOLERANCE


def test_a_step_with_other_updates_is_not_timed_on_the_gpu() -> None:
    wrong = replace(gpu_steps.SYSTEMS["dcgan 32"], step="one_pass")
    with pytest.raises(AssertionError, match=r"one_pass, .* weights differ"):
        gpu_steps.check(wrong, "cpu")
    found, refused = gpu_steps.differences({"wrong": wrong, "small": gpu_steps.SMALL}, "cpu")
    assert list(found) == ["small"]
    assert [line.partition(":")[0] for line in refused] == ["wrong"]
    order = gpu_steps.cases(["a", "b", "c"])
    assert sorted(order) == [(n, p) for n in "abc" for p in ("bf16", "fp32")]
    assert {name for name, _ in order[:3]} == {"a", "b", "c"}


def test_a_contender_that_cannot_run_is_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ready(system: object, contender: gpu_steps.Contender, *_: object) -> object:
        return (lambda: None) if contender.step == "article" else "it broke"

    gpu_steps.main(["--device", "cpu"])
    assert "small, fp32: one step of batch 8" in capsys.readouterr().out
    monkeypatch.setattr(gpu_steps, "ready", ready)
    rows = gpu_steps.measure("small", gpu_steps.SMALL, "cpu", "bf16", False, 1)
    found = {row["contender"]: row["absent"] for row in rows}
    assert found == {
        "article's loop": None,
        "article's loop, channels-last, fused Adam": None,
        "the same, torch.compile": "left out",
        "the same, mode=reduce-overhead": "left out",
        "reversal, channels-last, fused Adam": "it broke",
        "reversal, the same as a CUDA graph": "no CUDA device",
    }
    for amp in (None, "bf16"):
        for contender in gpu_steps.contenders(gpu_steps.SMALL, amp):
            if contender.mode is None and not contender.config.cuda_graph:
                assert callable(READY(gpu_steps.SMALL, contender, "cpu", amp))


READY = gpu_steps.ready


def test_exponents_are_fitted_to_the_large_sizes() -> None:
    rows = [
        {
            "axis": axis,
            "value": n,
            "logits": 40 * n,
            "contender": "gankernels",
            "median_us": 10.0 if n < 1000 else float(n) ** 1.5,
        }
        for axis in ("rows", "classes")
        for n in (1, 10, 100, 10_000, 100_000)
    ]
    assert scaling.slopes(rows) == {"rows, gankernels": 1.5, "classes, gankernels": 1.5}


def test_every_stage_of_a_call_runs() -> None:
    for call in dispatch.stages().values():
        call()
