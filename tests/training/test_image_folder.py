"""Folders of images as people have them: links, hidden files, odd suffixes, odd pixels, odd channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gankernels import plots
from gankernels.training import ImageData, configuration, data, evaluation
from gankernels.training.cli import main
from gankernels.training.data import packages, pictures
from gankernels.training.data.image_folder import find_images, suffixes
from gankernels.training.data.sources import Shape
from gankernels.training.loop import train


def picture(path: Path, value: int = 128, mode: str = "L", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (8, 8), value).save(path, **options)
    return path


@pytest.mark.parametrize("linked", [("a",), ("a", "b")], ids=["one of two", "all"])
def test_linked_class_folders_are_followed(tmp_path: Path, linked: tuple[str, ...]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        place = (tmp_path / "elsewhere" if name in linked else root) / name
        picture(place / "1.png")
        if name in linked:
            (root / name).symlink_to(place, target_is_directory=True)
    found = data.load(f"folder:{root}")
    assert found.classes == ("a", "b")
    assert found.summary == f"{root}: 2 images in 2 classes (a 1, b 1)"


def test_a_ring_of_links_is_an_error(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="links lead round in a ring"):
        data.load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints/1.png",
        ".Trash-1000/files/1.png",
        ".git/1.png",
        "a/.thumbnails/1.png",
        "a/.1.png",
    ],
)
def test_what_is_hidden_below_the_root_is_skipped(tmp_path: Path, hidden: str) -> None:
    root = tmp_path / ".cache" / "images"  # above the root nothing is skipped
    picture(root / "a" / "2.png")
    picture(root / hidden)
    listing = find_images(root)
    assert [path.name for path in listing.images] == ["2.png"]
    assert listing.skipped == {"hidden": 1}
    assert data.load(f"folder:{root}").classes == ("a",)


def test_every_suffix_that_pillow_reads_is_taken(tmp_path: Path) -> None:
    known = suffixes()
    assert {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp"} <= known
    assert ".pdf" not in known
    picture(tmp_path / "1.png")
    Image.new("L", (8, 8)).save(tmp_path / "2.jfif", format="JPEG")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = data.load(f"folder:{tmp_path}")
    assert len(found) == 2
    assert found.summary.endswith("2 images; skipped 1 files ending in .txt, 1 links to nothing")


def test_the_command_line_says_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        picture(tmp_path / "images" / "a" / f"{number}.png")
    command = f"train grl --data folder:{tmp_path}/images --steps 1 --batch-size 4 --samples 4"
    command += f" --out {tmp_path}/run"
    assert main(command.split()) == 0
    assert "4 images in 1 classes (a 4)" in capsys.readouterr().out
    assert main([*command.split()[:-1], f"{tmp_path}/quiet", "--quiet"]) == 0
    assert "images in" not in capsys.readouterr().out


def idx_files(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(count * 28 * 28, dtype=np.uint8)
    head = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
    (folder / "train-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    labels = bytes((0, 0, 8, 1)) + count.to_bytes(4, "big") + bytes(range(count))
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)


TORCHVISION = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("place", ["", "raw", "torchvision"])
def test_idx_files_where_torchvision_keeps_them(tmp_path: Path, name: str, place: str) -> None:
    idx_files(tmp_path / (TORCHVISION[name] if place == "torchvision" else place), 2)
    assert len(data.load(f"{name}:{tmp_path}")) == 2


def test_two_sets_in_one_folder_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    for number, place in enumerate(TORCHVISION.values(), 1):
        idx_files(tmp_path / place, number)
    assert [len(data.load(f"{name}:{tmp_path}")) for name in TORCHVISION] == [1, 2]
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.load(f"mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("white", "tags", "expected"),
    [
        (65535, {}, 255),
        (4095, {}, 255),
        (2048, {281: 4095}, 128),
        (900, {281: 900}, 255),
        (32768, {}, 128),
    ],
)
def test_grey_of_more_than_eight_bits(
    tmp_path: Path, white: int, tags: dict[int, int], expected: int
) -> None:
    array = np.full((8, 8), white, np.uint16)
    Image.fromarray(array).save(tmp_path / "1.tiff", tiffinfo=tags)
    found = data.load(f"folder:{tmp_path}")
    assert int(found.images[0, 0, 0, 0]) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("tags", "white"),
    [
        ({258: (10,)}, 1023),
        ({258: 14}, 16383),
        ({281: (900,), 258: (16,)}, 900),
        ({258: (16,), 281: (65535,)}, None),
        ({}, None),
    ],
)
def test_the_white_of_a_tiff_by_its_tags(tags: dict[int, Any], white: int | None) -> None:
    assert pictures._tagged_white(tags) == white


def grey(*values: int) -> list[Image.Image]:
    return [Image.fromarray(np.full((8, 8), value, np.uint16)) for value in values]


@pytest.mark.parametrize("source", ["folder", "torchvision"])
@pytest.mark.parametrize(
    ("values", "expected"), [((4095, 1024), (255, 64)), ((32768, 4095), (128, 16))]
)
def test_pictures_of_one_source_have_one_white(
    source: str, values: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path
) -> None:
    """A dark picture of 16 bits is no bright one of 12."""
    if source == "folder":
        for number, image in enumerate(grey(*values)):
            image.save(tmp_path / f"{number}.tiff")
        tagged = Image.fromarray(np.full((8, 8), 900, np.uint16))
        tagged.save(tmp_path / "2.tiff", tiffinfo={281: 900})  # knows its own
        Image.new("L", (8, 8), 7).save(tmp_path / "3.png")
        found, expected = data.load(f"folder:{tmp_path}"), (*expected, 255, 7)
    else:
        pairs = [(image, 0) for image in grey(*values)]
        found = packages._from_torchvision("Mine", pairs, Shape(None, None))
    assert tuple(found.images[:, 0, 0, 0].tolist()) == expected


def test_the_summary_says_why_there_are_no_classes_and_which_folder_is_empty(
    tmp_path: Path,
) -> None:
    for name in ("cats/1.png", "dogs/1.png", "dogs/2.png"):
        picture(tmp_path / name)
    (tmp_path / "birds").mkdir()
    (tmp_path / ".hidden").mkdir()
    found = data.load(f"folder:{tmp_path}")
    expected = "3 images in 2 classes (cats 1, dogs 2); no images in birds; skipped 1 hidden"
    assert found.summary == f"{tmp_path}: {expected}"
    picture(tmp_path / "loose.png")
    found = data.load(f"folder:{tmp_path}")
    expected = "4 images; no classes, as 1 lie loose beside cats, dogs; no images in birds"
    assert found.summary == f"{tmp_path}: {expected}; skipped 1 hidden"
    assert found.labels is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode in ("CMYK", "I;16") else "png"
    picture(tmp_path / f"1.{suffix}", 0, mode)
    assert data.load(f"folder:{tmp_path}", image_size=4, channels=3).images.shape == (1, 3, 4, 4)


# ---- channels, coordinates and scores of a user's own data ---------------------------------------


class Net(nn.Sequential):
    """Noise to samples of any shape, or samples to five logits."""

    def __init__(self, inputs: int, shape: tuple[int, ...]) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(inputs, int(np.prod(shape))), nn.Unflatten(1, shape)
        )


@pytest.mark.parametrize(
    "shape", [(1, 4, 4), (2, 4, 4), (3, 4, 4), (4, 4, 4), (7, 4, 4), (1,), (2,), (5,)]
)
def test_any_number_of_channels_and_coordinates(tmp_path: Path, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    images = torch.zeros(8, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)
    config = configuration("toy", steps=1, batch_size=8, samples=4, noise_dim=3)
    parts = {"generator": Net(3, shape), "discriminator": Net(size, (5,))}
    train(config, tmp_path, **parts, image_data=ImageData(images), progress=False)
    assert (tmp_path / "final.png").exists()
    assert "modes_recovered" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_generator_that_does_not_fit_the_data_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    config = configuration("grl", steps=1, batch_size=4, samples=4, image_size=8)
    images = ImageData(torch.zeros(4, 4, 8, 8, dtype=torch.uint8), name="mine")
    with pytest.raises(
        ValueError, match=r"samples of shape \(1, 8, 8\), and mine has .* \(4, 8, 8\)"
    ):
        train(config, tmp_path, image_data=images, progress=False)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_only_the_built_in_mixture_is_scored_against_its_centres() -> None:
    ring = torch.linspace(0, 6.28, 8)
    points = ImageData(torch.stack([ring.cos(), ring.sin()], 1), name="gaussians")

    def draw(count: int) -> Tensor:
        return torch.zeros(count, 2)

    with pytest.raises(ValueError, match="holds points"):
        evaluation.evaluate_run(draw, points, 10, "cpu", value_range=(0, 1), seed=0)
    built_in = data.load("gaussians")
    scores = evaluation.evaluate_run(draw, built_in, 10, "cpu", value_range=(0, 1), seed=0)
    assert scores["modes_recovered"] == 1


def test_points_without_centres_are_drawn(tmp_path: Path) -> None:
    points = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])
    for samples in (points, points[:, :1], torch.full((2, 3), float("inf"))):
        path = plots.save_samples(samples, tmp_path / "a.png", value_range=(0, 1))
        assert path.stat().st_size > 1000
    with pytest.raises(ValueError, match=r"samples must be images .* got \(2, 3, 4\)"):
        plots.save_samples(torch.zeros(2, 3, 4), tmp_path / "a.png", value_range=(0, 1))
