"""Files of data sets that nobody checked: each is read, or refused by a DatasetError, in bounded memory and time.

What the readers are for is tested in test_datasets, test_cifar and test_imagefolder.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_core.datasets import _batches, datasets
from nas_core.datasets._batches import read_batch
from nas_core.datasets._idx import read_idx
from nas_core.datasets._npz import open_npz
from nas_core.datasets._paths import below
from nas_core.errors import DatasetError, DatasetMissingError
from tests import bounded
from tests.fuzz import fuzzed

OWN = ("npz", "imagefolder")
"""Data sets whose files are the users'."""
BYTES = st.binary(max_size=300)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)


def changed(content: bytes, changes: list[tuple[int, int]], cut: int | None = None) -> bytes:
    data = bytearray(content)
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[:cut] if cut else data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    found = tmp_path / "datasets"
    found.mkdir()
    return found


def arrays(count: int = 60) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return {"x_train": pixels, "y_train": np.arange(count) % 3}


def images(folder: Path, each: int = 6) -> None:
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / name / f"{number}.png")


# --- what may lie in the folder of data sets --------------------------------------------------------------------------

Put = Callable[[Path], Any]
FINDS: dict[str, Put] = {
    "a pipe": lambda root: os.mkfifo(root / "pipe.npz"),
    "a link to itself": lambda root: (root / "loop.npz").symlink_to(root / "loop.npz"),
    "a link to nothing": lambda root: (root / "gone.npz").symlink_to(root / "nothing"),
    "a link out": lambda root: (root / "out.npz").symlink_to("/etc/passwd"),
    "a link to a device": lambda root: (root / "zero.npz").symlink_to("/dev/zero"),
    "a link to the folder": lambda root: (root / "again").symlink_to(root),
    "a folder called a file": lambda root: (root / "folder.npz").mkdir(),
    "a file without content": lambda root: (root / "empty.npz").write_bytes(b""),
    "a name that is no text": lambda root: open(os.fsencode(root) + b"/\xff\xfe.npz", "wb").close(),
    "a folder of a name that is no text": lambda root: images(Path(os.fsdecode(os.fsencode(root) + b"/\xff"))),
    "classes of names that are no text": lambda root: images(root / os.fsdecode(b"deep") / os.fsdecode(b"\xffer")),
    "a class that is a link to itself": lambda root: (root / "mine" / "cat").symlink_to(root / "mine" / "cat"),
    "an image that is a link to itself": lambda root: (root / "mine" / "ant" / "x.png").symlink_to("x.png"),
    "an image that is a pipe": lambda root: os.mkfifo(root / "mine" / "ant" / "x.png"),
    "an image that is a device": lambda root: (root / "mine" / "ant" / "x.png").symlink_to("/dev/zero"),
    "a class that is a file": lambda root: (root / "mine" / "cat").write_text("x"),
    "an image that is a folder": lambda root: (root / "mine" / "ant" / "x.png").mkdir(),
    "training that is a link to itself": lambda root: (root / "mine" / "train").symlink_to(root / "mine" / "train"),
    "a folder within a folder, again and again": lambda root: (root / "/".join("abcdefghij" * 4)).mkdir(parents=True),
}


@pytest.mark.parametrize("find", FINDS)
def test_a_worker_can_say_what_lies_there(root: Path, find: str) -> None:
    """It publishes this when it starts, and would not start if it could not."""
    images(root / "mine")
    np.savez(root / "good.npz", **arrays())
    FINDS[find](root)
    for name in OWN:
        published = datasets[name].presence(root).to_json()
        json.dumps(published, ensure_ascii=False).encode()
        assert name != "npz" or "good.npz" in published["files"]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    "path", ["loop", "loop/x", "a" * 300, "a/" + "ä" * 200, "\ud800", "x\udcff", "nothing/at/all", "/", ".", ""]
)
def test_a_path_in_a_job_is_one_below_the_root_or_refused(root: Path, name: str, path: str) -> None:
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises((DatasetError, DatasetMissingError)) as caught:
        datasets[name](path=path).splits(root, seed=0)
    str(caught.value).encode()


@pytest.mark.slow
@fuzzed(12)
@given(path=st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "/", "a", "out", "\\", "\0"])).map("/".join))
def test_no_path_leads_out(folder: Path, path: str) -> None:
    if not (folder / "root" / "out").is_symlink():
        (folder / "root").mkdir()
        (folder / "root" / "out").symlink_to(folder)
    try:
        found = below(path, folder / "root")
    except DatasetError:
        return
    assert Path(os.path.realpath(found)).is_relative_to(os.path.realpath(folder / "root"))


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_is_told(root: Path) -> None:  # pragma: no cover
    images(root / "mine")
    np.savez(root / "mine" / "x.npz", **arrays())
    (root / "mine").chmod(0)
    try:
        for name in OWN:
            assert not datasets[name].presence(root).present
            with pytest.raises(DatasetError):
                datasets[name](path="mine").splits(root, 0)
    finally:
        (root / "mine").chmod(stat.S_IRWXU)


def test_messages_can_be_stored_whatever_files_are_called(root: Path) -> None:
    error = DatasetError(os.fsdecode(b"\xff.png: is no image\0"))
    assert str(error) == "\\udcff.png: is no image\N{REPLACEMENT CHARACTER}"
    images(root / "mine")
    (root / "mine" / "ant" / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"udcff\.png: is no image") as caught:
        splits = datasets["imagefolder"](path="mine", workers=0).splits(root, 0)
        for part in (splits.train, splits.validation, splits.select, splits.test):
            list(part.batches(4, None, None, torch.device("cpu")))
    str(caught.value).encode()


# --- npz --------------------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("canary"),)


def npz(folder: Path, **members: bytes) -> Path:
    """An npz file of raw members, those not given as they should be."""
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(f"{name}.npy", members.pop(name, buffer.getvalue()))
        for name, content in members.items():
            file.writestr(name, content)
    return path


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def survey(folder: Path) -> bool:
    """Whether the file there is of use; whatever it is, everything about it is an answer."""
    published = datasets["npz"].presence(folder)
    json.dumps(published.to_json()).encode()
    try:
        datasets["npz"](path="mine.npz").splits(folder, seed=0)
    except DatasetError as error:
        said = str(error)
    else:
        return True
    assert "mine.npz" in said
    return False


@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_pickled_objects_are_never_read(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    objects = np.array([Malicious()] * 60, dtype=object)
    np.savez(root / "mine.npz", **{**arrays(), name: objects})
    assert not survey(root)
    disguised = npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (60,)}", pickle.dumps(Malicious()))
    npz(root, **{name: disguised})
    assert not survey(root)
    assert [path.name for path in root.iterdir()] == ["mine.npz"]


def test_members_that_lead_out_are_passed_over(root: Path) -> None:
    evil = {f"{name}.npy": b"x" for name in ("../evil", "/tmp/evil", "..\\evil", "a/b", "x_train/../x_test")}
    npz(root, **evil)
    with open_npz(root / "mine.npz") as file:
        assert file.names == {"x_train", "y_train", "..\\evil"}
    assert survey(root)
    assert sorted(path.name for path in root.parent.rglob("*")) == ["datasets", "mine.npz", "outside"]


SHAPES = st.lists(st.integers(-1, 2**70) | st.integers(0, 100), max_size=10).map(tuple)
DESCRIPTIONS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(["|u1", "<i8", "|O", "<f4", ">f2", "|S9", "<U3", "|b1", [("a", "<i4")]]) | st.text(),
        "fortran_order": st.booleans() | st.none(),
        "shape": SHAPES | st.just([60]) | st.text(max_size=3),
    }
)
HEADERS = DESCRIPTIONS.map(repr).map(str.encode) | st.dictionaries(st.text(), st.integers()).map(repr).map(str.encode)


@pytest.mark.slow
@fuzzed(8)
@given(header=HEADERS | BYTES, data=BYTES, name=st.sampled_from(["x_train", "y_train"]))
def test_any_header(folder: Path, header: bytes, data: bytes, name: str) -> None:
    npz(folder, **{name: npy(header, data)})
    survey(folder)


@fuzzed(4)
@given(content=BYTES | BYTES.map(b"PK\x03\x04".__add__) | BYTES.map(lambda data: b"PK\x05\x06" + data[:18]))
def test_any_file(folder: Path, content: bytes) -> None:
    (folder / "mine.npz").write_bytes(content)
    assert not survey(folder)


@pytest.mark.slow
@fuzzed(8)
@given(changes=CHANGES)
def test_damage_to_the_table_of_contents(folder: Path, changes: list[tuple[int, int]]) -> None:
    content = npz(folder).read_bytes()
    start = content.index(b"PK\x01\x02")
    (folder / "mine.npz").write_bytes(content[:start] + changed(content[start:], changes))
    survey(folder)


def lying(content: bytes, size: int) -> bytes:
    """An npz file whose table of contents gives ``size`` bytes for its first array."""
    data = bytearray(content)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    return bytes(data)


def zeros(size: int, times: int = 1) -> bytes:
    """A gzip stream that unpacks to ``times`` x ``size`` bytes; members of a stream stand one behind another."""
    return gzip.compress(bytes(size), 9) * times


@bounded.only_on_linux
@pytest.mark.slow
def test_bombs_take_no_memory(tmp_path: Path) -> None:
    shape = (2**27 // 64 + 60, 8, 8)
    np.savez_compressed(tmp_path / "packed.npz", x_train=np.zeros(shape, np.uint8), y_train=np.arange(shape[0]) % 3)
    announced = npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (50000000, 8, 8)}", bytes(100))
    (tmp_path / "lying.npz").write_bytes(lying(npz(tmp_path, x_train=announced).read_bytes(), 3_200_000_075))
    many = npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000,)}", bytes(100))
    (tmp_path / "labels.npz").write_bytes(npz(tmp_path, y_train=many).read_bytes())
    head = bytes([0, 0, 8, 3])
    (tmp_path / "announced.gz").write_bytes(gzip.compress(head + struct.pack(">3I", 2**16, 2**8, 2**8)))
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(head + struct.pack(">3I", 1, 8, 8)) + zeros(2**24, 64))
    (tmp_path / "half.gz").write_bytes(gzip.compress(head + struct.pack(">3I", 2**12, 2**8, 2**8)) + zeros(2**20))
    imports = """
from pathlib import Path
import PIL.Image
from nas_core.datasets._idx import read_idx
from nas_core.datasets._npz import open_npz
from nas_core.datasets import datasets
from nas_core.errors import DatasetError
"""
    script = """
def refused(read):
    try:
        read()
        return False
    except DatasetError as error:
        print(error)
        return "fit into memory" not in str(error)

here = Path.cwd()
for name in ("packed", "lying", "labels"):
    with open_npz(here / f"{name}.npz") as file:
        wanted = "y_train" if name == "labels" else "x_train"
        assert refused(lambda: file.array(wanted)), name
published = datasets["npz"].presence(here)
assert "labels.npz" in published.hint and "fit into memory" not in published.hint, published.hint
for name in ("announced", "zeros", "half"):
    assert refused(lambda: read_idx(here / f"{name}.gz", 3)), name
"""
    said = bounded.run(imports, script, tmp_path, megabytes=384)
    assert "unpack to more than 200 times their size" in said and "announces 3200000000 bytes" in said


# --- idx --------------------------------------------------------------------------------------------------------------

IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 4, 4) + bytes(range(32))


@pytest.mark.slow
@fuzzed(12)
@given(
    content=st.builds(changed, st.sampled_from([IDX, gzip.compress(IDX)]), CHANGES, st.none() | st.integers(1, 60))
    | BYTES
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_idx_file(folder: Path, content: bytes, suffix: str) -> None:
    path = folder / f"any{suffix}"
    path.write_bytes(content)
    said = str(path)
    try:
        assert read_idx(path, 3).ndim == 3
    except DatasetError as error:
        said = str(error)
    assert str(path) in said


# --- CIFAR ------------------------------------------------------------------------------------------------------------

BATCH = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=3)


@pytest.mark.parametrize("levels", [20, 31, 60])
@pytest.mark.parametrize("again", [b"h\x00h\x00\x86", b"h\x00h\x00h\x00\x87", b"(" + b"h\x00" * 50 + b"t"])
@pytest.mark.parametrize("end", [b"", b"(u", b"(e"])
def test_keys_that_would_take_for_ever_to_hash(levels: int, again: bytes, end: bytes) -> None:
    """The last opcode may leave the tuple on the stack, and so hide what is remembered."""
    deep = b"\x80\x02}(X\x01\x00\x00\x00a" + (end + b"q\x00" + again) * levels + b"K\x01u."
    with pytest.raises(DatasetError, match="is not read here|uses again"):
        read_batch(deep, "a file")


def test_a_pickle_of_too_many_objects_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batches, "MOST_OPCODES", 50)
    with pytest.raises(DatasetError, match="has more than 50 opcodes"):
        read_batch(b"\x80\x02](" + b"N" * 100 + b"e.", "a file")


OPCODES = st.sampled_from([bytes([opcode]) for opcode in range(256)])
WORDS = OPCODES | st.sampled_from(
    [
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"cos\nsystem\n",
        b"X\x02\x00\x00\x00u1",
        b"K\x01",
        b"q\x00",
        b"h\x00",
    ]
)


@pytest.mark.slow
@fuzzed(16)
@given(
    content=st.lists(WORDS, max_size=15).map(lambda words: b"\x80\x02" + b"".join(words) + b".")
    | st.builds(changed, st.just(BATCH[:200]), CHANGES)
    | st.builds(changed, st.just(BATCH), CHANGES, st.none() | st.integers(1, 500))
)
def test_any_batch(content: bytes) -> None:
    said = "a file: "
    try:
        assert isinstance(read_batch(content, "a file"), dict)
    except DatasetError as error:
        said = str(error)
    assert said.startswith("a file: ")


def cifar(folder: Path, content: bytes) -> None:
    """Reads an archive that is none, or not whole."""
    (folder / "cifar10").mkdir(exist_ok=True)
    (folder / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"cifar-10-binary\.tar\.gz"):
        datasets["cifar10"](download=False).splits(folder, seed=0)


def archive(*members: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for member in members:
            made.addfile(member, io.BytesIO(bytes(member.size)))
    return data.getvalue()


def member(name: str, size: int = 100, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for field, value in fields.items():
        setattr(made, field, value)
    return made


TAR = archive(member("cifar-10-batches-bin/test_batch.bin"), member("x" * 120), member("y", pax_headers={"a": "b"}))


@pytest.mark.slow
@fuzzed(8)
@given(
    content=st.builds(changed, st.just(TAR), CHANGES, st.none() | st.integers(1, len(TAR))).map(zlib.compress) | BYTES
)
def test_any_archive(folder: Path, content: bytes) -> None:
    cifar(folder, content)


@pytest.mark.slow
@fuzzed(8)
@given(changes=CHANGES, cut=st.none() | st.integers(1, len(TAR)))
def test_damage_within_a_packed_archive(folder: Path, changes: list[tuple[int, int]], cut: int | None) -> None:
    cifar(folder, gzip.compress(changed(TAR, changes, cut), 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_before_headers(folder: Path, kind: bytes) -> None:
    """Each makes the reader call itself."""
    cifar(folder, gzip.compress(archive(*[member("h", 16, type=kind) for _ in range(3000)])))


@pytest.mark.parametrize(
    "fields",
    [{"type": b"2", "linkname": "/etc/passwd"}, {"type": b"1", "linkname": "../x"}, {"type": b"3"}, {"type": b"6"}],
)
def test_links_and_devices_in_an_archive(folder: Path, fields: dict[str, Any]) -> None:
    cifar(folder, gzip.compress(archive(member("cifar-10-batches-bin/test_batch.bin", 0, **fields))))


# --- images -----------------------------------------------------------------------------------------------------------


@bounded.only_on_linux
@pytest.mark.slow
@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG"])
def test_huge_images_take_bounded_memory(tmp_path: Path, format: str) -> None:
    """What is as large as may be is read; what is larger, by its header, is refused."""
    most = 16_000 if format == "WEBP" else 60_000
    Image.new("L", (8000, 8000)).save(tmp_path / "large.img", format)
    small = io.BytesIO()
    Image.new("RGB", (300, 200)).save(small, format)
    (tmp_path / "bomb.img").write_bytes(announcing(small.getvalue(), format, most))
    imports = """
from pathlib import Path
from PIL import Image
Image.init()
from nas_core.datasets._pictures import square
from nas_core.errors import DatasetError
"""
    script = """
assert square(Path("large.img"), 16).shape == (16, 16, 3)
try:
    square(Path("bomb.img"), 16)
except DatasetError as error:
    print(error)
else:
    raise AssertionError("the bomb was read")
"""
    said = bounded.run(imports, script, tmp_path, megabytes=1600 if format == "WEBP" else 900)
    assert "pixels; images of at most 67108864 are read" in said or "is no image that can be read" in said, said


def announcing(content: bytes, format: str, size: int) -> bytes:
    """An image of 300 x 200 pixels that says it has ``size`` x ``size``."""
    pairs = {
        "PNG": struct.pack(">II", 300, 200),
        "BMP": struct.pack("<ii", 300, 200),
        "GIF": struct.pack("<HH", 300, 200),
        "JPEG": struct.pack(">HH", 200, 300),
        "PPM": b"300 200",
    }
    written = {
        "PNG": struct.pack(">II", size, size),
        "BMP": struct.pack("<ii", size, size),
        "GIF": struct.pack("<HH", size, size),
        "JPEG": struct.pack(">HH", size, size),
        "PPM": b"%d %d" % (size, size),
    }
    if format in pairs:
        assert pairs[format] in content
        made = content.replace(pairs[format], written[format])
        if format == "PNG":  # its header has a checksum
            made = made[:29] + struct.pack(">I", zlib.crc32(made[12:29])) + made[33:]
        return made
    if format == "TIFF":
        for tag, old in ((256, 300), (257, 200)):
            for kind, form in ((3, "<H"), (4, "<I")):
                start = struct.pack("<HHI", tag, kind, 1)
                content = content.replace(start + struct.pack(form, old), start + struct.pack(form, size))
        return content
    extended = b"VP8X" + struct.pack("<II", 10, 0) + (size - 1).to_bytes(3, "little") * 2 + content[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended
