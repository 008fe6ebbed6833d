"""The benchmark programs: what they time is right, and what they print is what they measured."""

from __future__ import annotations

import functools
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gankernels as gk
from benchmarks import (
    accuracy,
    dispatch,
    gpu,
    gpu_steps,
    losses,
    quality,
    scaling,
    steps,
    toy_modes,
)
from benchmarks.timing import Measurement, interleaved, paired_ratio
from gankernels.training import ImageData


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
    made = (
        gpu.realness_d(8, 20, "fp32", "cpu"),
        gpu.logistic_d((8,), "bf16", "cpu"),
        gpu.js_divergence(8, 20, "fp32", "cpu"),
    )
    for case in made:
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


def test_quality_goes_on_where_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "SAMPLES", 60)
    names = {
        "pairing": quality.LOSSES["pairing"],
        "realness": quality.LOSSES["realness, objective 2"],
    }
    monkeypatch.setattr(quality, "LOSSES", names)
    monkeypatch.setattr(quality, "PENALTIES", {"R1 + R2": 1.0})
    labels = torch.arange(200) % 10
    pixels = torch.randint(256, (200, 1, 28, 28)).byte()
    images = ImageData(pixels, labels, "noise", tuple(map(str, range(10))))
    monkeypatch.setattr(quality.data, "load", lambda *_, **__: images)
    brief = functools.partial(quality.evaluation.train_feature_network, steps=2)
    monkeypatch.setattr(quality.evaluation, "train_feature_network", brief)
    made = quality.config_of
    monkeypatch.setattr(quality, "config_of", lambda *cell: made(*cell).but(batch_size=8))
    measure = quality.measure

    def stops(cell: dict[str, object], *rest: object) -> dict[str, object]:
        if cell["loss"] == "realness":
            raise KeyboardInterrupt
        return measure(cell, *rest)

    monkeypatch.setattr(quality, "measure", stops)
    arguments = ["--steps", "1", "--seeds", "3", "--out", str(tmp_path / "q.json")]
    with pytest.raises(KeyboardInterrupt):
        quality.main(arguments)
    first = json.loads((tmp_path / "q.json").read_text())["rows"]
    assert [(r["loss"], r["seed"]) for r in first] == [("pairing", 3)]
    monkeypatch.setattr(quality, "measure", measure)
    quality.main(arguments)
    rows = json.loads((tmp_path / "q.json").read_text())["rows"]
    assert rows[0] == first[0]
    assert [r["loss"] for r in rows] == ["pairing", "realness"]
    assert all(math.isfinite(r["frechet_distance"]) for r in rows)
    with Image.open(tmp_path / "q.png") as sheet:  # both cells, the first still there
        rows_of_pixels = np.asarray(sheet).reshape(2, 28, 12 * 28 * 3)
    assert (rows_of_pixels.std((1, 2)) > 0).all()
    assert "| pairing | R1 + R2 | 1 |" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has cells of another experiment"):
        quality.main([*arguments, "--steps", "3"])
    failed = {"loss": "pairing", "penalty": "R1 + R2", "failed": "d_loss is nan"}
    assert "| pairing | R1 + R2 | 2, 1 not finite |" in quality.table([rows[0], failed])


def test_new_results_of_the_mixture_leave_the_others_and_their_sources() -> None:
    old_source = {"configurations": {"standard": {}, "article": {}}, "seeds": [0, 1]}
    record = {"iterations": 9, "modes_recovered": 3, "high_quality_share": 0.5}
    old = [{"contestant": n, "seed": s, **record} for n in ("standard", "article") for s in (0, 1)]
    source = {"configurations": {"standard": {}}, "seeds": [0, 1]}
    new = [{**r, "modes_recovered": 9} for r in old[:2]]
    found = toy_modes.merged({"sources": [old_source], "records": old}, source, new)
    assert found["records"] == old[2:] + new
    assert found["sources"] == [old_source, source]
    again = toy_modes.merged(found, old_source, old)
    assert again["sources"] == [old_source]
    lines = toy_modes.table(found["records"]).splitlines()[2:]
    assert ["| 9.0 ± 0.0 |" in line for line in lines] == [False, True]


def test_errors_are_counted_in_units_of_the_last_place() -> None:
    exact = torch.tensor([1.5, 0.25], dtype=torch.float64)
    eps = torch.finfo(torch.float32).eps
    assert accuracy.unit(exact, torch.float32) == eps
    errors = accuracy.Errors()
    errors.add(torch.tensor([1.5 + eps, 0.25 - 3 * eps]), exact)
    assert errors.row() == {"worst": 3.0, "mean": 2.0}


def test_what_is_no_number_is_an_infinite_error_unless_it_must_be_one() -> None:
    exact = torch.tensor([1.0, 1e6], dtype=torch.float64)
    errors = accuracy.Errors()
    errors.add(torch.tensor([1.0, torch.inf], dtype=torch.float16), exact)
    assert errors.worst == 0
    errors.add(torch.tensor([torch.nan, torch.inf], dtype=torch.float16), exact)
    assert errors.worst == float("inf")
