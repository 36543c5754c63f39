"""Whether something changed under the folder of data sets, whatever it holds and however long it takes to come."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker import data_root
from worker.data_root import DataRoot

PAST = 1_700_000_000
"""Long ago: nothing about it is racy."""


def age(root: Path, seconds: int = PAST) -> None:
    """As if all of it had lain there for long."""
    for folder, _, files in os.walk(root):
        for name in files:
            os.utime(Path(folder, name), (seconds, seconds))
        os.utime(folder, (seconds, seconds))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "mine" / name / f"{number}.png").write_bytes(b"x")
    (tmp_path / "birds.npz").write_bytes(b"x")
    age(tmp_path)
    return tmp_path


@pytest.fixture
def watch(root: Path) -> DataRoot:
    """It has told all there is."""
    made = DataRoot()
    assert made.changed(root), "the first look"
    made.tell()
    assert not made.changed(root)
    return made


CHANGES: dict[str, Callable[[Path], object]] = {
    "an image comes": lambda root: (root / "mine" / "ant" / "9.png").write_bytes(b"x"),
    "an image goes": lambda root: (root / "mine" / "bee" / "0.png").unlink(),
    "a class comes": lambda root: (root / "mine" / "cat").mkdir(),
    "a file is written in place": lambda root: (root / "birds.npz").write_bytes(b"xy"),
    "a folder is renamed": lambda root: (root / "mine").rename(root / "yours"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_told_once_they_have_settled(root: Path, watch: DataRoot, change: str) -> None:
    CHANGES[change](root)
    assert not watch.changed(root), "more of it may come"
    assert watch.changed(root)
    assert watch.changed(root), "until it is told"
    watch.tell()
    assert not watch.changed(root)


def test_a_copy_that_goes_on_is_told_after_a_while(
    root: Path, watch: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10, 13):
        (root / "mine" / "ant" / f"{number}.png").write_bytes(b"x")
        assert not watch.changed(root)
    monkeypatch.setattr(data_root, "PATIENCE_SECONDS", 0.0)
    (root / "mine" / "ant" / "13.png").write_bytes(b"x")
    assert watch.changed(root)


def test_what_is_forgotten_is_told_again(root: Path, watch: DataRoot) -> None:
    watch.forget()
    assert watch.changed(root)


def test_a_folder_that_has_not_changed_is_not_listed_again(
    root: Path, watch: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise AssertionError(f"listed {path}")

    monkeypatch.setattr(os, "scandir", refuse)
    assert not watch.changed(root)


def test_two_changes_within_one_tick_of_the_clock_are_seen(root: Path, watch: DataRoot) -> None:
    folder = root / "mine" / "ant"
    now = folder.stat().st_ctime_ns  # of this moment, unlike its set time
    states = []
    for number in (7, 8):
        (folder / f"{number}.png").write_bytes(b"x")
        os.utime(folder, ns=(now, now))
        states.append(watch.state(root))
    assert states[0] != states[1]


def test_many_images_hide_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_root, "MOST_FILES", 1)
    watch = DataRoot()
    (root / "zoo").mkdir()
    before = watch.state(root)
    (root / "zoo" / "ant").mkdir()
    assert watch.state(root) != before


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    watch = DataRoot()
    assert watch.changed(tmp_path / "later")
    watch.tell()
    assert not watch.changed(tmp_path / "later")
    (tmp_path / "later").mkdir()
    assert not watch.changed(tmp_path / "later")
    assert watch.changed(tmp_path / "later")


def test_links_are_not_followed(root: Path) -> None:
    (root / "mine" / "round").symlink_to(root)
    assert len([path for path, _, _ in DataRoot().state(root) if path.endswith("birds.npz")]) == 1
