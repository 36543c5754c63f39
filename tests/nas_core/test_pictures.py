"""The look at all pictures of a folder before a job reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nas_core import pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey and coloured ones of several sizes and formats, in two classes."""
    for name, mode in (("ant", "L"), ("red bee", "RGB")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(6):
            size = (10 + number, 20)
            Image.new(mode, size).save(tmp_path / "mine" / name / f"{number}.{('png', 'jpg')[number % 2]}")
    return tmp_path / "mine"


def test_all_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pictures.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert said == "12 pictures in 2 classes: ant 6, red bee 6; smaller side 10 to 15 pixels; grey 6\n"


def test_each_that_cannot_be_read_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = folder / "ant" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (folder / "red bee" / "5.jpg").write_bytes(b"")
    (folder / "red bee" / ".hidden.jpg").write_bytes(b"")
    assert pictures.main([str(folder), "--size", "8"]) == 1
    first, second, counted, advice = capsys.readouterr().out.splitlines()
    assert str(broken) in first and "is no image that can be read" in first
    assert str(folder / "red bee" / "5.jpg") in second
    assert counted.startswith("10 pictures in 2 classes: ant 5, red bee 5")
    assert advice == "2 cannot be read: mend or remove them before a job is posted"


def test_train_and_test_are_both_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "cut").mkdir()
    folder.rename(folder.parent / "cut" / "train")
    (folder.parent / "cut" / "test" / "ant").mkdir(parents=True)
    (folder.parent / "cut" / "test" / "ant" / "x.gif").write_bytes(b"GIF89a")
    assert pictures.main([str(folder.parent / "cut")]) == 1
    assert "x.gif" in capsys.readouterr().out


def test_what_is_no_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pictures.main([str(tmp_path / "none")]) == 2
    assert "cannot be listed" in capsys.readouterr().err
    assert pictures.main([str(tmp_path)]) == 2
    assert "at least 2, one for each class" in capsys.readouterr().err
