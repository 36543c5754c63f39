"""Where artefact files lie: one suite for the folder and for a store of objects, then what each has of its own."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from uuid import uuid4

import pytest

from store import artefacts, objects
from store.artefacts import PIECE_BYTES
from store.errors import ArtefactsAwayError, ArtefactUrlError, DamagedArtefactError, MissingArtefactError
from store.settings import settings
from tests import s3

PLACES = ["folder", "file_url", "s3"]
OUTSIDE = ["../secret", "a/../../secret", "/etc/passwd", "a//b", "./a", "a/.", "", ".", "a\\b", "a\0b", "a\nb"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Nothing here asks the database: one kind of it will do."""
    return sqlite_url


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> artefacts.Files:
    """Each kind of place in turn, empty."""
    if request.param == "file_url":
        monkeypatch.setenv("SKYLINE_ARTEFACT_URL", f"file://{tmp_path}/a%20folder")
    elif request.param == "s3":
        request.getfixturevalue("bucket")
    return artefacts.files()


def local(folder: Path, content: bytes) -> Path:
    path = folder / f"local-{uuid4()}"
    path.write_bytes(content)
    return path


def read(place: artefacts.Files, path: str, start: int, stop: int) -> bytes:
    return b"".join(place.read(path, start, stop))


def test_what_is_put_is_there_until_it_is_deleted(place: artefacts.Files, tmp_path: Path) -> None:
    assert place.size("job/one") is None
    place.put("job/one", local(tmp_path, b"0123456789"))
    place.put("job/two", local(tmp_path, b""))
    assert (place.size("job/one"), place.size("job/two")) == (10, 0)
    assert read(place, "job/one", 0, 10) == b"0123456789"
    assert read(place, "job/one", 3, 7) == b"3456"
    place.delete(["job/one", "job/never"])
    assert (place.size("job/one"), place.size("job/two")) == (None, 0)
    place.delete(["job/one", "job/two"])
    place.delete([])
    with pytest.raises(MissingArtefactError, match=r"job/one is not there any more; workers on several hosts need one"):
        read(place, "job/one", 0, 1)


def test_large_files_come_in_pieces(place: artefacts.Files, tmp_path: Path) -> None:
    content = os.urandom(2 * PIECE_BYTES + 5)
    place.put("job/large", local(tmp_path, content))
    pieces = list(place.read("job/large", 1, len(content)))
    assert b"".join(pieces) == content[1:]
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 4]


def test_a_file_is_fetched_and_its_bytes_are_those_that_were_stored(place: artefacts.Files, tmp_path: Path) -> None:
    content = os.urandom(PIECE_BYTES + 1)
    place.put("job/weights", local(tmp_path, content))
    found = artefacts.fetch("job/weights", hashlib.sha256(content).hexdigest(), tmp_path)
    assert found.read_bytes() == content
    with pytest.raises(
        DamagedArtefactError, match=rf"job/weights is damaged: .*{'0' * 64}, and has {'.' * 64}; restore"
    ):
        artefacts.fetch("job/weights", "0" * 64, tmp_path)
    with pytest.raises(MissingArtefactError, match="job/gone"):
        artefacts.fetch("job/gone", "0" * 64, tmp_path)


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leads_elsewhere_is_none(place: artefacts.Files, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    assert place.size(path) is None and place.locate(path) is None
    with pytest.raises(MissingArtefactError):
        read(place, path, 0, 1)
    with pytest.raises(ValueError, match="is no path below"):
        place.put(path, local(tmp_path, b"x"))
    place.delete([path])
    assert (tmp_path / "secret").read_text() == "secret"


def test_whoever_starts_something_hears_nothing(place: artefacts.Files) -> None:
    assert artefacts.trouble() is None


# --- folders ----------------------------------------------------------------------------------------------------------


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", settings().artefact_dir
    outside.mkdir()
    (outside / "secret").write_text("secret")
    folder.mkdir()
    (folder / "job").symlink_to(outside)
    (folder / "link").symlink_to(outside / "secret")
    place = artefacts.files()
    for path in ("job/secret", "link"):
        assert place.size(path) is None and place.locate(path) is None
        place.delete([path])
        with pytest.raises(ValueError, match="is no path below the artefact folder"):
            place.put(path, local(tmp_path, b"x"))
    assert (outside / "secret").read_text() == "secret"


def test_a_kill_leaves_half_a_file_under_another_name_that_goes_with_it(tmp_path: Path) -> None:
    place = artefacts.files()
    half = settings().artefact_dir / f"job/one{artefacts.PARTIAL}"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert place.size("job/one") is None
    place.put("job/one", local(tmp_path, b"whole"))
    assert [path.name for path in half.parent.iterdir()] == ["one"]
    half.write_bytes(b"half")
    place.delete(["job/one"])
    assert list(settings().artefact_dir.iterdir()) == [], "nor an empty folder"


def test_a_folder_that_cannot_be_written_says_so_without_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings().artefact_dir.write_text("a file in its place")
    with pytest.raises(ArtefactsAwayError, match=r"the folder cannot be written \(.+\); nothing was changed") as raised:
        artefacts.files().put("job/one", local(tmp_path, b"x"))
    assert str(tmp_path) not in str(raised.value) and str(tmp_path) in caplog.text
    assert str(artefacts.trouble()).startswith(f"artefacts at {settings().artefact_dir}: the folder cannot be written")


# --- stores of objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "just/words",
        "ftp://host/folder",
        "s3:///prefix",
        "file://",
        "file://host/folder",
        f"s3://{s3.KEY}:{s3.SECRET}@bucket/prefix",
        f"s3://bucket/prefix?secret_access_key={s3.SECRET}",
        f"az://{s3.SECRET}@account/container",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SKYLINE_ARTEFACT_URL", url)
    with pytest.raises(
        ArtefactUrlError, match=r"it takes s3://bucket/prefix, .* keys in variables of their own"
    ) as raised:
        artefacts.files()
    assert s3.SECRET not in str(raised.value) and s3.KEY not in str(raised.value)


def test_paths_lie_below_the_prefix(bucket: str, s3_server: s3.Server, tmp_path: Path) -> None:
    artefacts.files().put("job/one", local(tmp_path, b"x"))
    (asked,) = [
        line for line in s3_server.requests() if "PUT" in line and bucket.split("/")[2] in line and "job" in line
    ]
    assert f"{bucket.removeprefix('s3:/')}/job/one" in asked


def test_a_store_that_is_away_says_so_soon(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    place = artefacts.files()
    content = local(tmp_path, b"x")
    for ask in (
        lambda: place.put("job/one", content),
        lambda: place.size("job/one"),
        lambda: list(place.read("job/one", 0, 1)),
        lambda: place.delete(["job/one"]),
    ):
        with pytest.raises(ArtefactsAwayError, match=r"did not answer \(.+\); nothing was changed, ask again"):
            ask()
    assert "did not answer" in str(artefacts.trouble())


def test_a_bucket_that_is_not_there_is_told(
    s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3_server.variables("s3://nobodys-bucket").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArtefactsAwayError, match="there is no such bucket"):
        artefacts.files().put("job/one", local(tmp_path, b"x"))
    assert artefacts.trouble() == "artefacts at s3://nobodys-bucket: there is no such bucket"


def test_of_an_error_of_the_library_only_known_words_are_told() -> None:
    answer = (
        "Error performing PUT https://host/bucket?X-Amz-Signature=abc in 3ms - Server returned non-2xx status code: "
        f"403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{s3.KEY}</AWSAccessKeyId>"
        f"<Token>{s3.SECRET}</Token></Error>"
    )
    assert objects.cause(RuntimeError(answer)) == "refused the credentials (403 SignatureDoesNotMatch)"
    assert objects.cause(OSError(f"tcp connect error: Connection refused {s3.SECRET}")) == (
        "did not answer (Connection refused)"
    )
    assert objects.cause(RuntimeError(s3.SECRET)) == "did not answer (RuntimeError)"


def test_no_key_is_in_an_error_or_a_log(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    place = artefacts.files()
    with pytest.raises(ArtefactsAwayError) as raised:
        place.put("job/one", local(tmp_path, b"x"))
    said = f"{raised.value!r} {raised.value.__cause__} {place!r} {place.shown} {caplog.text}"
    assert not re.search(f"{s3.SECRET}|{s3.KEY}", said)
    assert raised.value.__suppress_context__, "a traceback does not show what the library said"


def test_keys_that_change_are_seen_at_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = artefacts.files()
    assert artefacts.files() is before
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert artefacts.files() is not before
