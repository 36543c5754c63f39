"""``skyline tables`` and the client's methods for them, against the real service."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.embedded import Embedded
from skyline.cli import build
from skyline.client import Client
from skyline.errors import ApiError, InvalidSpecError
from store import session
from tests.made_table import ARCHS, CLASSES, COLUMNS, INPUT, SPACE, text, values

ADD = (
    *("--space", "nasbench201", "--set", "cells=5", "--set", "channels=2"),
    *("--set", "normal_ops=[none, conv_1x1, conv_3x3]", "--input", "1x8x8", "--classes", "10"),
    *("--column", "acc:%:max", "--column", "ms:ms"),
)


@pytest.fixture(scope="module")
def service() -> Iterator[Embedded]:
    folder = Path(tempfile.mkdtemp(prefix="skyline-"))
    with pytest.MonkeyPatch.context() as patch, Embedded(folder, port=0, workers=0) as embedded:
        patch.setenv("SKYLINE_DATA_DIR", str(folder))
        yield embedded
        session.dispose()
    shutil.rmtree(folder)


@pytest.fixture
def client(service: Embedded) -> Iterator[Client]:
    """With no table."""
    with Client(service.url) as made:
        yield made
        for one in list(made.tables()):
            made.delete_table(one.name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made.csv"
    path.write_text(text())
    return path


def run(service: Embedded, *arguments: object) -> Result:
    environment = {"SKYLINE_URL": service.url, "COLUMNS": "160"}
    return CliRunner().invoke(build(), ["tables", *map(str, arguments)], env=environment, prog_name="skyline")


def test_from_add_to_delete(service: Embedded, client: Client, file: Path) -> None:
    assert "skyline tables add NAME FILE" in run(service).stdout
    done = run(service, "add", "made", file, *ADD)
    assert done.exit_code == 0, done.output
    assert f"table made: {len(ARCHS)} architectures, 2 columns" in done.stdout
    low, high = (f"{end(values(arch)['acc'] for arch in ARCHS):.6g}" for end in (min, max))
    assert f"\nacc: read as accuracy, {low} % to {high} %\n" in done.stdout and "ms: read as" not in done.stdout
    assert "{name: error, table: made, column: ...}" in done.stdout
    known = client.table("made")
    assert known.sha256 == hashlib.sha256(text().encode()).hexdigest()
    assert [(one.name, one.unit, one.direction) for one in known.columns] == [
        ("acc", "%", "maximize"),
        ("ms", "ms", "minimize"),
    ]
    for arguments in ([], ["list"], ["show", "made"]):
        shown = run(service, *arguments).stdout
        assert "made" in shown and "acc: %, " in shown and "the more the better" in shown and known.sha256[:12] in shown
        asked = json.loads(run(service, *arguments, "--json").stdout)
        assert (asked if isinstance(asked, dict) else asked[0]) == known.model_dump(mode="json")
    assert "table made is deleted" in run(service, "delete", "made").stdout
    again = run(service, "delete", "made")
    assert (again.exit_code, "no registered table 'made'" in again.stderr) == (2, True)


def test_a_partial_one_says_what_it_lacks(service: Embedded, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "some.csv.gz"
    file.write_bytes(gzip.compress(text(ARCHS[:5]).encode()))
    refused = run(service, "add", "some", file, *ADD)
    assert refused.exit_code == 2
    assert refused.stderr.count(f"5 of {len(ARCHS)} architectures; without a row: {ARCHS[5]}") == 1, "told once"
    assert "or a partial table (--partial, or partial: true)" in refused.stderr
    done = run(service, "add", "some", file, *ADD, "--partial", "--json")
    assert json.loads(done.stdout)["missing"] == len(ARCHS) - 5
    assert f"5, {len(ARCHS) - 5} missing" in run(service, "show", "some").stdout


def test_an_accuracy_without_max_is_read_as_an_error_and_says_so(service: Embedded, client: Client, file: Path) -> None:
    done = run(service, "add", "made", file, *ADD[:-4], "--column", "acc:%")
    assert done.exit_code == 0, done.output
    assert "architectures, 1 column\n" in done.stdout
    assert "acc: read as error, " in done.stdout and "; an accuracy is --column acc:%:max\n" in done.stdout
    assert client.table("made").columns[0].says == "error"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--column", "ms"], "'ms' is no column; write it as --column NAME:UNIT"),
        (["--column", "ms:ms:up"], "'ms:ms:up' is no column"),
        (["--column", "ms:s"], "column 'ms' is named twice, 'ms:ms' and 'ms:s'; keep one of them"),
        (["--input", "3x8"], "'3x8' is no shape of images"),
        (["--set", "cells"], "'cells' is no setting"),
        (["--set", "cells=6"], "three equal stages"),
        (["--key", "cell"], "line 1, column 'cell': got a header that has it not"),
    ],
)
def test_a_wrong_option_is_named(service: Embedded, client: Client, file: Path, changed: list[str], says: str) -> None:
    done = run(service, "add", "made", file, *ADD, *changed)
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert list(client.tables()) == []


def test_a_file_that_cannot_be_read(service: Embedded, client: Client, tmp_path: Path) -> None:
    for name, content in (
        ("no.csv.gz", b"not packed"),
        ("cut.csv.gz", gzip.compress(b"x" * 99)[:-9]),
        ("no.csv", b"\xff"),
    ):
        (tmp_path / name).write_bytes(content)
    for name in ("no.csv.gz", "cut.csv.gz", "no.csv", "absent.csv"):
        with pytest.raises(InvalidSpecError, match=f"{name} is no valid table: "):
            client.add_table(
                "made", tmp_path / name, space="nasbench201", input=INPUT, classes=CLASSES, columns=COLUMNS
            )
        done = run(service, "add", "made", tmp_path / name, *ADD)
        assert done.exit_code == 2 and "is no valid table" in done.stderr and "[Errno" not in done.stderr


def test_the_client_says_what_came_back(client: Client) -> None:
    for name in ("b", "a"):
        client.add_table(name, text(), space=SPACE, input=INPUT, classes=CLASSES, columns=COLUMNS)
    assert [one.name for one in client.tables(limit=1)] == ["a", "b"]
    again = client.add_table("a", text(), space=SPACE, input=INPUT, classes=CLASSES, columns=COLUMNS)
    assert again == client.table("a")
    with pytest.raises(ApiError, match="a table 'a' is registered with another text"):
        client.add_table("a", text(), space=SPACE, input=INPUT, classes=CLASSES, columns=COLUMNS, description="x")
