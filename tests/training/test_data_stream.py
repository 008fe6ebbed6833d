"""A data set in memory, and the exact order of its batches."""

import numpy as np
import pytest
import torch

from gankernels.training.data import BatchStream, ImageData

RNG = np.random.default_rng(0)


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
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank must be below world_size 2, got 2"),
        ({"batch_size": 2, "value_range": (1.0, 1.0)}, "value_range"),
        ({"batch_size": 2, "flip": True}, "numbers holds points"),
    ],
)
def test_wrong_streams_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BatchStream(numbered(10), seed=0, **options)
