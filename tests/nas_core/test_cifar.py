"""CIFAR's files: both versions, unpacked and packed, downloaded; and files that are not what they should be."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nas_core.data import Augmentation, Split
from nas_core.datasets import _cifar, cifar10, cifar100, datasets
from nas_core.datasets._batches import read_batch
from nas_core.datasets._cifar import Cifar, Download
from nas_core.errors import DatasetError, DatasetMissingError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SETS = {"cifar10": cifar10.CIFAR10, "cifar100": cifar100.CIFAR100}


def made(name: str, count: int, seed: int) -> tuple[NDArray[np.uint8], list[int]]:
    """(count, 3072) pixels, colour by colour, and labels; every class comes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), [n % SETS[name].classes for n in range(count)]


def files(name: str, kind: str) -> dict[str, bytes]:
    """A whole version in small, by the names within its folder."""
    version = SETS[name].versions[0 if kind == "binary" else 1]
    count = 200 if name == "cifar10" else 1000
    found = {}
    for number, file in enumerate((*version.train, version.test)):
        pixels, labels = made(name, count // 5 if len(version.train) == 5 else count, number)
        if kind == "binary":
            coarse = [[0]] * len(labels) if name == "cifar100" else [[]] * len(labels)
            heads = [bytes([*above, label]) for above, label in zip(coarse, labels, strict=True)]
            found[file] = b"".join(head + row.tobytes() for head, row in zip(heads, pixels, strict=True))
        else:
            key = b"labels" if name == "cifar10" else b"fine_labels"
            found[file] = pickle.dumps({b"data": pixels, key: labels, b"filenames": [b"a.png"]}, protocol=3)
    return found


def packed(folder: str, content: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as archive:
        for info in extra:
            archive.addfile(info)
        for name, part in content.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return data.getvalue()


def put(root: Path, name: str, kind: str, as_archive: bool, content: dict[str, bytes] | None = None) -> None:
    version = SETS[name].versions[0 if kind == "binary" else 1]
    content = files(name, kind) if content is None else content
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    if as_archive:
        (folder / version.archive).write_bytes(packed(version.folder, content))
        return
    for file, data in content.items():
        (folder / version.folder).mkdir(exist_ok=True)
        (folder / version.folder / file).write_bytes(data)


def everything(split: Split) -> tuple[torch.Tensor, list[int]]:
    batches = list(split.batches(500, None, None, CPU))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]).tolist()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_all_versions_hold_the_same_images(tmp_path: Path, name: str) -> None:
    cls = datasets[name]
    assert not cls.presence(tmp_path).present and cls.presence(tmp_path).downloadable
    read = []
    for number, (kind, as_archive) in enumerate([(k, a) for k in ("binary", "python") for a in (False, True)]):
        root = tmp_path / str(number)
        put(root, name, kind, as_archive)
        assert cls.presence(root).present and not cls.presence(root).downloadable
        splits = cls(download=False).splits(root, seed=0)
        assert (splits.input, splits.classes) == ((3, 32, 32), cls.facts["classes"])
        assert splits.augmentation == Augmentation(padding=4, flip=True)
        read.append(everything(splits.test))
        scaled = read[-1][0].permute(0, 2, 3, 1) * torch.tensor(splits.std) + torch.tensor(splits.mean)
        pixels, labels = made(name, len(read[-1][1]), 5 if name == "cifar10" else 1)
        assert torch.allclose(
            scaled, torch.from_numpy(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).float(), atol=1e-3
        )
        assert read[-1][1] == labels
    assert all(torch.equal(images, read[0][0]) for images, _ in read)


def python_2(labels: list[int], pixels: bytes) -> bytes:
    """A batch as Python 2 wrote it in 2009: byte strings as text, protocol 2."""

    def short(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    def number(value: int) -> bytes:
        return b"K" + bytes([value])

    rows = b"J" + struct.pack("<i", len(labels))
    dtype = b"cnumpy\ndtype\n" + short("u1") + number(0) + number(1) + b"\x87R("
    dtype += number(3) + short("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + number(0) + b"tb"
    shape = rows + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + short("b") + b"\x87R"
    array += b"(" + number(1) + shape + dtype + b"\x89" + b"T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}q\x01(" + short("data") + array + short("labels") + listed + b"u."


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    pixels, labels = made("cifar10", 40, 0)
    content = {name: python_2(labels, pixels.tobytes()) for name in files("cifar10", "python")}
    put(tmp_path, "cifar10", "python", True, content)
    splits = datasets["cifar10"](download=False).splits(tmp_path, seed=0)
    assert splits.train.size + splits.validation.size + splits.select.size == 200 and splits.test.size == 40


class Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("echo pwned > pwned",)


def nested() -> bytes:
    """A key whose hash would take exponential time."""
    return b"\x80\x02}(K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01u."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(Malicious()), "system, which is never called"),
        (pickle.dumps({"data": Malicious()}, protocol=2), "system, which is never called"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}b.", "sets the state of a name"),
        (b"\x80\x02c__builtin__\neval\nU\x041+1.\x85R.", "eval, which is never called"),
        (pickle.dumps({1, 2}, protocol=4), "opcode EMPTY_SET"),
        (nested(), "uses again what is no text"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "a memo of 2147483647 entries"),
        (pickle.dumps({b"data": bytes(300)}, protocol=3)[:-90], "no batch"),
        (b"", "no batch"),
        (b"<html>", "no batch"),
        (b"\x80\x02S'\\u'\n.", "opcode STRING"),  # an escape of which Python warns
        (pickle.dumps([1], protocol=2), "holds a list"),
    ],
)
def test_pickles_that_are_no_batches_do_nothing(
    data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=message):
        read_batch(data, "a file")
    assert list(tmp_path.iterdir()) == []


def test_truncated_and_random_bytes_are_dataset_errors() -> None:
    pixels, labels = made("cifar10", 3, 0)
    good = python_2(labels, pixels.tobytes())
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(good[: rng.integers(1, len(good))] if rng.random() < 0.3 else good)
        for place in rng.integers(0, min(len(data), 200), 3):
            data[place] = rng.integers(256)
        try:
            _cifar.python("labels")(bytes(data), "a file")
        except DatasetError:
            continue


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((40, 3072), np.float32)}, "no array of unsigned bytes"),
        ({"data": np.array([None] * 40)}, "no array of unsigned bytes"),
        ({"data": np.zeros((39, 3072), np.uint8)}, r"shape \(39, 3072\) with 40 labels"),
        ({"data": np.zeros((40, 3071), np.uint8)}, r"shape \(40, 3071\)"),
        ({"labels": ["0"] * 40}, "no list of labels"),
        ({"labels": [10] * 40}, "has the label 10; 0 to 9"),
    ],
)
def test_batches_of_another_shape_are_told_apart(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = files("cifar10", "python")
    pixels, labels = made("cifar10", 40, 0)
    content["data_batch_2"] = pickle.dumps({"data": pixels, "labels": labels, **changes}, protocol=3)
    put(tmp_path, "cifar10", "python", False, content)
    with pytest.raises(DatasetError, match=message):
        datasets["cifar10"]().splits(tmp_path, seed=0)


def test_damaged_binary_files_are_told_apart(tmp_path: Path) -> None:
    content = files("cifar10", "binary")
    put(tmp_path, "cifar10", "binary", False, {**content, "test_batch.bin": b""})
    with pytest.raises(DatasetError, match=r"test_batch.bin: has 0 bytes; a multiple of 3073"):
        datasets["cifar10"]().splits(tmp_path, seed=0)
    put(tmp_path, "cifar10", "binary", False, {**content, "data_batch_3.bin": content["data_batch_3.bin"][:-1]})
    with pytest.raises(DatasetError, match=r"data_batch_3.bin: has 122919 bytes"):
        datasets["cifar10"]().splits(tmp_path, seed=0)


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (lambda content: packed("cifar-10-batches-bin", content, link("cifar-10-batches-bin", "/etc")), "is a link"),
        (lambda content: packed("cifar-10-batches-bin", content, tarfile.TarInfo("../../evil")), "leads out"),
        (lambda content: packed("cifar-10-batches-bin", content, tarfile.TarInfo("/evil")), "leads out"),
        (lambda content: packed("elsewhere", content), "lacks cifar-10-batches-bin/data_batch_1.bin"),
        (lambda content: packed("cifar-10-batches-bin", content)[:-2000], "cannot be read"),
        (lambda content: b"<html>log in</html>", "cannot be read"),
        (lambda content: gzip.compress(b"\0" * 3_000_000), "unpacks to more than 2000000 bytes|lacks|cannot be read"),
        (lambda content: packed("x", {"big": bytes(3_000_000)}), "unpacks to more than 2000000 bytes"),
    ],
)
def test_archives_that_are_not_what_they_should_be(
    tmp_path: Path, archive: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cifar, "MOST_BYTES", 2_000_000)
    folder = tmp_path / "root" / "cifar10"
    folder.mkdir(parents=True)
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive(files("cifar10", "binary")))
    with pytest.raises(DatasetError, match=message):
        datasets["cifar10"]().splits(tmp_path / "root", seed=0)
    assert [path.name for path in tmp_path.rglob("*")] == ["root", "cifar10", "cifar-10-binary.tar.gz"]


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which the binary version of CIFAR-10, in small, is downloaded; returns its archive."""
    path = tmp_path / "site" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    data = packed("cifar-10-batches-bin", files("cifar10", "binary"))
    path.write_bytes(data)
    small: Cifar = replace(cifar10.CIFAR10, download=Download(len(data), hashlib.sha256(data).hexdigest()))
    monkeypatch.setattr(cifar10, "CIFAR10", small)
    monkeypatch.setattr(_cifar, "SITE", f"{path.parent.as_uri()}/")
    return path


def test_missing_files_are_downloaded_once(tmp_path: Path, offered: Path) -> None:
    told: list[tuple[str, float]] = []
    dataset = datasets["cifar10"]()
    splits = dataset.splits(tmp_path / "root", 0, progress=lambda what, share: told.append((what, share)))
    assert splits.test.size == 40
    assert {what for what, _ in told} == {"downloading cifar-10-binary.tar.gz", "reading cifar10"}
    assert {what for what, share in told if share == 1} == {what for what, _ in told}
    offered.unlink()
    assert dataset.splits(tmp_path / "root", 0).test.size == 40


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda data: data[:-1], DatasetMissingError, r"ended after \d+ of \d+ bytes.*Put cifar-10-binary"),
        (lambda data: data + b"\0", DatasetError, "is longer than"),
        (lambda data: data[:-1] + b"x", DatasetError, "SHA-256"),
        (None, DatasetMissingError, "cannot be fetched.*Put cifar-10-binary"),
    ],
)
def test_another_content_is_not_kept(tmp_path: Path, offered: Path, change: Any, error: Any, message: str) -> None:
    if change is None:
        offered.unlink()
    else:
        offered.write_bytes(change(offered.read_bytes()))
    with pytest.raises(error, match=message):
        datasets["cifar10"]().splits(tmp_path / "root", 0)
    assert list((tmp_path / "root" / "cifar10").iterdir()) == []
    with pytest.raises(DatasetMissingError, match="'download' is false"):
        datasets["cifar10"](download=False).splits(tmp_path / "root", 0)
