"""Pictures of every mode and size, in folders and from torchvision."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from gankernels.training import data
from gankernels.training.data import pictures
from gankernels.training.data.sources import Shape

RNG = np.random.default_rng(0)


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(array, dtype=np.uint8))
    (picture.convert(mode) if mode else picture).save(path)


def test_folder_reads_every_mode_of_picture(tmp_path):
    grey = RNG.integers(0, 256, (6, 6), dtype=np.uint8)
    colour = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    clear = np.dstack([colour, np.full((6, 6), 255)])
    clear[0, 0, 3] = 0
    save(tmp_path / "a.png", grey)
    save(tmp_path / "b.png", colour)
    save(tmp_path / "c.png", clear)
    quantised = Image.fromarray(colour).quantize(16)
    quantised.save(tmp_path / "d.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "e.png")
    save(tmp_path / "f.PNG", (grey > 127) * 255, "1")
    (tmp_path / "notes.txt").write_text("no picture")
    found = data.load(f"folder:{tmp_path}")
    assert found.images.shape == (6, 3, 6, 6)
    assert (found.labels, found.name) == (None, tmp_path.name)
    images = found.images.permute(0, 2, 3, 1).numpy()
    assert (images[0] == grey[:, :, None]).all()
    assert (images[1] == colour).all()
    assert images[2][0, 0].tolist() == [255, 255, 255]  # transparent becomes white
    assert (images[2][1:] == colour[1:]).all()
    assert (images[3] == np.asarray(quantised.convert("RGB"))).all()
    assert (images[4] == grey[:, :, None]).all()  # 16 bits, not clipped at 255
    assert (images[5] == (grey > 127)[:, :, None] * 255).all()


def test_folder_reads_jpeg_and_turns_it_upright(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 16)[None, :, None], (16, 1, 3))
    exif = Image.Exif()
    exif[274] = 3  # turned by half a circle
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    image = data.load(f"folder:{tmp_path}").images[0].float().mean((0, 1))
    assert (image - torch.linspace(255, 0, 16)).abs().max() < 6


def test_folder_crops_the_centre_before_it_resizes(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    save(tmp_path / "wide.png", wide)
    save(tmp_path / "tall.png", wide.T)
    images = data.load(f"folder:{tmp_path}", image_size=8).images
    assert images.shape == (2, 1, 8, 8)
    assert (images == 200).all()
    assert (data.load(f"folder:{tmp_path}").images == 200).all()


def test_folder_labels_by_top_subfolder_only_where_every_image_has_one(tmp_path):
    for at, name in enumerate(("b/x.png", "a/deep/y.png", "b/z.png", "a/.hidden.png")):
        save(tmp_path / name, np.full((4, 4), at))
    found = data.load(f"folder:{tmp_path}")
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.images[:, 0, 0, 0].tolist() == [1, 0, 2]
    save(tmp_path / "loose.png", np.zeros((4, 4)))
    assert data.load(f"folder:{tmp_path}").labels is None


def test_folder_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match=r"no images; expected files ending in .*\.png"):
        data.load(f"folder:{tmp_path}")
    save(tmp_path / "a.png", np.zeros((4, 4)))
    save(tmp_path / "b.png", np.zeros((5, 5)))
    with pytest.raises(ValueError, match=r"b\.png: 5x5 pixels.*expected 4x4.*image_size"):
        data.load(f"folder:{tmp_path}")
    noise = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    for name in ("b.png", "b.jpg"):
        save(tmp_path / name, noise)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=rf"b\.{name[2:]}: expected an image"):
            data.load(f"folder:{tmp_path}", image_size=4)
        (tmp_path / name).unlink()
    (tmp_path / "c.png").write_text("text")
    with pytest.raises(ValueError, match=r"c\.png: expected an image"):
        data.load(f"folder:{tmp_path}")


def test_channels_and_size_round_once(tmp_path):
    colour = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    save(tmp_path / "a.png", colour)
    luma = torch.from_numpy(colour @ np.array([0.299, 0.587, 0.114]))[None, None]
    half = torch.nn.functional.interpolate(luma, (32, 32), mode="bilinear", antialias=True)
    for size, exact in ((None, luma), (32, half)):
        found = data.load(f"folder:{tmp_path}", channels=1, image_size=size).images
        # A value near one half may round either way in float32; a second rounding adds far more.
        assert (found.double() - exact).abs().max() <= 0.5 + 1e-3
    three = data.load("digits", channels=3).images
    assert three.shape == (1797, 3, 8, 8)
    assert (three == data.load("digits").images).all()


def test_antialiasing_keeps_the_mean_of_a_fine_pattern(tmp_path):
    board = np.indices((32, 32)).sum(0) % 2 * 255
    save(tmp_path / "a.png", board)
    image = data.load(f"folder:{tmp_path}", image_size=8).images.float()
    assert (image[..., 1:-1, 1:-1] - 127.5).abs().max() < 3


def test_many_images_are_resized_in_blocks(monkeypatch):
    images = torch.from_numpy(RNG.integers(0, 256, (10, 3, 6, 6), dtype=np.uint8))
    whole = pictures.fit(images, Shape(4, 1))
    monkeypatch.setattr(pictures, "_BLOCK", 3)
    assert torch.equal(pictures.fit(images, Shape(4, 1)), whole)
    assert whole.shape == (10, 1, 4, 4)


class FakeVision:
    """A data set with torchvision's interface."""

    classes = ("zero", "one")

    def __init__(self, root, train=True, transform=None, download=False):
        assert download
        self.root, self.train = root, train

    def __len__(self):
        return 3

    def __getitem__(self, index):
        picture = Image.fromarray(np.full((4, 6), 10 * index + self.train, np.uint8))
        return picture, index % 2


def test_torchvision_data_sets_are_read_through_their_interface(tmp_path, monkeypatch):
    made = []
    module = types.ModuleType("torchvision")
    module.datasets = types.SimpleNamespace(
        Fake=lambda root, train=True, download=False: (
            made.append(root) or FakeVision(root, train, download=download)
        )
    )
    monkeypatch.setitem(sys.modules, "torchvision", module)
    found = data.load(f"torchvision:Fake:{tmp_path}", train=False)
    assert made == [str(tmp_path)]
    assert found.images[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert found.images.shape == (3, 1, 4, 4)
    assert (found.labels.tolist(), found.classes) == ([0, 1, 0], ("zero", "one"))
    with pytest.raises(ValueError, match="no data set 'Nothing'"):
        data.load("torchvision:Nothing")


def test_torchvision_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="'torchvision:MNIST' need torchvision"):
        data.load("torchvision:MNIST")
