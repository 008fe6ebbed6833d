"""Pictures are opened again and their pixels compared."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gankernels import _files, plots

pytestmark = pytest.mark.usefixtures("drawn")


def opened(path):
    with Image.open(path) as picture:
        picture.load()
        return np.asarray(picture)


def write_metrics(folder, records, tail=""):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines + tail)


# ---------------------------------------------------------------------------------------- grids


def test_grid_puts_every_pixel_where_it_belongs(tmp_path):
    images = torch.randint(0, 256, (5, 3, 70, 90), dtype=torch.uint8)
    path = plots.save_grid(images, tmp_path / "new" / "a.png", value_range=(-1, 1), columns=3)
    found = opened(path)
    assert found.shape == (2 * 72 + 2, 3 * 92 + 2, 3)
    expected = np.full_like(found, 255)
    for index, image in enumerate(images):
        top, left = 2 + index // 3 * 72, 2 + index % 3 * 92
        expected[top : top + 70, left : left + 90] = image.permute(1, 2, 0).numpy()
    assert (found == expected).all()
    assert os.listdir(path.parent) == ["a.png"]


@pytest.mark.parametrize(("size", "factor"), [(8, 8), (28, 3), (32, 2), (63, 2), (64, 1)])
def test_small_images_are_enlarged_by_whole_factors(tmp_path, size, factor):
    image = torch.randint(0, 256, (1, 1, size, size), dtype=torch.uint8)
    found = opened(plots.save_grid(image, tmp_path / "a.png", value_range=(-1, 1)))
    assert found.shape == (size * factor + 4, size * factor + 4)
    assert (found[2:-2, 2:-2] == np.kron(image[0, 0], np.ones((factor, factor)))).all()


def test_grid_maps_the_value_range_and_bears_with_what_is_beyond(tmp_path):
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0, -5.0, float("nan"), float("inf"), -float("inf")])
    image = values.view(1, 1, 1, 8).expand(1, 1, 64, 8).requires_grad_()
    found = opened(plots.save_grid(image, tmp_path / "a.png", value_range=(-1, 1)))
    assert found[2, 2:-2].tolist() == [0, 128, 255, 255, 0, 0, 255, 0]
    half = opened(plots.save_grid(image, tmp_path / "a.png", value_range=(0, 2)))
    assert half[2, 2:-2].tolist() == [0, 0, 128, 255, 0, 0, 255, 0]


def test_uint8_images_become_the_pixels_of_their_floats(tmp_path):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = levels.float() / 255 * 2 - 1
    first = opened(plots.save_grid(levels, tmp_path / "a.png", value_range=(-1, 1)))
    second = opened(plots.save_grid(floats, tmp_path / "b.png", value_range=(-1, 1)))
    assert (first == second).all()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 2, 8, 8), {}, r"images must be \(N, 1 or 3, H, W\), got \(2, 2, 8, 8\)"),
        ((3, 8, 8), {}, "images must be"),
        ((0, 1, 8, 8), {}, "images must be"),
        ((2, 1, 8, 8), {"columns": 0}, "columns"),
        ((2, 1, 8, 8), {"value_range": (1, 1)}, "value_range"),
    ],
)
def test_grid_refuses_what_is_no_picture(tmp_path, shape, options, message):
    with pytest.raises(ValueError, match=message):
        plots.save_grid(
            torch.zeros(shape), tmp_path / "a.png", **{"value_range": (-1, 1)} | options
        )
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _files.write_whole(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]


# ------------------------------------------------------------------------------------ animation


def frames(folder, levels, size=(8, 8)):
    paths = [folder / f"{at:02}.png" for at in range(len(levels))]
    for path, level in zip(paths, levels, strict=True):
        Image.new("L", size, level).save(path)
    return paths


def test_animation_has_every_frame_in_order_and_rests_on_the_last(tmp_path):
    levels = [0, 100, 200, 50]
    path = plots.save_animation(frames(tmp_path, levels), tmp_path / "a.gif", milliseconds=100)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.info["loop"]) == (4, 0)
        for at, level in enumerate(levels):
            picture.seek(at)
            assert abs(int(np.asarray(picture.convert("L"))[0, 0]) - level) <= 2
            assert picture.info["duration"] == (1000 if at == 3 else 100)


def test_animation_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="png_paths is empty"):
        plots.save_animation([], tmp_path / "a.gif")
    first, *_ = frames(tmp_path, [0])
    other = tmp_path / "other.png"
    Image.new("L", (9, 8)).save(other)
    with pytest.raises(ValueError, match=r"other\.png: expected \(8, 8\).*got \(9, 8\)"):
        plots.save_animation([first, other], tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match="away"):
        plots.save_animation([tmp_path / "away.png"], tmp_path / "a.gif")


# -------------------------------------------------------------------------------------- metrics


def test_metrics_of_a_killed_and_resumed_run_are_put_in_order(tmp_path):
    records = [{"step": step, "d_loss": float(step)} for step in (10, 30, 20, 20)]
    records[3]["d_loss"] = -1.0  # steps 20 and 30 in another order, and the second 20 counts
    write_metrics(tmp_path, records, tail='{"step": 40, "d_l')
    found = plots.read_metrics(tmp_path)
    assert found == [
        {"step": 10, "d_loss": 10.0},
        {"step": 20, "d_loss": -1.0},
        {"step": 30, "d_loss": 30.0},
    ]
    write_metrics(tmp_path, records[:1], tail='{"step": 40, "d_loss": 4.0}')
    assert [record["step"] for record in plots.read_metrics(tmp_path)] == [10, 40]


def test_metrics_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        plots.read_metrics(tmp_path)
    write_metrics(tmp_path, [], tail='{"step": 1')
    with pytest.raises(ValueError, match="no metrics in it"):
        plots.read_metrics(tmp_path)
    for bad in ("{", "[1]", '{"d_loss": 1}', '{"step": "x"}'):
        write_metrics(tmp_path, [{"step": 1}], tail=bad + "\n")
        with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
            plots.read_metrics(tmp_path)


# --------------------------------------------------------------------------------------- curves


def test_curves_share_a_panel_by_quantity(tmp_path):
    names = ["seconds", "real_score", "rate", "d_loss", "fake_score", "g_loss", "recipe", "done"]
    values = [1.0, 0.5, 2, 1.0, -0.5, 2.0, "grl", True]
    panels = plots.runs._panels([{"step": 1}, {"step": 2, **dict(zip(names, values, strict=True))}])
    assert panels == {
        "loss": ["d_loss", "g_loss"],
        "score": ["real_score", "fake_score"],
        "rate": ["rate"],
    }


def test_curves_draw_the_values_of_each_step(tmp_path, monkeypatch):
    write_metrics(
        tmp_path,
        [
            {"step": 1, "d_loss": 1.0, "g_loss": 3.0},
            {"step": 2, "d_loss": 0.9, "g_loss": 2.0},
            {"step": 3, "d_loss": float("nan"), "g_loss": 1.0, "fid": 9.0},
        ],
    )
    made = []
    figure_of = plots.canvas.figure

    def remember(*size):
        made.append(figure_of(*size))
        return made[-1]

    monkeypatch.setattr(plots.canvas, "figure", remember)
    path = plots.save_curves(tmp_path)
    loss, fid = made[0].axes
    lines = {line.get_label(): line for line in loss.get_lines()}
    assert lines["g_loss"].get_xdata().tolist() == [1, 2, 3]
    assert lines["g_loss"].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert lines["d_loss"].get_ydata()[:2].tolist() == [1.0, 0.9]
    assert np.isnan(lines["d_loss"].get_ydata()[2])
    assert (fid.get_ylabel(), fid.get_xlabel()) == ("fid", "step")
    assert fid.get_lines()[0].get_marker() == "."  # one point, which a line would not show
    found = opened(path)
    assert path == tmp_path / "curves.png"
    assert found.shape[:2] == (624, 960)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two
        assert (np.abs(found[..., :3].astype(int) - colour).max(2) < 8).sum() > 100


def test_curves_need_a_number(tmp_path):
    write_metrics(tmp_path, [{"step": 1, "note": "x"}])
    with pytest.raises(ValueError, match="no numbers"):
        plots.save_curves(tmp_path)


@pytest.mark.processes
def test_plots_leave_pyplot_alone(tmp_path):
    """In a fresh process, so that no other test has imported pyplot."""
    write_metrics(tmp_path, [{"step": 1, "d_loss": 1.0}, {"step": 2, "d_loss": 1.0}])
    code = (
        "import sys, torch; from gankernels import plots\n"
        "assert 'matplotlib' not in sys.modules, 'imported before it is needed'\n"
        f"plots.save_curves({str(tmp_path)!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -------------------------------------------------------------------------------------- scatter


def test_scatter_counts_points_outside_and_draws_the_others(tmp_path, monkeypatch):
    titles = []
    figure_of = plots.canvas.figure

    def remember(*size):
        figure = figure_of(*size)
        titles.append(figure)
        return figure

    monkeypatch.setattr(plots.canvas, "figure", remember)
    points = torch.tensor([[0.0, 0.0], [1.0, 3.4], [1.0, 3.6], [float("nan"), 0.0], [-9.0, 0.0]])
    centres = torch.tensor([[-2.0, -2.0], [2.0, 2.0]])
    path = plots.save_scatter(points, centres, tmp_path / "a.png")
    axis = titles[0].axes[0]
    assert axis.get_title() == "5 points, 3 outside the frame"
    assert (*axis.get_xlim(), *axis.get_ylim()) == (-3.5, 3.5, -3.5, 3.5)
    drawn = axis.collections[0].get_offsets()
    assert drawn[1].tolist() == pytest.approx([1.0, 3.4])
    assert opened(path).shape[:2] == (600, 600)


@pytest.mark.parametrize("shapes", [((4, 3), (2, 2)), ((4, 2), (2, 3)), ((0, 2), (2, 2))])
def test_scatter_refuses_other_shapes(tmp_path, shapes):
    points, centres = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"(points|centres) must be \(N, 2\)"):
        plots.save_scatter(points, centres, tmp_path / "a.png")
