"""What a worker needs before it starts, how it is named, and what a health check sees of it."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from store import catalog
from store.models import Worker
from store.session import now, unit_of_work
from worker import health, preflight
from worker.identity import Identity, default_name

PUBLICATION = {"entries": [], "device": "cpu", "threads": 1, "memory_gb": 1.0, "versions": {}}


def register(name: str) -> None:
    with unit_of_work() as session:
        catalog.publish(session, {"name": name, "host": "here", "queues": ["search.cpu"]}, PUBLICATION)


def test_with_database_and_broker_there_it_starts(environment_on_each: Path) -> None:
    preflight.wait_until_ready(patience=0)


def test_a_database_that_is_away_is_named_without_its_password(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://someone:secret@127.0.0.1:1/nothing")
    with pytest.raises(preflight.NotReadyError) as raised:
        preflight.wait_until_ready(patience=0)
    said = str(raised.value)
    assert "someone:***@127.0.0.1:1/nothing does not answer" in said and "refused" in said
    assert "set SKYLINE_DATABASE_URL" in said and "secret" not in said


def test_a_database_without_tables_is_not_waited_for(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", f"sqlite:///{environment}/empty.db")
    with pytest.raises(preflight.NotReadyError, match=r"python -m store\.migrate"):
        preflight.wait_until_ready(patience=3600)


@pytest.mark.parametrize("url", ["nonsense", "oracle+nobody://host/database"])
def test_an_address_that_is_none_is_not_waited_for(
    environment: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", url)
    with pytest.raises(preflight.NotReadyError, match="SKYLINE_DATABASE_URL"):
        preflight.wait_until_ready(patience=3600)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://:secret@127.0.0.1:1/0", "does not answer: "),
        ("redis+socket:///nowhere/broker.sock", "does not answer: "),
        ("amqp://:secret@host", "cannot be read; "),
    ],
)
def test_a_broker_that_is_away_is_named(
    environment: Path, monkeypatch: pytest.MonkeyPatch, url: str, what: str
) -> None:
    monkeypatch.setenv("SKYLINE_BROKER_URL", url)
    with pytest.raises(preflight.NotReadyError) as raised:
        preflight.wait_until_ready(patience=0)
    assert what in str(raised.value) and "set SKYLINE_BROKER_URL" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_it_waits_for_what_comes_later(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["not yet", "not yet", None])
    monkeypatch.setattr(preflight, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(preflight, "broker_trouble", lambda: next(answers))
    preflight.wait_until_ready(patience=60)
    assert capsys.readouterr().err.count("not yet") == 1, "said once"


def test_the_environment_alone_says_who_a_worker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SKYLINE_WORKER_")]:
        monkeypatch.delenv(name)
    assert Identity().name == default_name("cpu")
    monkeypatch.setenv("SKYLINE_WORKER_DEVICE", "cuda:1")
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "")  # as docker compose passes what is not set
    monkeypatch.setenv("SKYLINE_WORKER_NAME", "")
    assert Identity().name == default_name("cuda:1") and Identity().name.endswith("-cuda1")
    monkeypatch.setenv("SKYLINE_WORKER_NAME", "bench-by-the-window")
    assert Identity().name == "bench-by-the-window"


def test_health_is_what_the_worker_last_said(environment_on_each: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--name", "one"]) == 1
    assert "no worker 'one' is registered; known: none" in capsys.readouterr().err
    register("one")
    assert health.main(["--name", "one"]) == 0
    assert re.fullmatch(r"worker one was seen \d+\.\d s ago\n", capsys.readouterr().out)
    with unit_of_work() as session:
        long_ago = now(session) - timedelta(seconds=catalog.LIVE_SECONDS + 5)
        session.execute(update(Worker).values(seen_at=long_ago))
    assert health.main(["--name", "one"]) == 1
    assert "more than 15 s" in capsys.readouterr().err


def test_health_of_the_worker_that_the_environment_names(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_WORKER_NAME", "two")
    register("two")
    assert health.main([]) == 0


def test_health_without_a_database_is_bad(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://someone:secret@127.0.0.1:1/nothing")
    assert health.main(["--name", "one"]) == 1
    said = capsys.readouterr().err
    assert "does not answer" in said and "secret" not in said


@pytest.mark.parametrize("variable", ["SKYLINE_LOG_DIR", "SKYLINE_CHECKPOINT_DIR"])
def test_a_folder_that_cannot_be_written_is_named(
    environment: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (environment / "file").write_text("in the way")
    monkeypatch.setenv(variable, f"{environment}/file/below")
    with pytest.raises(preflight.NotReadyError, match=rf"file/below: Not a directory\nnext: .*{variable}"):
        preflight.wait_until_ready(patience=3600)
