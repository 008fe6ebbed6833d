"""What the plots of losses draw, from tensors and from the folder of a run."""

from __future__ import annotations

import itertools
import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

import gankernels as gk
from gankernels import plots

REAL, FAKE = torch.tensor([0.0, 0.25, 0.75]), torch.tensor([0.5, 0.5, 0.0])


def heights(axis, which):
    return [bar.get_height() for bar in axis.containers[which]]


def write_run(folder: Path) -> Path:
    drawn = {"real_distribution": [0.2, 0.3, 0.5], "fake_distribution": [0.5, 0.3, 0.2]}
    anchors = {"real_anchor": REAL.tolist(), "fake_anchor": FAKE.tolist()}
    losses = {"d_loss": 1.0, "g_loss": 2.0}
    first = {"step": 5, "real_distribution": [1.0, 0.0, 0.0], "fake_distribution": [0.0, 1.0, 0.0]}
    lines = [
        first | {"real_anchor": [1.0, 0.0, 0.0]},
        {"step": 10},
        {"step": 20, **drawn, **anchors, **losses},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_anchors_of_tensors_a_loss_and_a_run(tmp_path: Path) -> None:
    loss = gk.RealnessLoss(REAL, FAKE)
    for source in ((REAL, FAKE), loss, write_run(tmp_path), str(tmp_path)):
        axis = plots.anchors(source, before=(FAKE, REAL), low=-2, high=2).axes[0]
        assert heights(axis, 0) == pytest.approx(REAL.tolist())
        assert heights(axis, 1) == pytest.approx(FAKE.tolist())
        divergence = gk.js_divergence(REAL.log()[None], FAKE.log()[None])
        assert (
            axis.get_title() == f"JS divergence {float(divergence):.3f} nat; means +1.50 and -1.00"
        )
        assert axis.get_lines()[0].get_xdata() == pytest.approx([1.5, 1.5])
        assert axis.get_lines()[2].get_ydata().tolist() == pytest.approx(FAKE.tolist())


def test_realness_of_logits_is_their_mean_distribution() -> None:
    real, fake = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]), torch.zeros(3, 2)
    axis = plots.realness((real.half(), fake)).axes[0]
    assert heights(axis, 0) == pytest.approx([0.375, 0.625], abs=1e-4)
    assert heights(axis, 1) == pytest.approx([0.5, 0.5])
    assert axis.get_title() == "D of 2 real and 3 fake samples"
    axes = plots.realness((real.expand(4, 2, 2), fake.expand(4, 3, 2))).axes
    assert axes[2].get_lines()[0].get_ydata().tolist() == pytest.approx([0.25] * 4)
    assert axes[2].get_lines()[1].get_ydata().tolist() == pytest.approx([0.0] * 4)


def test_realness_of_a_run_is_what_it_wrote(tmp_path: Path) -> None:
    axes = plots.realness(write_run(tmp_path)).axes
    for axis, last in zip(axes[:2], ([0.2, 0.3, 0.5], [0.5, 0.3, 0.2]), strict=True):
        map_of = axis.collections[0].get_array()
        assert map_of.shape == (3, 2)
        assert map_of[:, 1].tolist() == last
    real, fake = axes[2].get_lines()
    assert real.get_xdata().tolist() == [5, 20]
    assert real.get_ydata().tolist() == pytest.approx([-1.0, 0.3])
    assert fake.get_ydata().tolist() == pytest.approx([0.0, -0.3])


def test_gradients_are_those_of_the_losses() -> None:
    ours, clamped = plots.gradients(largest=100).axes[0].get_lines()
    gaps = torch.tensor(ours.get_xdata(), dtype=torch.float64)
    assert gaps[-1] == 100
    exact = torch.sigmoid(gaps)
    torch.testing.assert_close(torch.tensor(ours.get_ydata()).double(), exact, rtol=1e-6, atol=0)
    kept = torch.sigmoid(-gaps) / (torch.sigmoid(-gaps) + 1e-16)
    found = torch.tensor(clamped.get_ydata()).double()
    torch.testing.assert_close(found, exact * kept, rtol=2e-5, atol=1e-20)
    mine = plots.gradients({"mine": lambda logits, target: 3 * logits @ target}).axes[0].get_lines()
    assert [line.get_label() for line in mine] == ["mine"]
    assert set(mine[0].get_ydata()) == {3.0}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda _: plots.anchors((REAL, FAKE[:2])),
            "real_anchor and fake_anchor must have the same",
        ),
        (lambda _: plots.anchors((REAL[None], FAKE)), r"real_anchor must be \(K,\), got \(1, 3\)"),
        (
            lambda run: plots.anchors(run),
            "source must be a run with the realness loss, got .* without",
        ),
        (
            lambda run: plots.realness(run),
            "must have real_distribution and .*, got 1 records without",
        ),
        (
            lambda _: plots.realness((REAL, FAKE)),
            r"real_logits must be \(N, K\) or \(T, N, K\), got",
        ),
        (
            lambda _: plots.realness((torch.zeros(2, 3), torch.zeros(2, 4))),
            r"must agree but for N, got \(2, 3\) and \(2, 4\)",
        ),
        (lambda _: plots.gradients(largest=0), "largest must be positive, got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=message):
        draw(tmp_path)


@pytest.mark.parametrize("name", plots.__all__)
def test_a_picture_drawn_on_a_busy_machine_is_no_warning(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """matplotlib warns of a legend that it looked a second for; here each look at the clock takes two."""
    images, points, picture = torch.rand(2, 1, 8, 8), torch.rand(4, 2), tmp_path / "a.png"
    plots.save_grid(images, picture, value_range=(0, 1))
    drawn: dict[str, Callable[[], object]] = {
        "anchors": lambda: plots.anchors((REAL, FAKE), before=(FAKE, REAL)),
        "gradients": plots.gradients,
        "read_metrics": lambda: plots.read_metrics(write_run(tmp_path)),
        "realness": lambda: plots.realness(write_run(tmp_path)),
        "save_animation": lambda: plots.save_animation([picture], tmp_path / "a.gif"),
        "save_curves": lambda: plots.save_curves(write_run(tmp_path)),
        "save_grid": lambda: plots.save_grid(images, picture, value_range=(0, 1)),
        "save_samples": lambda: plots.save_samples(images, picture, value_range=(0, 1)),
        "save_scatter": lambda: plots.save_scatter(points, points, picture),
    }
    clock = SimpleNamespace(perf_counter=itertools.count(step=2).__next__)
    monkeypatch.setattr("matplotlib.legend.time", clock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = drawn[name]()
        if isinstance(made, Figure):
            made.savefig(tmp_path / "figure.png")


def test_without_matplotlib_the_plots_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    install = r'matplotlib is needed for this: pip install "gankernels\[train\]"'
    for draw in (lambda: plots.anchors((REAL, FAKE)), plots.gradients):
        with pytest.raises(ImportError, match=install):
            draw()
