"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) in files.

The authors hand out the same images several times. The binary version is read as it is; the python version, which is
made of pickles, by a reader of our own. Archives are read where they lie and nothing is unpacked to the disk.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_core.datasets._batches import pixels, read_batch
from nas_core.datasets._download import fetch_file
from nas_core.datasets._presence import Presence, Report
from nas_core.errors import DatasetError, DatasetMissingError

if TYPE_CHECKING:
    from nas_core.data import Splits

SITE = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 3 * 32 * 32
MOST_BYTES = 2**29
"""Of an archive, unpacked; the real ones have less than 200 MB."""
MOST_MEMBERS = 100

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, 32, 32, 3) and labels (N,)."""


@dataclass(frozen=True, slots=True)
class Version:
    """One way in which the images are handed out."""

    archive: str
    folder: str
    """In the archive."""
    train: tuple[str, ...]
    test: str
    read: Callable[[bytes, str], Part]


@dataclass(frozen=True, slots=True)
class Download:
    """The archive of the first version, as its authors publish it."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the two data sets."""

    name: str
    classes: int
    versions: tuple[Version, ...]
    download: Download

    def presence(self, root: Path) -> Presence:
        present = self._found(root) is not None
        searched = tuple(str(folder) for folder in self._folders(root))
        return Presence(present, searched, "" if present else self._hint(root), downloadable=not present)

    def splits(self, root: Path, seed: int, fraction: float, progress: Report | None, download: bool) -> Splits:
        from nas_core.data import Augmentation, tensor_splits

        report = progress or (lambda what, share: None)
        version, place = self._found(root) or self._fetch(root, download, report)
        report(f"reading {self.name}", 0.0)
        parts: dict[str, Part] = {}
        for name, data in _members(place, version):
            parts[name] = version.read(data, f"{place}: {name}")
            if parts[name][1].max() >= self.classes:
                label = parts[name][1].max()
                raise DatasetError(f"{place}: {name} has the label {label}; 0 to {self.classes - 1} are wanted")
            report(f"reading {self.name}", len(parts) / (len(version.train) + 1))
        images, labels = (np.concatenate([parts[name][half] for name in version.train]) for half in (0, 1))
        augmentation = Augmentation(padding=4, flip=True)
        return tensor_splits((images, labels), parts[version.test], self.classes, seed, fraction, augmentation)

    def _folders(self, root: Path) -> tuple[Path, ...]:
        return root / self.name, root

    def _found(self, root: Path) -> tuple[Version, Path] | None:
        """The first version that is whole, as a folder or as an archive."""
        for folder in self._folders(root):
            for version in self.versions:
                names = (*version.train, version.test)
                if all((folder / version.folder / name).is_file() for name in names):
                    return version, folder / version.folder
                if (folder / version.archive).is_file():
                    return version, folder / version.archive
        return None

    def _fetch(self, root: Path, download: bool, report: Report) -> tuple[Version, Path]:
        searched = " and ".join(str(folder) for folder in self._folders(root))
        missing = f"the files of {self.name} are neither in {searched}"
        if not download:
            raise DatasetMissingError(f"{missing}, and 'download' is false. {self._hint(root)}")
        version = self.versions[0]
        path = self._folders(root)[0] / version.archive
        try:
            fetch_file(SITE + version.archive, path, self.download.size, self.download.sha256, report)
        except DatasetMissingError as error:
            raise DatasetMissingError(f"{missing}, and {error}. {self._hint(root)}") from error
        return version, path

    def _hint(self, root: Path) -> str:
        archives = " or ".join(version.archive for version in self.versions)
        return f"Put {archives} from {SITE}cifar.html, unpacked or not, into {self._folders(root)[0]}"


def binary(label_bytes: int) -> Callable[[bytes, str], Part]:
    """Reads records of ``label_bytes`` labels, of which the last counts, and the pixels, colour by colour."""

    def read(data: bytes, where: str) -> Part:
        record = label_bytes + PIXELS
        if not data or len(data) % record:
            raise DatasetError(f"{where}: has {len(data)} bytes; a multiple of {record} is wanted")
        records = np.frombuffer(data, np.uint8).reshape(-1, record)
        return _images(records[:, label_bytes:]), records[:, label_bytes - 1].astype(np.int64)

    return read


def python(key: str) -> Callable[[bytes, str], Part]:
    """Reads a batch with ``data`` (N, 3072) and a list of labels under ``key``."""

    def read(data: bytes, where: str) -> Part:
        batch = read_batch(data, where)
        images, labels = pixels(batch.get("data"), where), batch.get(key)
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
            raise DatasetError(f"{where}: '{key}' is no list of labels")
        if images.shape != (len(labels), PIXELS):
            raise DatasetError(f"{where}: 'data' has shape {images.shape} with {len(labels)} labels; (N, {PIXELS})")
        return _images(images), np.array(labels, np.int64)

    return read


def _images(flat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, 3072), colour by colour, to (N, 32, 32, 3)."""
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _members(place: Path, version: Version) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a version. Raises DatasetError for what no such folder or archive is."""
    wanted = {*version.train, version.test}
    if place.is_dir():
        for name in sorted(wanted):
            with _readable(place / name), (place / name).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise DatasetError(f"{place / name}: has more than {MOST_BYTES} bytes")
            yield name, data
        return
    with _readable(place), gzip.open(place) as plain:
        for name, data in _archived(place, version.folder, set(wanted), _Limited(plain, place)):
            wanted.discard(name)
            yield name, data
    if wanted:
        raise DatasetError(f"{place}: lacks {version.folder}/{min(wanted)}")


def _archived(place: Path, folder: str, names: set[str], stream: _Limited) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for count, member in enumerate(archive):
            name = PurePosixPath(member.name)
            if not (member.isreg() or member.isdir()):
                raise DatasetError(f"{place}: '{member.name}' is a link or a device; only files are read")
            if name.is_absolute() or ".." in name.parts:
                raise DatasetError(f"{place}: '{member.name}' leads out of the archive")
            if count >= MOST_MEMBERS:
                raise DatasetError(f"{place}: has more than {MOST_MEMBERS} members")
            if member.isreg() and name.parent.as_posix() == folder and name.name in names:
                file = archive.extractfile(member)
                yield name.name, file.read() if file is not None else b""


class _Limited(io.RawIOBase):
    """A stream that ends in an error after MOST_BYTES: headers of archives are not believed either."""

    def __init__(self, plain: Any, place: Path) -> None:
        self._plain, self._place, self._left = plain, place, MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._plain.read(min(size if size >= 0 else self._left + 1, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise DatasetError(f"{self._place}: unpacks to more than {MOST_BYTES} bytes")
        return data


DAMAGES = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    ValueError,
    OverflowError,
    RecursionError,  # headers that go before headers, a thousand times
)


class _readable:  # noqa: N801 - reads as a statement
    """Turns what damaged files raise into DatasetError."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DAMAGES):
            raise DatasetError(f"{self._place}: cannot be read: {error}") from error
