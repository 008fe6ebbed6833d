"""The report is parsed as HTML and must hold everything itself."""

import base64
import json
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from gankernels import plots
from gankernels.training.report import write_report

pytestmark = pytest.mark.usefixtures("drawn")

CONFIG = {
    "recipe": "dcgan",
    "loss": "<logistic> & more",
    "steps": 20,
    "learning_rate": 2e-4,
    "step": {"channels_last": True, "clip": None},
    "betas": [0.5, 0.9],
    "environment": {"torch": "2.x", "device": "cpu"},
}


class Page(HTMLParser):
    """Collects tags, links, text and table rows; fails on tags that do not nest."""

    VOID = frozenset(("meta", "img"))

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.headings, self.cells, self.images = [], [], [], [], []
        self.captions = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("src", "href", "srcset") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        place = self.open[-1] if self.open else None
        if place == "h2":
            self.headings.append(text)
        elif place in ("th", "td"):
            self.cells.append(text)
        elif place == "figcaption":
            self.captions.append(text)

    @property
    def rows(self):
        return dict(zip(self.cells[::2], self.cells[1::2], strict=True))


def level(image):
    """Decode a data URI and return the picture's middle pixel."""
    head, _, body = image["src"].partition(",")
    assert head in ("data:image/png;base64", "data:image/gif;base64")
    with Image.open(BytesIO(base64.b64decode(body, validate=True))) as picture:
        return np.asarray(picture.convert("L"))[picture.height // 2, picture.width // 2]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    records = [{"step": step, "d_loss": 1 / step, "g_loss": 2.0} for step in (10, 1200)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return tmp_path


def picture(path, shade):
    grey = torch.full((1, 1, 8, 8), shade, dtype=torch.uint8)
    return plots.save_grid(grey, path, value_range=(-1, 1))


def parsed(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    return Page(text)


def test_a_full_report_holds_everything_itself(run):
    picture(run / "final.png", 77)
    # In the order of the numbers, which is not that of the letters.
    grids = [
        picture(run / "samples" / f"step_{n}.png", s) for n, s in ((9, 10), (80, 20), (700, 30))
    ]
    plots.save_animation(grids, run / "samples.gif")
    (run / "evaluation.json").write_text('{"precision": 0.5, "class_histogram": {"0": 7}}')
    path = write_report(run)
    assert path == run / "report.html"
    page = parsed(path)
    assert page.headings == [
        "Samples",
        "Training",
        "Evaluation",
        "Final metrics",
        "Configuration",
        "Environment",
    ]
    assert all(link.startswith("data:image/") for link in page.links)
    assert len(page.links) == 5
    assert [level(image) for image in page.images[:3]] == [77, 10, 30]
    assert page.captions[1:3] == ["First samples: step_9", "Last samples: step_700"]
    assert page.images[3]["src"].startswith("data:image/gif")
    rows = page.rows
    assert (rows["precision"], rows["class_histogram.0"]) == ("0.5", "7")
    assert rows["step"] == "1200"
    assert rows["d_loss"] == "0.000833333"
    assert (rows["learning_rate"], rows["betas"]) == ("0.0002", "[0.5, 0.9]")
    assert (rows["step.channels_last"], rows["step.clip"]) == ("true", "null")
    assert (
        rows["loss"] == "<logistic> & more"
    )  # escaped in the file, or the parser would not see it
    assert rows["device"] == "cpu"
    for outside in ("http:", "https:", "url(", "@import", "<script"):
        assert outside not in path.read_text()


def test_a_realness_run_shows_its_distributions_and_anchors(run):
    masses = {f"{who}_distribution": [0.5, 0.5] for who in ("real", "fake")}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1300, **masses}) + "\n")
    page = parsed(write_report(run))
    assert page.headings[:2] == ["Training", "Realness"]
    assert [c.split()[0] for c in page.captions[1:]] == ["Mean"]
    assert "real_distribution" not in page.cells
    with (run / "metrics.jsonl").open("a") as file:
        anchors = {"real_anchor": [0.0, 1.0], "fake_anchor": [1.0, 0.0]}
        file.write(json.dumps({"step": 1400, **masses, **anchors}) + "\n")
    page = parsed(write_report(run))
    assert [c.split()[0] for c in page.captions[1:]] == ["Mean", "Anchors"]
    assert [level(image) for image in page.images[1:]] != [255, 255]


def test_a_bare_report_leaves_out_what_is_not_there(run):
    config = {name: value for name, value in CONFIG.items() if name != "environment"}
    (run / "config.json").write_text(json.dumps(config))
    page = parsed(write_report(run))
    assert page.headings == ["Training", "Final metrics", "Configuration"]
    assert len(page.images) == 1


def test_a_picture_is_shown_once(run):
    picture(run / "samples" / "step_5.png", 44)
    page = parsed(write_report(run))
    assert [level(image) for image in page.images[:-1]] == [44]
    for path in (run / "samples" / "step_6.png", run / "final.png"):
        picture(path, 55)
    page = parsed(write_report(run))
    assert [level(image) for image in page.images[:-1]] == [55, 44]


def test_curves_are_drawn_anew(run):
    picture(run / "curves.png", 3)
    page = parsed(write_report(run))
    with Image.open(BytesIO(base64.b64decode(page.links[-1].partition(",")[2]))) as curves:
        assert curves.size[0] == 960


def test_names_that_look_like_html_stay_text(run):
    odd = run / "a<b>&c"
    odd.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (odd / name).write_text((run / name).read_text())
    picture(odd / "samples" / "step_0000009.png", 9)
    picture(odd / "samples" / "<img src=x>.png", 9)  # not the run's: it stays out
    page = parsed(write_report(odd))
    assert page.captions[0] == "First samples: step_0000009"
    assert len(page.images) == 2
    assert "a<b>&c" not in (odd / "report.html").read_text()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}: no such file; expected"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["config.json", "evaluation.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_corrupt_file_is_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: expected a JSON object"):
        write_report(run)
