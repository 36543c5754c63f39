"""Settings: from the environment, with everything in one folder unless said otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from store.engine import shown_url
from store.settings import SettingsError, checked, settings


@pytest.fixture(autouse=True)
def nothing_set(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "DATABASE_URL", "BROKER_URL"):
        monkeypatch.delenv(f"SKYLINE_{name}", raising=False)


def test_everything_lies_in_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKYLINE_DATA_DIR", str(tmp_path))
    found = settings()
    assert found.database_url == f"sqlite:///{tmp_path}/skyline.db"
    assert found.broker_url == f"redis+socket://{tmp_path}/broker.sock"
    folders = (found.data_root, found.artefact_dir, found.checkpoint_dir, found.log_dir)
    assert folders == tuple(tmp_path / name for name in ("datasets", "artefacts", "checkpoints", "logs"))


def test_the_default_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings().database_url == f"sqlite:///{tmp_path}/.local/share/skyline/skyline.db"


def test_a_relative_folder_is_taken_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKYLINE_DATA_DIR", "data")
    assert settings().database_url == f"sqlite:///{tmp_path}/data/skyline.db"


def test_each_can_be_set_and_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().lease_seconds == 30
    monkeypatch.setenv("SKYLINE_LEASE_SECONDS", "5.5")
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://host/db")
    assert (settings().lease_seconds, settings().database_url) == (5.5, "postgresql://host/db")
    monkeypatch.setenv("SKYLINE_LEASE_SECONDS", "")  # as docker compose passes what is not set
    assert settings().lease_seconds == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "0"),
        ("MAX_ATTEMPTS", "0"),
        ("RELAY_SECONDS", "soon"),
        ("KEEP_JOBS_DAYS", "-1"),
        ("ARTEFACT_QUOTA_MB", "all"),
    ],
)
def test_nonsense_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"SKYLINE_{name}", value)
    with pytest.raises(SettingsError, match=f"SKYLINE_{name} is '{re.escape(value)}': "):
        settings()
    with pytest.raises(SystemExit, match="2"):
        checked()
    assert f"error: SKYLINE_{name} is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("postgresql://db/x?user=me&password=secret", "postgresql+psycopg://db/x"),
        ("sqlite:////data/skyline.db", "sqlite:////data/skyline.db"),
    ],
)
def test_an_address_is_told_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown
