"""What workers publish, and which of them live."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from store import catalog
from store.engine import engine
from store.errors import SeveralHostsError
from store.models import Worker
from store.session import now, reading, unit_of_work
from tests.store.factories import change


def entry(name: str, kind: str = "dataset", summary: str = "", **workers: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "name": name, "summary": summary, "settings": {}, "facts": {}, "workers": workers}


def publish(name: str, *entries: dict[str, Any], host: str = "here", memory_gb: float = 4.0) -> None:
    made = {"entries": entries, "device": "cpu", "threads": 2, "memory_gb": memory_gb, "versions": {"torch": "2"}}
    with unit_of_work() as session:
        catalog.publish(session, {"name": name, "host": host, "queues": ["search.cpu"]}, made)


def entries(kind: str | None = None) -> list[dict[str, Any]]:
    with reading() as session:
        return catalog.entries(session, kind)


def workers() -> dict[str, bool]:
    with reading() as session:
        return {worker.name: live for worker, live in catalog.workers(session)}


def fall_silent(name: str) -> None:
    with reading() as session:
        at = now(session) - timedelta(seconds=catalog.LIVE_SECONDS + 1)
    change(Worker, {"seen_at": at}, Worker.name == name)


def test_entries_of_all_workers_are_united() -> None:
    publish("one", entry("digits", summary="old", one={"present": True}), entry("darts", "space"))
    publish("two", entry("digits", summary="new", two={"present": False, "searched": ["/data"]}))
    assert [(found["kind"], found["name"]) for found in entries()] == [("dataset", "digits"), ("space", "darts")]
    (digits,) = entries("dataset")
    assert digits["summary"] == "new"
    assert digits["workers"] == {"one": {"present": True}, "two": {"present": False, "searched": ["/data"]}}
    assert entries("space")[0]["workers"] == {"one": {}}
    assert entries("objective") == []


def test_publishing_again_replaces_what_the_worker_had() -> None:
    publish("two", entry("digits"))
    publish("one", entry("digits"), entry("gone"))
    publish("one", entry("digits", one={"present": True}), memory_gb=8)
    assert [found["name"] for found in entries()] == ["digits"]
    assert entries()[0]["workers"] == {"one": {"present": True}, "two": {}}
    with reading() as session:
        found = {worker.name: worker for worker, _ in catalog.workers(session)}["one"]
    assert (found.memory_gb, found.threads, found.queues, found.versions) == (8, 2, ["search.cpu"], {"torch": "2"})


def test_a_worker_lives_while_it_is_seen() -> None:
    publish("one")
    publish("two")
    fall_silent("two")
    assert workers() == {"one": True, "two": False}
    with unit_of_work() as session:
        assert catalog.seen(session, "two")
    assert workers() == {"one": True, "two": True}


def test_a_worker_that_nobody_knows_has_to_publish_again() -> None:
    with unit_of_work() as session:
        assert not catalog.seen(session, "nobody")
        assert not catalog.drain(session, "nobody")
    assert workers() == {}


def test_entries_outlive_workers() -> None:
    publish("one", entry("digits"))
    with unit_of_work() as session:
        catalog.retire(session, "one")
    assert workers() == {}
    assert [found["name"] for found in entries()] == ["digits"]


def test_draining_is_asked_for_and_ends_with_the_next_start() -> None:
    publish("one")
    with unit_of_work() as session:
        assert not catalog.is_draining(session, "one")
        assert catalog.drain(session, "one")
        assert catalog.is_draining(session, "one")
        assert not catalog.is_draining(session, "nobody")
    publish("one")
    with reading() as session:
        assert not catalog.is_draining(session, "one")


def test_sqlite_serves_one_host_and_postgresql_many() -> None:
    publish("one", host="here")
    if engine().dialect.name == "postgresql":
        publish("two", host="there")
        assert workers() == {"one": True, "two": True}
        return
    with pytest.raises(
        SeveralHostsError, match="on host 'there' met live workers on host 'here', .*SKYLINE_DATABASE_URL"
    ):
        publish("two", host="there")
    assert workers() == {"one": True}
    fall_silent("one")
    publish("two", host="there")  # the machine was renamed, or moved
