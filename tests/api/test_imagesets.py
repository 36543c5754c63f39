"""What shape a job's images have where a setting decides about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from api import imagesets
from api.errors import Fault
from api.imagesets import Images
from nas_core.datasets import datasets
from nas_core.settings import form
from skyline.schemas import CatalogEntry


@pytest.fixture
def entry(tmp_path: Path) -> CatalogEntry:
    """As a worker with a folder of images publishes it."""
    for name in ("ant", "bee"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (4, 4)).save(tmp_path / "mine" / name / f"{number}.png")
    cls = datasets["imagefolder"]
    presence = {"worker-1": cls.presence(tmp_path).to_json()}
    return CatalogEntry(kind="dataset", name="imagefolder", summary="", settings=form(cls), workers=presence)


@pytest.mark.parametrize(("settings", "size"), [({}, 64), ({"size": 24}, 24)])
def test_the_size_of_a_folder_of_images_is_a_setting(entry: CatalogEntry, settings: dict[str, Any], size: int) -> None:
    found = imagesets.find(entry, {"path": "mine", **settings}, frozenset({"worker-1"}))
    assert found == Images((3, size, size), 2, train=16, test=4)


def test_a_folder_that_is_not_there_lists_what_is(entry: CatalogEntry) -> None:
    found = imagesets.find(entry, {"path": "yours"}, frozenset({"worker-1"}))
    assert isinstance(found, Fault) and "known files: mine" in found.detail


def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    """As the worker saw it: a link out of its folder of data sets, a class with too few images."""
    outside, root = tmp_path / "outside", tmp_path / "datasets"
    for folder, count in ((outside, 10), (root / "few", 2)):
        for name in ("ant", "bee"):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4)).save(folder / name / f"{number}.png")
    (root / "mine").symlink_to(outside)
    cls = datasets["imagefolder"]
    workers = {"worker-1": cls.presence(root).to_json()}
    entry = CatalogEntry(kind="dataset", name="imagefolder", summary="", settings=form(cls), workers=workers)
    for path, why in (("mine", "it leads out of"), ("few", "class 'ant' has 2 images"), ("./few/", "at least 5")):
        found = imagesets.find(entry, {"path": path}, frozenset({"worker-1"}))
        assert isinstance(found, Fault) and found.title == "Data set not usable"
        assert why in found.detail and "worker worker-1" in found.detail and found.path == "/dataset/path"


def test_a_path_written_another_way_is_the_same_folder(entry: CatalogEntry) -> None:
    assert imagesets.find(entry, {"path": "./mine/"}, frozenset()) == Images((3, 64, 64), 2, train=16, test=4)
