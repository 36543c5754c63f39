"""``skyline keys`` on a database that is there, on one that is not yet, and what `serve` says without a key."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.embedded import Embedded, KeysNeededError
from api.hosts import host_of, is_loopback
from skyline.cli import build
from skyline.client import Client
from skyline.errors import ApiError
from store import keys
from store.session import dispose, reading, unit_of_work


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["keys", *arguments], prog_name="skyline", env={"COLUMNS": "160"})


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nothing has served yet."""
    for name in ("DATABASE_URL", "KEYS"):
        monkeypatch.delenv(f"SKYLINE_{name}", raising=False)
    monkeypatch.setenv("SKYLINE_DATA_DIR", str(tmp_path / "other"))
    return tmp_path / "new"


def test_a_key_is_printed_alone_and_opens_the_database(environment_on_each: Path) -> None:
    done = run("create", "nightly pipeline")
    assert done.exit_code == 0
    secret = done.stdout.strip()
    assert keys.FORM.fullmatch(secret) and done.stdout == secret + "\n"
    assert "scope submit" in done.stderr and "until it is revoked" in done.stderr and "never again" in done.stderr
    with reading() as session:
        row = keys.verify(session, secret)
    assert (row.name, row.scope, row.expires_at) == ("nightly pipeline", "submit", None)
    dispose()


def test_options_of_a_key(folder: Path) -> None:
    done = run(
        *("create", "team", "--scope", "read", "--days", "30", "--requests-per-minute", "60", "--open-jobs", "2"),
        "--json",
    )
    made = json.loads(done.stdout)
    with reading() as session:
        row = keys.verify(session, made["key"])
    assert (row.scope, row.requests_per_minute, row.open_jobs) == ("read", 60, 2)
    assert row.expires_at is not None and (row.expires_at - row.created_at).days == 30
    assert made["id"] == str(row.id) and made["state"] == "active"


def test_keys_are_listed_and_revoked(folder: Path) -> None:
    assert "skyline keys create" in run("list").stdout
    one, two = (run("create", name).stdout.strip() for name in ("[red]one", "two"))
    listed = run("list").stdout
    assert f"{one[:12]}..." in listed and "[red]one" in listed and "active" in listed
    assert one not in listed and two not in listed
    done = run("revoke", f"{one[:12]}...")
    assert done.exit_code == 0 and f"{one[:12]}..." in done.stdout and one not in done.output
    states = {row["name"]: row["state"] for row in json.loads(run("list", "--json").stdout)}
    assert states == {"[red]one": "revoked", "two": "active"}
    assert "digest" not in run("list", "--json").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("create",),
        ("create", ""),
        ("create", "x" * 201),
        ("create", "a\nb"),
        ("create", "x", "--scope", "root"),
        ("create", "x", "--days", "0"),
        ("create", "x", "--open-jobs", "-1"),
        ("revoke", "skl_AAAAAAAA"),
    ],
)
def test_nonsense_is_exit_2(folder: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2 and done.stdout == "" and done.stderr


def test_the_first_key_may_come_before_the_first_start(nothing: Path) -> None:
    done = run("create", "me", "--scope", "admin", "--data-dir", str(nothing))
    assert done.exit_code == 0, done.output
    assert (nothing / "skyline.db").is_file() and nothing.stat().st_mode & 0o077 == 0
    assert [row["name"] for row in json.loads(run("list", "--json", "--data-dir", str(nothing)).stdout)] == ["me"]


def test_a_database_that_is_away_is_told_without_its_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://user:hidden@127.0.0.1:1/x")
    done = run("create", "me")
    assert done.exit_code == 1 and "cannot be used" in done.stderr and "hidden" not in done.output


# --- serve ------------------------------------------------------------------------------------------------------------


def test_serve_refuses_other_machines_without_a_key(nothing: Path) -> None:
    service = Embedded(nothing, port=0, host="0.0.0.0", workers=0)
    with pytest.raises(KeysNeededError, match=rf"0\.0\.0\.0.*skyline keys create NAME .*--data-dir {nothing}"):
        service.start()
    assert service.children == []


def test_serve_asks_for_keys_where_it_must(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Embedded(nothing).keys == "off"
    assert Embedded(nothing, host="localhost").keys == Embedded(nothing, host="::1").keys == "off"
    for host in ("0.0.0.0", "::", "10.0.0.5", "desk"):
        assert Embedded(nothing, host=host).keys == "required"
    monkeypatch.setenv("SKYLINE_KEYS", "off")
    assert Embedded(nothing, host="0.0.0.0").keys == "required"
    monkeypatch.setenv("SKYLINE_KEYS", "required")
    service = Embedded(nothing, port=0, workers=0)
    assert service.keys == "required"
    with pytest.raises(KeysNeededError, match="SKYLINE_KEYS=required"):
        service.start()


@pytest.mark.e2e
def test_serve_with_a_key_lets_in_who_has_it(short_folder: Path, nothing: Path) -> None:
    folder = short_folder / "keys"
    secret = run("create", "me", "--scope", "admin", "--data-dir", str(folder)).stdout.strip()
    with Embedded(folder, port=0, host="0.0.0.0", workers=0) as service:
        with Client(service.url) as stranger, pytest.raises(ApiError, match="SKYLINE_API_KEY") as caught:
            list(stranger.jobs())
        assert caught.value.status == 401
        with Client(service.url, secret) as client:
            assert list(client.jobs()) == []
            assert client.version().tables
        done = CliRunner().invoke(build(), ["jobs", "--url", service.url, "--api-key", secret], prog_name="skyline")
        assert done.exit_code == 0, done.output
        said = "".join(path.read_text(errors="replace") for path in service.log_dir.iterdir())
    assert secret[12:] not in said
    dispose()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("Localhost.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("desk", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("10.0.0.1", False),
    ],
)
def test_which_addresses_are_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.example:8765", "a.example"),
        ("[::1]:8765", "::1"),
        ("http://A.example:80", "a.example"),
        ("null", "null"),
        ("", ""),
        ("[", ""),
        ("user@127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_host_of_an_authority(authority: str, host: str) -> None:
    assert host_of(authority) == host


def test_nothing_is_logged_of_a_new_key(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with unit_of_work() as session:
        secret = keys.create(session, "me", "read")[1]
    assert secret[12:] not in caplog.text
