"""Folders of image files: what is listed, what is read, what is refused; streaming equals holding all in memory."""

from __future__ import annotations

import io
import multiprocessing
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nas_core.architecture import Architecture
from nas_core.data import Augmentation, Split, TensorSplit
from nas_core.datasets import _pictures, _presence, datasets
from nas_core.datasets._pictures import square
from nas_core.errors import DatasetError, DatasetMissingError
from nas_core.recipe import Recipe
from nas_core.spaces import spaces
from nas_core.streams import StreamedSplit
from nas_core.training import Training, misclassified

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cat")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photograph(seed: int, height: int = 12, width: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def fill(folder: Path, each: int = 20, classes: tuple[str, ...] = CLASSES) -> None:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            photograph(1000 * label + number).save(folder / name / f"{number:03}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    fill(folder / "mine")
    return folder


def made(path: str = "mine", **settings: Any) -> Any:
    return datasets["imagefolder"](path=path, **{"size": 12, "workers": 0, **settings})


def everything(split: Split) -> tuple[torch.Tensor, list[int]]:
    batches = list(split.batches(16, None, None, CPU))
    return torch.cat([images for images, _ in batches]), [int(n) for _, labels in batches for n in labels]


# --- what is listed ---------------------------------------------------------------------------------------------------


def test_a_folder_is_cut_like_any_data_set(root: Path) -> None:
    splits = made(flip=True).splits(root, seed=0)
    assert (splits.input, splits.classes) == ((3, 12, 12), 3)
    assert splits.augmentation == Augmentation(padding=1, flip=True)
    parts = splits.train, splits.validation, splits.select, splits.test
    assert [part.size for part in parts] == [20, 19, 9, 12]
    assert splits.train_and_validation.size == 39
    seen = [tuple(image.flatten().tolist()) for part in parts for image in everything(part)[0]]
    assert len(set(seen)) == 60
    assert np.bincount(everything(splits.test)[1]).tolist() == [4, 4, 4]


def test_classes_are_numbered_by_name_and_pixels_are_the_files(root: Path) -> None:
    splits = made().splits(root, seed=0)
    images, labels = everything(splits.train_and_validation)
    pixels = images.permute(0, 2, 3, 1) * torch.tensor(splits.std) + torch.tensor(splits.mean)
    files = {
        np.asarray(photograph(1000 * label + number)).tobytes(): label for label in range(3) for number in range(20)
    }
    assert [files[image.round().to(torch.uint8).numpy().tobytes()] for image in pixels] == labels


def test_train_and_test_folders(root: Path) -> None:
    fill(root / "cut" / "train", each=8)
    fill(root / "cut" / "test", each=3, classes=("bee", "cat"))
    splits = made("cut").splits(root, seed=0)
    assert splits.train_and_validation.size + splits.select.size == 24
    assert everything(splits.test)[1] == [1] * 3 + [2] * 3


def test_a_fraction_is_drawn_by_class_and_the_rest_does_not_change(root: Path) -> None:
    whole, half = made().splits(root, 0), made().splits(root, 1, fraction=0.5)
    used = everything(half.train_and_validation)[1] + everything(half.select)[1]
    assert np.bincount(used).tolist() == [8, 8, 8]
    assert torch.equal(everything(whole.test)[0], everything(half.test)[0])
    assert (whole.mean, whole.std) == (half.mean, half.std)


def test_presence_lists_folders_of_images(root: Path) -> None:
    cls = datasets["imagefolder"]
    fill(root / "deep" / "er", each=6)
    (root / "notes" / "text").mkdir(parents=True)
    (root / "notes" / "text" / "a.txt").write_text("no image")
    fill(root / "few", each=2)
    found = cls.presence(root)
    facts = {"input": [3, 64, 64], "scaled_by": "size", "classes": 3}
    assert found.files == {"mine": {**facts, "train": 48, "test": 12}, "deep/er": {**facts, "train": 15, "test": 3}}
    assert "class 'ant' has 2 images" in found.hint
    assert not cls.presence(root / "nowhere").present


def test_presence_says_of_each_folder_why_it_cannot_be_used(root: Path, tmp_path: Path) -> None:
    fill(root / "few", each=2)
    fill(root / "flat", each=6, classes=(".",))
    fill(tmp_path / "elsewhere", each=6)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "within").symlink_to(root / "mine")
    (root / "round").symlink_to(root / "round")
    (root / "inner" / "ant").mkdir(parents=True)
    (root / "inner" / "bee").symlink_to(root / "mine" / "bee")
    photograph(0).save(root / "inner" / "ant" / "0.png")
    (root / "inner" / "cat").symlink_to(root / "inner" / "cat")
    found = datasets["imagefolder"].presence(root)
    assert set(found.files) == {"mine"}
    assert set(found.faults) == {"few", "flat", "out", "within", "inner"}
    assert "class 'ant' has 2 images" in found.faults["few"]
    assert "flat: has 0 folders; at least 2, one for each class" in found.faults["flat"]
    assert f"out: is a symbolic link, which is not followed: it leads out of {root}; copy" in found.faults["out"]
    assert "name the folder that it leads to" in found.faults["within"]
    assert found.to_json()["faults"] == found.faults


def test_names_that_are_no_text_do_not_reach_the_catalog(root: Path) -> None:
    try:
        fill(root / os.fsdecode(b"b\xe4ume"), each=6)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    found = datasets["imagefolder"].presence(root)
    assert set(found.files) == {"mine"}
    assert "its name is not UTF-8; rename it" in found.faults[r"b\udce4ume"]
    (found.hint + "".join(found.faults.values())).encode()


def test_only_so_many_faults_are_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_presence, "MOST_FAULTS", 2)
    for number in range(5):
        fill(root / f"few{number}", each=1)
    found = datasets["imagefolder"].presence(root)
    assert list(found.faults) == ["few0", "few1"]
    assert "and 2 more" in found.hint


def test_hidden_files_and_other_files_are_passed_over(root: Path) -> None:
    (root / "mine" / ".cache").mkdir()
    (root / "mine" / "ant" / ".DS_Store").write_text("x")
    (root / "mine" / "ant" / "notes.txt").write_text("x")
    assert made().splits(root, 0).test.size == 12


@pytest.mark.parametrize("path", ["../datasets/mine", "/etc", "mine/../..", "a\\b", "C:/x", "mine\0", "."])
def test_paths_outside_are_refused(root: Path, path: str) -> None:
    with pytest.raises(DatasetError, match="is refused; it must lie below"):
        made(path).splits(root, 0)


def test_a_missing_folder_lists_what_there_is(root: Path) -> None:
    with pytest.raises(DatasetMissingError, match=r"there is no folder .*; folders of images there: mine"):
        made("yours").splits(root, 0)


Change = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mine: (mine / "bee" / "x.png").symlink_to("/etc/passwd"), r"x\.png: is a symbolic link that leads out"),
        (lambda mine: (mine / "dog").symlink_to("/etc"), "dog: is a symbolic link that leads out"),
        (lambda mine: os.mkfifo(mine / "bee" / "x.png"), r"x\.png: is no file"),
        (lambda mine: (mine / "bee" / "more").mkdir(), "more: is a folder; images lie directly"),
        (lambda mine: (mine / "empty").mkdir(), "class 'empty' has 0 images"),
        (lambda mine: fill(mine / "test"), "has a folder 'test', but none called 'train'"),
        (lambda mine: (mine / "train").mkdir(), "has 0 folders; at least 2"),
    ],
)
def test_folders_that_are_not_what_they_should_be(root: Path, change: Change, message: str) -> None:
    change(root / "mine")
    with pytest.raises(DatasetError, match=message):
        made().splits(root, 0)


def test_test_classes_are_those_of_the_training(root: Path) -> None:
    fill(root / "cut" / "train", each=8)
    fill(root / "cut" / "test", each=1, classes=("dog",))
    with pytest.raises(DatasetError, match="class 'dog' is not among those of"):
        made("cut").splits(root, 0)
    (root / "cut" / "test" / "dog").rename(root / "cut" / "test" / "ant")
    (root / "cut" / "test" / "ant" / "000.png").unlink()
    with pytest.raises(DatasetError, match="has no images"):
        made("cut").splits(root, 0)


def test_a_link_within_the_root_is_followed(root: Path) -> None:
    (root / "mine" / "bee" / "zz.png").symlink_to(root / "mine" / "ant" / "000.png")
    (root / "yours").symlink_to(root / "mine")
    assert made("yours").splits(root, 0).classes == 3
    (root / "out").symlink_to("/usr")
    with pytest.raises(DatasetError, match="a symbolic link leads out"):
        made("out").splits(root, 0)


# --- what is read -----------------------------------------------------------------------------------------------------


def stored(tmp_path: Path, image: Image.Image, name: str = "image.png", **how: Any) -> Path:
    path = tmp_path / name
    image.save(path, **how)
    return path


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.gif", "x.webp", "x.tiff", "x.ppm", "x.jpg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_formats_and_modes(tmp_path: Path, name: str, mode: str) -> None:
    image = Image.new("RGB", (30, 20), (200, 200, 200)).convert(mode)
    try:
        path = stored(tmp_path, image, name)
    except OSError:
        pytest.skip(f"{name} has no {mode}")
    assert square(path, 8).shape == (8, 8, 3)
    assert 190 < square(path, 8).mean() < 210


def test_the_middle_is_taken_and_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (square(stored(tmp_path, Image.fromarray(pixels)), 10) == 255).all()
    image = Image.fromarray(np.repeat(np.arange(16, dtype=np.uint8)[:, None] * 16, 16, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: to be turned by 90 degrees
    turned = square(stored(tmp_path, image, exif=exif), 16)[..., 0]
    assert np.array_equal(turned, np.rot90(np.asarray(image), -1))


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((9, 9), 30_000, np.uint16))
    assert (square(stored(tmp_path, grey), 8) == 30_000 >> 8).all()
    floats = stored(tmp_path, Image.fromarray(np.zeros((9, 9), np.float32)), "x.tiff")
    with pytest.raises(DatasetError, match=r"x\.tiff: has pixels of 32 bits"):
        square(floats, 8)


def test_transparency_in_a_palette_is_no_trouble(tmp_path: Path) -> None:
    image = photograph(0).convert("P")
    assert square(stored(tmp_path, image, transparency=bytes(range(200))), 8).shape == (8, 8, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG that announces far more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


PNG = io.BytesIO()
photograph(0).save(PNG, "PNG")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no image"),
        (b"<html>", "is no image"),
        (POSTSCRIPT, "is no image"),
        (PNG.getvalue()[:200], "is no image"),
        (bomb(9000, 9000), r"has 9000 x 9000 pixels; images of at most 67108864"),
        (bomb(10_000, 10_000), "has .* pixels; images of at most 67108864"),
        (bomb(60_000, 60_000), "has far more pixels; images of at most 67108864"),
        (bomb(1000, 1000), "is no image"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_and_huge_images_are_named(root: Path, data: bytes, message: str, workers: int) -> None:
    (root / "mine" / "bee" / "007.png").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"bee/007\.png: {message}.*mend or remove it: python -m nas_core.pictures"):
        made(workers=workers).splits(root, 0)


def test_long_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, photograph(0))
    monkeypatch.setattr(_pictures, "MOST_FILE_BYTES", 100)
    with pytest.raises(DatasetError, match=r"image\.png: has \d+ bytes"):
        square(path, 8)


def test_a_file_that_went_is_named(root: Path) -> None:
    splits = made().splits(root, 0)
    (root / "mine" / "cat" / "003.png").unlink()
    with pytest.raises(DatasetError, match=r"cat/003\.png: is no image that can be read"):
        for part in (splits.train, splits.validation, splits.select, splits.test):
            everything(part)


ORIGINALS = []
for _format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
    _data = io.BytesIO()
    photograph(3, 16, 16).save(_data, _format)
    ORIGINALS.append(_data.getvalue())


@settings(max_examples=300, deadline=None)
@given(
    original=st.sampled_from(ORIGINALS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    cut=st.integers(1, 10_000) | st.none(),
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
def test_any_bytes_are_an_image_or_a_dataset_error(
    tmp_path_factory: pytest.TempPathFactory, original: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(original)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "any.img"
    path.write_bytes(data[:cut] if cut else data)
    said = str(path)
    try:
        assert square(path, 8).shape == (8, 8, 3)
    except DatasetError as error:
        said = str(error)
    assert str(path) in said


# --- streaming --------------------------------------------------------------------------------------------------------


def numbered(places: Any) -> NDArray[np.uint8]:
    """Image i is all i."""
    return np.stack([np.full((4, 4, 1), place, np.uint8) for place in places])


def pair(count: int, workers: int) -> tuple[StreamedSplit, TensorSplit]:
    labels = np.arange(count) % 3
    held = TensorSplit(torch.from_numpy(numbered(range(count))), torch.from_numpy(labels), (3.0,), (2.0,))
    return StreamedSplit(numbered, labels, (3.0,), (2.0,), workers), held


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("seed", "batch"), [(None, 7), (4, 7), (4, 100)])
def test_streaming_equals_memory(workers: int, seed: int | None, batch: int) -> None:
    augment = None if seed is None else Augmentation(1, True, 2)
    states, found = [], []
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for split in pair(40, workers):
        generator = None if seed is None else seeded(seed)
        part = split.part(np.arange(39, 3, -1)).part([*range(30)])
        assert part.size == 30
        found.append([*part.batches(batch, generator, augment, CPU), *part.batches(batch, generator, augment, CPU)])
        states.append(generator.get_state() if generator is not None else torch.zeros(1))
    assert torch.equal(*states) and torch.equal(before, torch.get_rng_state())
    for (images, labels), (others, theirs) in zip(*found, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, theirs)
        assert images.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64
    assert pair(9, workers)[0].labels.tolist() == pair(9, 0)[1].labels.tolist()


def test_an_iterator_left_early_takes_its_processes_along() -> None:
    split, _ = pair(40, workers=2)
    for batches in (split.batches(4, seeded(), None, CPU), split.batches(4, None, None, CPU)):
        next(batches)
        assert multiprocessing.active_children()
        batches.close()  # type: ignore[attr-defined]
        assert not multiprocessing.active_children()


def test_wrong_arguments_are_refused() -> None:
    split, _ = pair(4, workers=0)
    with pytest.raises(ValueError, match="generator"):
        next(split.batches(2, None, Augmentation(flip=True), CPU))
    with pytest.raises(ValueError, match="at least one"):
        next(split.batches(0, None, None, CPU))


@pytest.mark.usefixtures("one_thread")
def test_a_training_resumes_bit_for_bit_whatever_the_number_of_workers(root: Path) -> None:
    space = spaces["darts"](cells=3, nodes=2, channels=2)
    architecture = Architecture(space.sample(np.random.default_rng(0)), space.skeleton((3, 12, 12), 3))

    def training(workers: int) -> tuple[Training, Split]:
        splits = made(workers=workers).splits(root, seed=0)
        recipe = Recipe(epochs=3, batch=8, augment=True)
        return Training(architecture, recipe, splits.train_and_validation, splits.augmentation, 1, CPU), splits.select

    unbroken, select = training(0)
    while not unbroken.finished:
        unbroken.epoch()
    first, _ = training(2)
    first.epoch()
    second, _ = training(1)
    second.resume(first.state())
    while not second.finished:
        second.epoch()
    for name, tensor in unbroken.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name
    wrong = [misclassified(network.network, select, CPU) for network in (unbroken, second)]
    assert wrong[0] == wrong[1] <= select.size
