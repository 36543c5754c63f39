"""A user's own images as files: a folder of folders, one for each class, in the folder of data sets.

``CLASS/IMAGE``, or ``train/CLASS/IMAGE`` and, if there is one, ``test/CLASS/IMAGE``. Without test images 20 % of each
class are held out for the test, always the same. Classes are numbered by the order of their names. Names that begin
with a dot are passed over, and so are files whose suffix is not that of an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le, MaxLen, MinLen
from numpy.typing import NDArray

from nas_core.cuts import hold_out, split_by_class
from nas_core.datasets import datasets
from nas_core.datasets._paths import below, can_be_named, lies_below
from nas_core.datasets._pictures import SUFFIXES, square
from nas_core.datasets._presence import Presence, Report, own_files
from nas_core.errors import DatasetError, DatasetMissingError
from nas_core.settings import settings

if TYPE_CHECKING:
    from nas_core.data import Splits

SMALLEST_CLASS = 5
"""Training images a class must have."""
TEST_SHARE = 0.2
"""Held out of each class where the folder has no test images."""
DEEPEST = 3
"""Levels below the folder of data sets at which folders of images are looked for."""
MOST_LOOKED_AT = 10_000
"""Folders, when they are listed."""
MOST_IMAGES = 10_000_000
SAMPLE = 256
"""Training images of which mean and standard deviation are taken: all of them would take an epoch's reading."""
SAMPLE_BATCH = 32
USUAL_SIZE = 64


@datasets.register("imagefolder")
@settings
class ImageFolder:
    """Your own images: a folder with a folder of image files for each class, if you like below train and test."""

    facts: ClassVar[Mapping[str, Any]] = {}

    path: Annotated[str, MinLen(1), MaxLen(1000)]
    """Below the folder of data sets, with '/', such as mine/birds."""
    size: Annotated[int, Ge(8), Le(512)] = USUAL_SIZE
    """Height and width that images are scaled to, pixels; what is not square loses its ends."""
    workers: Annotated[int, Ge(0), Le(64)] = 2
    """Processes that read images beside the training; at most the cores there are. Results do not depend on it."""
    flip: bool = False
    """Mirror training images left to right at random."""

    @classmethod
    def presence(cls, root: Path) -> Presence:
        """Lists the folders of images below ``root``; opens no image."""
        files: dict[str, dict[str, Any]] = {}
        faults: dict[str, str] = {}
        candidates, links = _candidates(root)
        for link in links:
            where = f"it leads out of {root}; copy or move what it leads to there"
            if lies_below(link, root):
                where = "name the folder that it leads to"
            faults[link.relative_to(root).as_posix()] = f"{link}: is a symbolic link, which is not followed: {where}"
        for folder in candidates:
            name = folder.relative_to(root).as_posix()
            try:
                files[name] = _survey(folder, root).to_json()
            except DatasetError as error:
                faults[name] = str(error)
        hint = f"Put a folder with a folder of images for each class (CLASS/IMAGE, or train/CLASS/IMAGE) into {root}"
        return own_files(root, hint, files, faults)

    def splits(self, root: Path, seed: int, fraction: float = 1.0, progress: Report | None = None) -> Splits:
        from nas_core.data import Augmentation, cut_splits

        report = progress or (lambda what, share: None)
        report(f"listing {self.path}", 0.0)
        survey = _survey(self._folder(root), root)
        report(f"listing {self.path}", 1.0)
        kept, held = survey.cut()
        mean, std = self._statistics(survey.training, kept)
        whole = self._split(survey.training, mean, std).part(kept)
        test = self._split(survey.test or survey.training, mean, std).part(held)
        cut = split_by_class(survey.training.labels[kept], seed, fraction=fraction)
        input = (3, self.size, self.size)
        augmentation = Augmentation(padding=self.size // 8, flip=self.flip)
        return cut_splits(whole, test, cut, input, len(survey.classes), augmentation, mean, std)

    def _folder(self, root: Path) -> Path:
        """Raises DatasetError for a path that leaves ``root``, also by a symbolic link, and DatasetMissingError."""
        path = below(self.path, root)
        if not os.path.isdir(path):
            named = filter(can_be_named, _candidates(root)[0])
            known = ", ".join(sorted(found.relative_to(root).as_posix() for found in named)[:20])
            raise DatasetMissingError(f"there is no folder {path}; folders of images there: {known or 'none'}")
        return path

    def _split(self, listing: _Listing, mean: Sequence[float], std: Sequence[float]) -> Any:
        from nas_core.streams import StreamedSplit

        return StreamedSplit(_Squares(listing, self.size), listing.labels, mean, std, self.workers)

    def _statistics(self, listing: _Listing, kept: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation by channel of some training images, whatever seed and fraction are."""
        import torch

        from nas_core.data import statistics_of
        from nas_core.streams import read_ahead

        drawn = kept[np.argsort(np.random.PCG64(0).random_raw(len(kept)), kind="stable")[:SAMPLE]]
        pieces = torch.split(torch.from_numpy(drawn), SAMPLE_BATCH)
        return statistics_of(read_ahead(_Squares(listing, self.size), pieces, self.workers))


def files_by_class(folder: Path) -> list[tuple[str, Path]]:
    """Class and file of every image, those for training first. Raises DatasetError for what is no folder of images."""
    survey = _survey(folder, folder.parent)
    parts = [survey.training] if survey.test is None else [survey.training, survey.test]
    return [
        (survey.classes[label], part.path(place)) for part in parts for place, label in enumerate(part.labels.tolist())
    ]


@dataclass(frozen=True)
class _Listing:
    """Image files with their labels. Names lie in one piece: lists of a million strings are large and copied by every
    process that touches them.
    """

    folder: Path
    names: bytes
    """Below the folder, one after another."""
    ends: NDArray[np.int64]
    """(N,): where each name ends."""
    labels: NDArray[np.int64]
    """(N,)."""

    def path(self, place: int) -> Path:
        start = self.ends[place - 1] if place else 0
        return self.folder / os.fsdecode(self.names[start : self.ends[place]])


@dataclass(frozen=True)
class _Squares:
    """Reads files of a listing as squares of ``size`` pixels (nas_core.streams.Reader)."""

    listing: _Listing
    size: int

    def __call__(self, places: Sequence[int]) -> NDArray[np.uint8]:
        try:
            return np.stack([square(self.listing.path(place), self.size) for place in places])
        except DatasetError as error:
            all_of_them = f"python -m nas_core.pictures '{self.listing.folder}' names all such files"
            raise DatasetError(f"{error}; mend or remove it: {all_of_them}") from error


@dataclass(frozen=True)
class _Survey:
    """A folder that is right, as far as names tell."""

    classes: tuple[str, ...]
    training: _Listing
    test: _Listing | None

    def cut(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the training images in ``training``, and of the test images in ``test`` or else ``training``."""
        if self.test is not None:
            return np.arange(len(self.training.labels)), np.arange(len(self.test.labels))
        return hold_out(self.training.labels, TEST_SHARE)

    def to_json(self) -> dict[str, Any]:
        count = len(self.training.labels)
        test = int(TEST_SHARE * count) if self.test is None else len(self.test.labels)
        train = count - test if self.test is None else count
        # the height and width are those that the setting 'size' asks for
        input = [3, USUAL_SIZE, USUAL_SIZE]
        return {"input": input, "scaled_by": "size", "classes": len(self.classes), "train": train, "test": test}


def _survey(folder: Path, root: Path) -> _Survey:
    """Lists all images. Raises DatasetError for what is no folder of images."""
    try:
        return _surveyed(folder, root)
    except OSError as error:  # what may not be looked at
        raise DatasetError(f"{folder}: cannot be listed: {error}") from error


def _surveyed(folder: Path, root: Path) -> _Survey:
    has_train, has_test = (os.path.isdir(folder / name) for name in ("train", "test"))  # False where that is forbidden
    if has_test and not has_train:
        raise DatasetError(f"{folder}: has a folder 'test', but none called 'train' beside it")
    base = folder / "train" if has_train else folder
    classes = tuple(_class_folders(base, root))
    if len(classes) < 2:
        raise DatasetError(f"{base}: has {len(classes)} folders; at least 2, one for each class, are wanted")
    training = _listing(base, classes, root)
    counts = np.bincount(training.labels, minlength=len(classes))
    if counts.min() < SMALLEST_CLASS:
        label = int(counts.argmin())
        raise DatasetError(
            f"{base}: class {classes[label]!r} has {counts[label]} images ({', '.join(sorted(SUFFIXES))}); at least "
            f"{SMALLEST_CLASS} are needed"
        )
    if not has_test:
        return _Survey(classes, training, None)
    unknown = sorted(set(_class_folders(folder / "test", root)) - set(classes))
    if unknown:
        raise DatasetError(f"{folder / 'test'}: class {unknown[0]!r} is not among those of {base}")
    test = _listing(folder / "test", classes, root)
    if not len(test.labels):
        raise DatasetError(f"{folder / 'test'}: has no images; add some, or take the folder away")
    return _Survey(classes, training, test)


def _class_folders(base: Path, root: Path) -> list[str]:
    """Names of the folders in ``base``, in order."""
    return [entry.name for entry in _entries(base, root) if os.path.isdir(entry.path)]


def _listing(base: Path, classes: Sequence[str], root: Path) -> _Listing:
    names, ends, labels, end = [], [], [], 0
    for label, name in enumerate(classes):
        if not os.path.isdir(base / name):
            continue
        for entry in _entries(base / name, root):
            if entry.is_dir():
                raise DatasetError(f"{entry.path}: is a folder; images lie directly in the folder of their class")
            if Path(entry.name).suffix.lower() not in SUFFIXES:
                continue
            if not entry.is_file():
                raise DatasetError(f"{entry.path}: is no file that can be read")
            names.append(os.fsencode(f"{name}/{entry.name}"))
            end += len(names[-1])
            ends.append(end)
            labels.append(label)
            if len(labels) > MOST_IMAGES:
                raise DatasetError(f"{base}: has more than {MOST_IMAGES} images")
    return _Listing(base, b"".join(names), np.array(ends, np.int64), np.array(labels, np.int64))


def _entries(folder: Path, root: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, by name. Raises DatasetError for a symbolic link that leads out of ``root``."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=_by_name)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed: {error}") from error
    for entry in entries:
        if entry.is_symlink() and not lies_below(Path(entry.path), root):
            raise DatasetError(f"{entry.path}: is a symbolic link that leads out of {root}")
        yield entry


def _by_name(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _candidates(root: Path) -> tuple[list[Path], list[Path]]:
    """Folders below ``root`` that look as if they were meant to hold images by class, and links to folders."""
    found: list[Path] = []
    links: list[Path] = []
    level, looked = [root], 0
    for _ in range(DEEPEST):
        deeper = []
        for folder in level:
            children, linked = _folders(folder)
            links += linked
            for child in children:
                looked += 1
                if looked > MOST_LOOKED_AT:
                    return found, links
                base = child / "train" if os.path.isdir(child / "train") else child
                if _has_image(child) or any(_has_image(each) for each in _folders(base)[0]):
                    found.append(child)
                else:
                    deeper.append(child)
        level = deeper
    return found, links


def _folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders in a folder, and links to folders; none where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if not e.name.startswith(".") and os.path.isdir(e.path)), key=_by_name)
            plain = [Path(entry.path) for entry in entries if not entry.is_symlink()]
            return plain, [Path(entry.path) for entry in entries if entry.is_symlink()]
    except OSError:
        return [], []


def _has_image(folder: Path) -> bool:
    try:
        with os.scandir(folder) as found:
            return any(Path(entry.name).suffix.lower() in SUFFIXES for entry in found)
    except OSError:
        return False
