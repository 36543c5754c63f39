"""Splits in memory: order, shuffling, augmentation, normalisation, sharing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.data import Augmentation, TensorSplit, channel_statistics, share_of, shrunk, tensor_splits

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, size: int = 4) -> TensorSplit:
    """Image i and label i are all i; not normalised."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, size, size, 1)
    return TensorSplit(images, torch.arange(count), (0.0,), (1.0,))


def test_without_a_generator_all_images_come_in_order() -> None:
    batches = list(numbered(10).batches(4, None, None, CPU))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    images, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    assert labels.tolist() == list(range(10))
    assert (images == labels[:, None, None, None]).all()


def test_images_are_float32_channels_last_and_labels_int64() -> None:
    split = TensorSplit(torch.zeros(6, 5, 4, 3, dtype=torch.uint8), torch.zeros(6, dtype=torch.uint8), [0] * 3, [1] * 3)
    images, labels = next(split.batches(2, seeded(), Augmentation(1, True, 2), CPU))
    assert images.shape == (2, 3, 5, 4) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64


def test_normalised_by_channel() -> None:
    pixels = torch.tensor([[10.0, 200.0], [30.0, 240.0]]).reshape(1, 1, 2, 2)
    split = TensorSplit(pixels, torch.zeros(1), (20.0, 220.0), (10.0, 40.0))
    images, _ = next(split.batches(1, None, None, CPU))
    assert torch.allclose(images, torch.tensor([[[[-1.0, 1.0]], [[-0.5, 0.5]]]]))


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_shuffled_batches_are_full_unless_there_is_only_one(count: int, batch: int, seed: int) -> None:
    labels = [y.tolist() for _, y in numbered(count).batches(batch, seeded(seed), None, CPU)]
    flat = [label for part in labels for label in part]
    assert len(set(flat)) == len(flat)
    if count < batch:
        assert labels == [flat] and sorted(flat) == list(range(count))
    else:
        assert {len(part) for part in labels} == {batch} and len(labels) == count // batch


def test_the_generator_alone_decides() -> None:
    split, augment = numbered(50, size=8), Augmentation(2, True, 3)
    first = list(split.batches(16, seeded(1), augment, CPU))
    torch.manual_seed(99)
    again = list(split.batches(16, seeded(1), augment, CPU))
    other = list(split.batches(16, seeded(2), augment, CPU))
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, again, strict=True))
    assert not all(torch.equal(b, d) for (_, b), (_, d) in zip(first, other, strict=True))


def test_epochs_of_one_generator_differ() -> None:
    split, generator = numbered(50), seeded()
    first, second = (torch.cat([y for _, y in split.batches(50, generator, None, CPU)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) and not torch.equal(first, second)


def test_augmentation_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="generator"):
        next(numbered(4).batches(2, None, Augmentation(flip=True), CPU))
    with pytest.raises(ValueError, match="at least one"):
        next(numbered(4).batches(0, None, None, CPU))


def test_malformed_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="images"):
        TensorSplit(torch.zeros(2, 3, 4, 1), torch.zeros(3), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="1 channels, but 2 means"):
        TensorSplit(torch.zeros(2, 3, 4, 1), torch.zeros(2), (0.0, 0.0), (1.0,))


def test_parts_of_parts_share_the_images() -> None:
    split = numbered(10)
    piece = split.part([8, 2, 4]).part(np.array([2, 0]))
    assert piece.size == 2 and piece.labels.tolist() == [4, 8]
    assert next(piece.batches(2, None, None, CPU))[0][:, 0, 0, 0].tolist() == [4.0, 8.0]
    assert piece._source is split._source
    assert split.part(torch.tensor([], dtype=torch.int64)).size == 0


def test_images_that_do_not_fit_travel_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_core.data.RESIDENT_BYTES", 10)
    split, meta = numbered(10), torch.device("meta")
    images, labels, mean, _ = split._source.on(meta)
    assert images.device == labels.device == CPU and mean.device == meta


def test_resident_images_are_copied_to_a_device_once() -> None:
    split, meta = numbered(10), torch.device("meta")
    assert split._source.on(meta)[0].device == meta
    assert split.part([1])._source.on(meta)[0] is split._source.on(meta)[0]


def gradient(count: int, size: int) -> torch.Tensor:
    """(N, H, W, 1): every pixel of an image is another number, none of them 0."""
    return (torch.arange(size * size, dtype=torch.float32) + 1).reshape(1, size, size, 1).repeat(count, 1, 1, 1)


def test_crops_are_windows_of_the_padded_image_and_every_one_comes() -> None:
    images = gradient(400, 5)
    padded = torch.nn.functional.pad(images[0, ..., 0], (2, 2, 2, 2))
    windows = {tuple(padded[y : y + 5, x : x + 5].flatten().tolist()) for y in range(5) for x in range(5)}
    seen = {tuple(image.flatten().tolist()) for image in Augmentation(padding=2)(images, seeded())}
    assert seen == windows


def test_flips_mirror_columns_about_half_of_the_time() -> None:
    images = gradient(400, 4)
    flipped = (Augmentation(flip=True)(images, seeded()) == images.flip(2)).flatten(1).all(1)
    kept = (Augmentation(flip=True)(images, seeded()) == images).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 140 < flipped.sum() < 260


def test_flip_and_crop_together_are_a_crop_of_one_of_both() -> None:
    images = gradient(400, 4)
    windows = set()
    for image in (images[0, ..., 0], images[0, ..., 0].flip(1)):
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
        windows |= {tuple(padded[y : y + 4, x : x + 4].flatten().tolist()) for y in range(3) for x in range(3)}
    seen = {tuple(image.flatten().tolist()) for image in Augmentation(padding=1, flip=True)(images, seeded())}
    assert seen == windows


@given(side=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_cutout_zeroes_one_rectangle_of_at_most_its_side(side: int, seed: int) -> None:
    images = gradient(20, 6)
    cut = Augmentation(cutout=side)(images, seeded(seed))
    for before, after in zip(images, cut, strict=True):
        gone = (after == 0)[..., 0]
        rows, columns = gone.any(1).sum(), gone.any(0).sum()
        assert 1 <= rows <= min(side, 6) and 1 <= columns <= min(side, 6)
        assert gone.sum() == rows * columns
        assert torch.equal(before[~gone], after[~gone])


def test_an_augmentation_of_nothing_changes_nothing_and_draws_nothing() -> None:
    generator = seeded()
    state = generator.get_state()
    images = gradient(3, 4)
    assert torch.equal(Augmentation()(images, generator), images)
    assert torch.equal(generator.get_state(), state)


def test_channel_statistics_agree_with_numpy_over_pieces() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2500, 3, 2, 2), dtype=np.uint8)
    images[..., 1] = 7
    mean, std = channel_statistics(images)
    assert np.allclose(mean, images.mean((0, 1, 2)))
    assert np.allclose(std, [images[..., 0].std(), 1.0])


def test_splits_are_fed_alike_whatever_the_seed_and_fraction() -> None:
    rng = np.random.default_rng(0)
    training = rng.random((200, 4, 6, 2), dtype=np.float32), np.arange(200) % 4
    test = rng.random((40, 4, 6, 2), dtype=np.float32), np.arange(40) % 4
    one, other = (
        tensor_splits(training, test, 4, seed, share, Augmentation(1)) for seed, share in ((0, 1.0), (7, 0.5))
    )
    assert one.mean == other.mean and one.std == other.std
    assert one.input == (2, 4, 6) and one.classes == 4 and one.augmentation == Augmentation(1)
    assert one.train.size + one.validation.size + one.select.size == 200
    assert other.train.size + other.validation.size + other.select.size == 100
    assert one.train_and_validation.size == one.train.size + one.validation.size
    assert one.test.size == other.test.size == 40
    pixels = torch.cat(
        [x for part in (one.train, one.validation, one.select) for x, _ in part.batches(64, None, None, CPU)]
    )
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(pixels.std((0, 2, 3)), torch.ones(2), atol=1e-3)


class Streamed:
    """A split that is no tensor."""

    def __init__(self, split: TensorSplit) -> None:
        self.split, self.size = split, split.size

    def part(self, indices: Any) -> Streamed:
        return Streamed(self.split.part(indices))

    def batches(self, *how: Any) -> Any:
        return self.split.batches(*how)


@pytest.mark.parametrize("wrapped", [lambda split: split, Streamed], ids=["in memory", "streamed"])
def test_shrunk_pixels_are_means(wrapped: Any) -> None:
    pixels = torch.randint(256, (5, 7, 9, 3), generator=seeded(), dtype=torch.uint8)
    whole = wrapped(TensorSplit(pixels, torch.arange(5), (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)))
    small = shrunk(whole, 3).part([4, 0, 2])
    images, labels = next(small.batches(3, None, None, CPU))
    cut = pixels[[4, 0, 2], :6, :9].double().reshape(3, 2, 3, 3, 3, 3).mean((2, 4))
    expected = (cut - torch.tensor([100.0, 110.0, 120.0])) / torch.tensor([50.0, 60.0, 70.0])
    assert labels.tolist() == [4, 0, 2] and small.size == 3
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(images.permute(0, 2, 3, 1).double(), expected, atol=1e-5)
    assert shrunk(whole, 1) is whole


@pytest.mark.parametrize("wrapped", [lambda split: split, Streamed], ids=["in memory", "streamed"])
def test_shrunk_images_are_augmented_by_their_own_pixels(wrapped: Any) -> None:
    whole = wrapped(numbered(64, size=8))
    augmentation = Augmentation(padding=4, flip=True, cutout=3).shrunk(4)
    assert augmentation == Augmentation(padding=1, flip=True, cutout=0)
    images, labels = next(shrunk(whole, 4).batches(64, seeded(), augmentation, CPU))
    assert images.shape == (64, 1, 2, 2)
    assert set((images.amax((1, 2, 3)) == labels).tolist()) == {True}, "a pixel of each image is left"
    assert 0 < int((images.amin((1, 2, 3)) == 0).sum()) <= 64, "and zeros are around some"


def test_a_share_holds_every_class_and_the_seed_decides() -> None:
    split = TensorSplit(torch.zeros(400, 2, 2, 1), torch.arange(400) % 4 // 3, (0.0,), (1.0,))  # three to one
    some = share_of(split, 0.1, 7)
    assert some.size == 40 and int(some.labels.sum()) == 10
    assert isinstance(some, TensorSplit)
    others = [share_of(split, 0.1, seed) for seed in (7, 8)]
    same = [torch.equal(some._places, other._places) for other in others if isinstance(other, TensorSplit)]
    assert same == [True, False]
    assert share_of(split, 1.0, 7) is split
    assert share_of(shrunk(split, 2), 0.5, 0).size == 200
