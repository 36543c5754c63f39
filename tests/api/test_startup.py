"""The API as a process of its own refuses tables that are not its own, and says what to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.startup import mismatch

STARTUP_FAILED = 3
"""Uvicorn's exit code."""


def test_without_tables_it_refuses_in_one_sentence(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "uvicorn", "api.app:app", "--port", "0"]
    env = {**os.environ, "SKYLINE_DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == STARTUP_FAILED
    assert "has schema none" in ended.stderr and "run `python -m store.migrate`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_with_tables_it_starts(folder: Path) -> None:
    assert mismatch() is None


def test_a_database_that_is_away_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://someone:secret@127.0.0.1:1/nothing")
    assert mismatch() is None


def test_an_address_of_artefacts_that_is_none_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_ARTEFACT_URL", "s3://key:secret@bucket")
    said = mismatch()
    assert said is not None and "SKYLINE_ARTEFACT_URL is no address" in said and "secret@" not in said
