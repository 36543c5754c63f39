"""Data sets: cuts, the shipped digits, Fashion-MNIST's files and download, a user's own npz files."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas_core.cuts import SMALLEST_CLASS, hold_out, sizes, split_by_class
from nas_core.data import Augmentation, Split, Splits
from nas_core.datasets import _download, _idx, _npz, datasets, fashion_mnist
from nas_core.errors import DatasetError, DatasetMissingError, InvalidSettingsError
from nas_core.settings import form, parse

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def labels_of(split: Split) -> list[int]:
    return [int(label) for _, labels in split.batches(1024, None, None, CPU) for label in labels]


def images_of(split: Split) -> torch.Tensor:
    return torch.cat([images for images, _ in split.batches(1024, None, None, CPU)])


# --- cuts -------------------------------------------------------------------------------------------------------------

labellings = st.lists(st.integers(SMALLEST_CLASS, 80), min_size=2, max_size=6).flatmap(
    lambda counts: st.permutations([label for label, count in enumerate(counts) for _ in range(count)])
)


@given(labels=labellings, seed=st.integers(0, 2**63 - 1))
def test_a_cut_is_disjoint_whole_and_by_class(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    cut = split_by_class(array, seed)
    parts = cut.train, cut.validation, cut.select
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert len(cut.select) == int(0.2 * len(labels))
    assert len(cut.train) - len(cut.validation) in (0, 1)
    total = np.bincount(array)
    for part in parts:
        counts = np.bincount(array[part], minlength=len(total))
        assert (np.abs(counts - total * len(part) / len(labels)) < 2).all()
    assert np.unique(array[cut.train]).size == np.unique(array[cut.validation]).size == len(total)


@given(labels=labellings, seed=st.integers(0, 2**63 - 1), fraction=st.floats(0.3, 1.0))
def test_a_fraction_is_drawn_by_class_and_repeatable(labels: list[int], seed: int, fraction: float) -> None:
    array = np.array(labels)
    total = np.bincount(array)
    assume((np.floor(total * (round(fraction * len(labels)) / len(labels))) >= SMALLEST_CLASS).all())
    cut, again = (split_by_class(array, seed, fraction) for _ in range(2))
    assert all(np.array_equal(getattr(cut, name), getattr(again, name)) for name in ("train", "validation", "select"))
    used = np.concatenate([cut.train, cut.validation, cut.select])
    assert len(used) == len(set(used)) == round(fraction * len(labels))
    said = sizes(len(labels), fraction)
    assert (said.train, said.validation, said.select) == (len(cut.train), len(cut.validation), len(cut.select))
    assert (np.abs(np.bincount(array[used], minlength=len(total)) - total * len(used) / len(labels)) < 1).all()


@pytest.mark.parametrize(("count", "select"), [(1000, 200), (4000, 500), (5000, 500), (60_000, 6000)])
def test_select_is_a_tenth_but_500_but_a_fifth(count: int, select: int) -> None:
    assert len(split_by_class(np.arange(count) % 10, 0).select) == select


def test_seeds_cut_differently_and_for_ever() -> None:
    labels = np.arange(40) % 2
    one, other = split_by_class(labels, 0), split_by_class(labels, 1)
    assert not np.array_equal(one.select, other.select)
    # Cuts are part of a job's record: these places must never change.
    assert one.select.tolist() == [2, 3, 11, 13, 18, 20, 21, 32]


def test_a_class_that_is_too_small_to_cut_is_named() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    with pytest.raises(DatasetError, match="class 1 has 3 training images; at least 4"):
        split_by_class(labels, 0)
    with pytest.raises(DatasetError, match=r"class 0 has 2 .* fraction 0.1; .*raise the fraction"):
        split_by_class(np.arange(40) % 2, 0, fraction=0.1)
    with pytest.raises(ValueError, match="fraction"):
        split_by_class(labels, 0, fraction=0.0)


def test_held_out_is_a_share_of_each_class() -> None:
    labels = np.array([0] * 50 + [1] * 25 + [2] * 5)
    kept, held = hold_out(labels, 0.2)
    assert np.bincount(labels[held]).tolist() == [10, 5, 1]
    assert sorted([*kept, *held]) == list(range(80))


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_shipped(tmp_path: Path) -> None:
    cls = datasets["digits"]
    presence = cls.presence(tmp_path)
    assert presence.present and presence.to_json()["files"] == {}
    splits = cls().splits(tmp_path, seed=0)
    counts = [part.size for part in (splits.train, splits.validation, splits.select, splits.test)]
    assert counts == [575, 575, 287, 360]
    assert splits.input == tuple(cls.facts["input"]) and splits.classes == cls.facts["classes"]
    assert (sum(counts[:3]), counts[3]) == (cls.facts["train"], cls.facts["test"])
    assert splits.augmentation == Augmentation(padding=1)
    assert np.bincount(labels_of(splits.test)).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    pixels = images_of(splits.test) * splits.std[0] + splits.mean[0]
    assert torch.allclose(pixels, pixels.round(), atol=1e-4) and pixels.min() > -0.5 and 15.5 < pixels.max() < 16.5


def test_digits_are_digits(tmp_path: Path) -> None:
    """The nearest neighbour in the training data knows almost all test images."""
    splits = datasets["digits"]().splits(tmp_path, seed=0)
    distances = torch.cdist(images_of(splits.test).flatten(1), images_of(splits.train_and_validation).flatten(1))
    known = torch.tensor(labels_of(splits.train_and_validation))[distances.argmin(1)]
    assert (known == torch.tensor(labels_of(splits.test))).float().mean() > 0.95


def test_the_test_part_of_digits_depends_on_nothing(tmp_path: Path) -> None:
    one, other = datasets["digits"]().splits(tmp_path, 0), datasets["digits"]().splits(tmp_path, 5, fraction=0.5)
    assert torch.equal(images_of(one.test), images_of(other.test))
    assert not torch.equal(images_of(one.train)[:100], images_of(other.train)[:100])
    assert other.train.size + other.validation.size + other.select.size == round(0.5 * 1437)


# --- Fashion-MNIST ----------------------------------------------------------------------------------------------------


def idx(array: NDArray[Any]) -> bytes:
    data = array.astype(np.uint8)
    return bytes([0, 0, 8, data.ndim]) + struct.pack(f">{data.ndim}I", *data.shape) + data.tobytes()


def tiny_files() -> dict[str, bytes]:
    """Unpacked idx files with 100 training and 20 test images."""
    rng = np.random.default_rng(0)
    found = {}
    for part, count in (("train", 100), ("t10k", 20)):
        found[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 28, 28)))
        found[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count) % 10)
    return found


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No system-wide files."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    return folder


def put(folder: Path, files: dict[str, bytes], packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data, 1) if packed else data)


def check_tiny(splits: Splits) -> None:
    assert splits.train.size + splits.validation.size + splits.select.size == 100
    assert splits.test.size == 20 and labels_of(splits.test) == [n % 10 for n in range(20)]
    assert splits.input == (1, 28, 28) and splits.classes == 10
    assert splits.augmentation == Augmentation(padding=2, flip=True)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["datasets/fashion-mnist", "debian"])
def test_fashion_mnist_is_read_where_it_lies(tmp_path: Path, root: Path, place: str, packed: bool) -> None:
    cls = datasets["fashion-mnist"]
    assert not cls.presence(root).present
    put(tmp_path / place, tiny_files(), packed)
    assert cls.presence(root).present and not cls.presence(root).downloadable
    check_tiny(cls(download=False).splits(root, seed=0))


@pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
def test_the_files_of_the_debian_package_are_the_published_ones() -> None:
    for name, sha256 in fashion_mnist.FILES.items():
        with gzip.open(fashion_mnist.DEBIAN / f"{name}.gz") as file:
            assert hashlib.sha256(file.read()).hexdigest() == sha256
    labels = _idx.read_idx(fashion_mnist.DEBIAN / "train-labels-idx1-ubyte.gz", dimensions=1)
    assert np.bincount(labels).tolist() == [6000] * 10


@pytest.mark.usefixtures("elsewhere")
def test_missing_files_say_where_they_were_looked_for_and_how_to_get_them(root: Path, tmp_path: Path) -> None:
    cls = datasets["fashion-mnist"]
    presence = cls.presence(root)
    assert presence.searched == (str(root / "fashion-mnist"), str(tmp_path / "debian")) and presence.downloadable
    with pytest.raises(DatasetMissingError) as caught:
        cls(download=False).splits(root, seed=0)
    for part in (*presence.searched, "dataset-fashion-mnist", "train-images-idx3-ubyte.gz", "'download' is false"):
        assert part in str(caught.value)


IMAGES = "train-images-idx3-ubyte"
Change = Callable[[bytes], bytes]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (IMAGES, lambda data: data[:-1], "announces 78400 bytes, but holds 78399"),
        (IMAGES, lambda data: data + b"\0", "holds more"),
        (IMAGES, lambda data: data[:7], "starts with 00000803"),
        (IMAGES, lambda data: b"<html>" + data, "starts with 3c68746d"),
        (IMAGES, lambda data: idx(np.zeros((100, 28, 27))), r"shape \(100, 28, 27\)"),
        (IMAGES, lambda data: idx(np.zeros((99, 28, 28))), "with 100 labels"),
        (IMAGES, lambda data: data[:4] + b"\xff" * 12, "at most 268435456"),
        ("t10k-labels-idx1-ubyte", lambda data: idx(np.full(20, 10)), "a label 10 among those of 't10k'"),
    ],
)
def test_broken_files_are_told_apart(root: Path, name: str, change: Change, message: str) -> None:
    files = tiny_files()
    files[name] = change(files[name])
    put(root / "fashion-mnist", files)
    with pytest.raises(DatasetError, match=message):
        datasets["fashion-mnist"]().splits(root, seed=0)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_damaged_gzip_file_is_a_dataset_error(tmp_path: Path, damage: Change) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(damage(gzip.compress(tiny_files()[IMAGES])))
    with pytest.raises(DatasetError, match=r"images\.gz"):
        _idx.read_idx(path, dimensions=3)


class Shop:
    """An HTTP server on this machine that hands out ``files`` by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.short = False
        """Whether it hangs up before it has sent all that it announced."""
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.asked.append(self.path)
                data = shop.files.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:-30] if shop.short else data)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    thread = threading.Thread(target=shop.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield shop
    shop.server.shutdown()
    thread.join()
    shop.server.server_close()


@pytest.fixture
def offered(shop: Shop, elsewhere: None, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The tiny files stand in the shop, and Fashion-MNIST is to be had there."""
    files = tiny_files()
    shop.files = {f"/{name}.gz": gzip.compress(data, 1) for name, data in files.items()}
    monkeypatch.setattr(fashion_mnist, "SOURCE", shop.url)
    monkeypatch.setattr(
        fashion_mnist, "FILES", {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    )
    return shop


def test_missing_files_are_downloaded_once_and_reported(offered: Shop, root: Path) -> None:
    told: list[tuple[str, float]] = []
    dataset = datasets["fashion-mnist"]()
    check_tiny(dataset.splits(root, seed=0, progress=lambda what, share: told.append((what, share))))
    assert sorted(offered.asked) == sorted(offered.files)
    assert {what for what, _ in told} == {
        "reading fashion-mnist",
        *(f"downloading {name}.gz" for name in fashion_mnist.FILES),
    }
    assert all(0 <= share <= 1 for _, share in told)
    assert {what for what, share in told if share == 1} == {what for what, _ in told}
    assert sorted(path.name for path in (root / "fashion-mnist").iterdir()) == sorted(
        f"{name}.gz" for name in fashion_mnist.FILES
    )
    check_tiny(dataset.splits(root, seed=0))
    assert len(offered.asked) == 4


def test_a_download_goes_on_where_files_are_missing(offered: Shop, root: Path) -> None:
    name = f"/{IMAGES}.gz"
    put(root / "fashion-mnist", {IMAGES: tiny_files()[IMAGES]})
    check_tiny(datasets["fashion-mnist"]().splits(root, seed=0))
    assert name not in offered.asked and len(offered.asked) == 3


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(b"something else"), id="other content"),
        pytest.param(b"<html>log in to this network</html>", id="login page"),
    ],
)
def test_other_content_is_refused_and_not_kept(offered: Shop, root: Path, data: bytes) -> None:
    offered.files[f"/{IMAGES}.gz"] = data
    with pytest.raises(DatasetError, match="nothing was kept"):
        datasets["fashion-mnist"]().splits(root, seed=0)
    assert list((root / "fashion-mnist").iterdir()) == []


def test_a_bomb_is_not_unpacked(offered: Shop, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "MOST_BYTES", 1000)
    with pytest.raises(DatasetError, match="unpacks to more than 1000 bytes"):
        datasets["fashion-mnist"]().splits(root, seed=0)
    assert list((root / "fashion-mnist").iterdir()) == []


@pytest.mark.parametrize("fault", ["absent", "cut short", "gzip cut short", "no server"])
def test_a_failed_download_says_how_else_to_get_the_files(
    offered: Shop, root: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "absent":
        offered.files = {}
    elif fault == "cut short":
        offered.short = True
    elif fault == "gzip cut short":
        offered.files = {path: data[:-30] for path, data in offered.files.items()}
    else:
        monkeypatch.setattr(fashion_mnist, "SOURCE", "http://127.0.0.1:1/")
    with pytest.raises(DatasetMissingError, match=r"cannot be fetched: .*dataset-fashion-mnist"):
        datasets["fashion-mnist"]().splits(root, seed=0)
    assert list((root / "fashion-mnist").iterdir()) == []


# --- npz --------------------------------------------------------------------------------------------------------------


def arrays(**changes: Any) -> dict[str, Any]:
    """60 training and 12 test images of three classes, with changes; None takes an array away."""
    rng = np.random.default_rng(0)
    found = {
        "x_train": rng.integers(0, 256, (60, 16, 24, 3), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": rng.integers(0, 256, (12, 16, 24, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 3,
    }
    return {name: array for name, array in {**found, **changes}.items() if array is not None}


def npz(root: Path, name: str = "mine.npz", **changes: Any) -> Any:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays(**changes))
    return datasets["npz"](path=name)


def test_settings_of_npz() -> None:
    cls = datasets["npz"]
    assert form(cls)["required"] == ["path"] and cls.facts == {}
    for wrong in ({}, {"path": ""}, {"path": 3}, {"path": "a.npz", "flip": 1}):
        with pytest.raises(InvalidSettingsError):
            parse(cls, wrong, "npz")


def test_npz_with_test_images(root: Path) -> None:
    splits = npz(root).splits(root, seed=0)
    assert splits.input == (3, 16, 24) and splits.classes == 3 and splits.augmentation == Augmentation(2, False)
    assert splits.train.size + splits.validation.size + splits.select.size == 60
    given = arrays()
    pixels = images_of(splits.test).permute(0, 2, 3, 1) * torch.tensor(splits.std) + torch.tensor(splits.mean)
    assert torch.allclose(pixels, torch.from_numpy(given["x_test"]).float(), atol=1e-3)
    assert labels_of(splits.test) == given["y_test"].tolist()


def test_npz_without_test_images_holds_a_fifth_out_for_ever(root: Path) -> None:
    npz(root, x_test=None, y_test=None)
    dataset = datasets["npz"](path="mine.npz", flip=True)
    one, other = dataset.splits(root, seed=0), dataset.splits(root, seed=1, fraction=0.7)
    assert one.augmentation.flip
    assert torch.equal(images_of(one.test), images_of(other.test))
    assert np.bincount(labels_of(one.test)).tolist() == [4, 4, 4]
    used = {tuple(x.flatten().tolist()) for part in (one.train, one.validation, one.select) for x in images_of(part)}
    assert len(used) == 48 and not used & {tuple(x.flatten().tolist()) for x in images_of(one.test)}


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_of_any_width_and_order_are_read(root: Path, dtype: str, order: str) -> None:
    x = np.random.default_rng(1).random((60, 8, 8))
    stored = np.asarray(x.astype(dtype), order="F" if order == "F" else "C")
    dataset = npz(root, x_train=stored, x_test=None, y_test=None, y_train=np.arange(60, dtype=">u2") % 3)
    with _npz.open_npz(root / "mine.npz") as file:
        read = file.array("x_train")
    assert read.dtype.isnative and read.flags.c_contiguous and np.array_equal(read, stored)
    splits = dataset.splits(root, seed=0)
    assert splits.input == (1, 8, 8)
    pixels = torch.cat([images_of(part) for part in (splits.train, splits.validation, splits.select, splits.test)])
    restored = np.sort((pixels * splits.std[0] + splits.mean[0]).flatten().numpy())
    assert np.allclose(restored, np.sort(stored.flatten()), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "'x_train' is missing; it has: x_test, y_test, y_train"),
        ({"x_test": None}, "'x_test' is missing"),
        ({"y_test": None}, "'y_test' is missing"),
        ({"x_train": np.zeros((60, 16))}, r"shape \(60, 16\)"),
        ({"x_train": np.zeros((0, 16, 24, 3))}, "none 0"),
        ({"x_train": np.zeros((60, 16, 24, 3), np.int32)}, "dtype int32; uint8 or floats"),
        ({"x_train": np.zeros((60, 3, 16, 16))}, r"looks like \(N, C, H, W\)"),
        ({"x_train": np.full((60, 16, 24, 3), np.nan)}, "'x_train' has numbers that are not finite"),
        ({"x_train": np.full((60, 16, 24, 3), 1e300)}, "too large for float32"),
        ({"x_test": np.full((12, 16, 24, 3), np.inf)}, "'x_test' has numbers that are not finite"),
        ({"x_test": np.zeros((12, 16, 16, 3))}, r"\(3, 16, 24\), but test images of \(3, 16, 16\)"),
        ({"y_train": np.zeros(60)}, "dtype float64; integers"),
        ({"y_train": np.zeros((60, 3), int)}, r"shape \(60, 3\); one label"),
        ({"y_train": np.arange(59) % 3}, "one label for each of 60 images"),
        ({"y_train": np.arange(60) % 3 - 1}, "the label -1"),
        ({"y_train": np.full(60, 2**63, np.uint64)}, "the label 9223372036854775808"),
        ({"y_train": np.zeros(60, int)}, "class 0 has 60"),
        ({"y_train": np.array([0] * 30 + [2] * 30)}, "class 1 has 0 training images"),
        ({"y_train": np.array([0] * 30 + [1] * 26 + [2] * 4)}, "class 2 has 4 training images; at least"),
        ({"y_test": np.full(12, 3)}, "y_test has the label 3, but y_train has only 0 to 2"),
        ({"y_train": np.array([None] * 60)}, "objects are never read"),
        ({"x_train": np.zeros(60, dtype=[("a", "u1")])}, "plain numbers are wanted"),
        ({"y_train": np.array(["a"] * 60)}, "plain numbers are wanted"),
    ],
)
def test_each_fault_of_an_npz_file_is_named(root: Path, changes: dict[str, Any], message: str) -> None:
    dataset = npz(root, **changes)
    with pytest.raises(DatasetError, match=message):
        dataset.splits(root, seed=0)


def archive(root: Path, **members: bytes) -> Any:
    """An npz file of raw members, those not given as they should be."""
    with zipfile.ZipFile(root / "mine.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(f"{name}.npy", members.get(name, buffer.getvalue()))
    return datasets["npz"](path="mine.npz")


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (90000, 512, 512, 3)}"), "at most 8589934592 are read"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (60, 16, 24, 3)}", b"x"), "but holds 1"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (60, -1)}"), "gives the shape"),
        (npy("{'descr': '|u1', 'fortran_order': 0, 'shape': (60,)}"), "gives the shape"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': 60}"), "gives the shape"),
        (npy("{'descr': '|f3', 'fortran_order': False, 'shape': (60,)}"), "unknown dtype"),
        (npy("{'descr': '|u1'}"), "cannot be read"),
        (npy("__import__('os').abort()"), "cannot be read"),
        (npy("(" * 9000), "cannot be read"),
        (npy(" " * 20_000), "cannot be read"),
        (npy("{}", version=b"\x03\x00"), "no array that can be read"),
        (b"\x93NUMPY\x01\x00", "ends within its header"),
        (b"", "no array that can be read"),
    ],
)
def test_a_lying_header_is_refused_before_anything_is_allocated(root: Path, member: bytes, message: str) -> None:
    dataset = archive(root, x_train=member)
    with pytest.raises(DatasetError, match=message):
        dataset.splits(root, seed=0)
    presence = datasets["npz"].presence(root)
    assert not presence.present and "mine.npz" in presence.hint


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_npz_file_is_an_error_or_the_same_images(
    tmp_path_factory: pytest.TempPathFactory, place: float, value: int, cut: bool
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    dataset = npz(root)
    whole = bytearray((root / "mine.npz").read_bytes())
    at = int(place * len(whole))
    if cut:
        del whole[at:]
    else:
        whole[at] = value
    (root / "mine.npz").write_bytes(whole)
    try:
        splits = dataset.splits(root, seed=0)
    except DatasetError:
        return
    pixels = images_of(splits.test).permute(0, 2, 3, 1) * torch.tensor(splits.std) + torch.tensor(splits.mean)
    assert torch.allclose(pixels, torch.from_numpy(arrays()["x_test"]).float(), atol=1e-3)


def test_a_file_of_another_kind_is_no_npz(root: Path) -> None:
    (root / "mine.npz").write_bytes(b"PK\x03\x04 but not really")
    with pytest.raises(DatasetError, match="no readable npz file"):
        datasets["npz"](path="mine.npz").splits(root, seed=0)


@pytest.mark.parametrize(
    "path", ["/etc/mine.npz", "../mine.npz", "a/../../mine.npz", "..\\mine.npz", "C:/x.npz", "a\0b"]
)
def test_paths_that_leave_the_root_are_refused(root: Path, path: str) -> None:
    npz(root.parent)
    with pytest.raises(DatasetError, match="is refused"):
        datasets["npz"](path=path).splits(root, seed=0)


def test_links_out_of_the_root_are_refused_and_links_inside_followed(root: Path) -> None:
    npz(root.parent, "outside.npz")
    npz(root, "real/mine.npz")
    (root / "out.npz").symlink_to(root.parent / "outside.npz")
    (root / "folder").symlink_to(root.parent)
    (root / "in.npz").symlink_to(root / "real" / "mine.npz")
    for path in ("out.npz", "folder/outside.npz"):
        with pytest.raises(DatasetError, match="symbolic link"):
            datasets["npz"](path=path).splits(root, seed=0)
    assert datasets["npz"](path="in.npz").splits(root, seed=0).classes == 3
    assert set(datasets["npz"].presence(root).files) == {"in.npz", "real/mine.npz"}


def test_a_missing_file_says_which_ones_there_are(root: Path) -> None:
    npz(root, "birds/all.npz")
    with pytest.raises(DatasetMissingError, match=r"no file .*other\.npz; npz files there: birds/all\.npz"):
        datasets["npz"](path="other.npz").splits(root, seed=0)


def test_presence_lists_files_by_headers_and_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npz(root, "a/one.npz")
    npz(root, "two.npz", x_test=None, y_test=None, x_train=np.zeros((60, 8, 8), np.uint8))
    npz(root, "broken.npz", y_train=None)
    (root / "notes.txt").write_text("not a data set")
    read: list[str] = []
    original = _npz.Npz.array

    def array(file: _npz.Npz, name: str) -> NDArray[Any]:
        read.append(name)
        return original(file, name)

    monkeypatch.setattr(_npz.Npz, "array", array)
    presence = datasets["npz"].presence(root)
    assert presence.present and presence.searched == (str(root),)
    assert presence.to_json()["files"] == {
        "a/one.npz": {"input": [3, 16, 24], "classes": 3, "train": 60, "test": 12},
        "two.npz": {"input": [1, 8, 8], "classes": 3, "train": 48, "test": 12},
    }
    assert "broken.npz: array 'y_train' is missing" in presence.hint
    assert list(presence.faults) == ["broken.npz"] and "'y_train'" in presence.faults["broken.npz"]
    assert set(read) == {"y_train", "y_test"}
    for path, facts in presence.files.items():
        splits = datasets["npz"](path=path).splits(root, seed=0)
        assert splits.test.size == facts["test"]
        assert splits.train_and_validation.size + splits.select.size == facts["train"]


def test_presence_of_a_root_that_is_not_there(tmp_path: Path) -> None:
    presence = datasets["npz"].presence(tmp_path / "none")
    assert not presence.present and presence.files == {} and "x_train" in presence.hint


def test_presence_stops_at_its_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        npz(root, f"{number}.npz")
    monkeypatch.setattr("nas_core.datasets.npz.MOST_FILES", 3)
    assert list(datasets["npz"].presence(root).files) == ["0.npz", "1.npz", "2.npz"]
    monkeypatch.setattr("nas_core.datasets.npz.MOST_ENTRIES", 2)
    npz(root, "folder/x.npz")
    monkeypatch.setattr("nas_core.datasets.npz.MOST_FILES", 1000)
    assert list(datasets["npz"].presence(root).files) == ["0.npz", "1.npz", "2.npz", "3.npz"]
