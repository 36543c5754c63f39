"""Events as pages and as a live stream that misses nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from api import events as endpoint
from skyline.schemas import Event, EventPage
from skyline.streams import parse
from store import events, jobs
from store.session import unit_of_work
from tests.api import results
from tests.api.problems import paths, problem

STREAM = {"Accept": "text/event-stream"}


def say(job_id: UUID, *steps: int) -> None:
    with unit_of_work() as session:
        events.append(session, job_id, [("progress", {"step": step}) for step in steps])


def end(job_id: UUID) -> None:
    with unit_of_work() as session:
        jobs.finish(session, job_id, "succeeded")


def stream(client: httpx.Client, job_id: UUID, query: dict[str, Any] | None = None, **headers: str) -> Iterator[Event]:
    """Events until the service ends the stream."""
    with client.stream("GET", f"/v1/jobs/{job_id}/events", params=query, headers={**STREAM, **headers}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        for message in parse(response.iter_lines()):
            if message is not None:
                event = Event.model_validate_json(message.data)
                assert (message.id, message.event) == (str(event.seq), event.type)
                yield event


def page(client: httpx.Client, job_id: UUID, **query: Any) -> EventPage:
    response = client.get(f"/v1/jobs/{job_id}/events", params=query)
    assert response.status_code == 200, response.text
    return EventPage.model_validate_json(response.content)


def test_pages_go_on_where_the_last_one_ended(shared: httpx.Client) -> None:
    job_id = results.job()
    say(job_id, *range(5))
    first = page(shared, job_id, limit=4)
    assert [event.seq for event in first.items] == [1, 2, 3, 4]
    assert first.items[0].type == "phase"
    second = page(shared, job_id, after=first.next, limit=4)
    assert [event.data for event in second.items] == [{"step": 3}, {"step": 4}]
    assert page(shared, job_id, after=second.next) == EventPage(items=[], next=6)


@pytest.mark.parametrize("query", [{"after": -1}, {"after": "x"}, {"after": 2**70}, {"limit": 0}, {"limit": 10**6}])
def test_bad_queries(shared: httpx.Client, query: dict[str, Any]) -> None:
    path = f"/query/{next(iter(query))}"
    assert paths(problem(shared.get(f"/v1/jobs/{results.job()}/events", params=query), 422)) == [path]


def test_a_bad_last_event_id_is_refused_before_the_stream(shared: httpx.Client) -> None:
    path = f"/v1/jobs/{results.job()}/events"
    found = problem(shared.get(path, headers={**STREAM, "Last-Event-ID": "yesterday"}), 422)
    assert paths(found) == ["/header/last-event-id"]


def test_a_stream_of_an_ended_job_gives_all_and_ends(shared: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BATCH", 3)
    job_id = results.job()
    say(job_id, *range(7))
    end(job_id)
    seen = list(stream(shared, job_id))
    assert [event.seq for event in seen] == list(range(1, 10))
    assert seen[-1].data["status"] == "succeeded"
    assert [event.seq for event in stream(shared, job_id, {"after": 7})] == [8, 9]
    later = stream(shared, job_id, {"after": 1}, **{"Last-Event-ID": "8"})
    assert [event.seq for event in later] == [9]
    assert list(stream(shared, job_id, {"after": 9})) == []


def test_events_come_as_they_happen(shared: httpx.Client) -> None:
    job_id = results.job()
    coming = stream(shared, job_id)
    assert next(coming).type == "phase"
    say(job_id, 1)
    assert next(coming).data == {"step": 1}
    end(job_id)
    assert [event.type for event in coming] == ["phase"]


def test_a_look_at_a_stream_ends_with_its_headers(shared: httpx.Client) -> None:
    looked = shared.head(f"/v1/jobs/{results.job()}/events", headers=STREAM)  # of a job that never ends
    assert (looked.status_code, looked.content) == (200, b"")
    assert looked.headers["content-type"].startswith("text/event-stream")


def test_a_quiet_stream_says_that_it_lives(shared: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "KEEP_ALIVE_SECONDS", 0.0)
    job_id = results.job()
    with shared.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as response:
        assert any(message is None for message in parse(response.iter_lines()))


def test_a_stream_ends_with_the_deletion_of_its_job(shared: httpx.Client) -> None:
    job_id = results.job()
    coming = stream(shared, job_id)
    next(coming)
    with unit_of_work() as session:  # both at once, so that the stream never sees the end
        jobs.finish(session, job_id, "cancelled")
        jobs.delete(session, job_id)
    assert list(coming) == []


def test_many_streams_leave_room_for_others(shared: httpx.Client) -> None:
    """More streams than there are threads; none waits in one."""
    job_id = results.job()
    opened = [stream(shared, job_id) for _ in range(45)]
    for one in opened:
        next(one)
    assert shared.get(f"/v1/jobs/{job_id}").status_code == 200  # or a timeout of the client
    assert shared.get("/v1/jobs").status_code == 200
    end(job_id)
    for one in opened:
        assert [event.type for event in one] == ["phase"]


# --- over a restart ---------------------------------------------------------------------------------------------------


class Service:
    """The API in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.log = log
        self.process = self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "uvicorn", "api.app:app", "--port", str(self.port), "--log-level", "warning"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=dict(os.environ))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200:
                    return self.process
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the service did not start: {self.log.read_text()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    running = Service(folder / "api.log")
    yield running
    running.kill()


def test_reconnects_miss_nothing_over_kills_of_the_service(service: Service) -> None:
    job_id, total = results.job(), 60

    def write() -> None:
        for step in range(total):
            say(job_id, step)
        end(job_id)

    writer = threading.Thread(target=write)
    seen: list[int] = []
    drops = iter([3, 11, 25])
    drop_at = next(drops)
    writer.start()
    while True:
        with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client:
            ended = True
            try:
                for event in stream(client, job_id, None, **({"Last-Event-ID": str(seen[-1])} if seen else {})):
                    seen.append(event.seq)
                    if len(seen) == drop_at:  # the service dies, or just the connection
                        drop_at = next(drops, total + 100)
                        ended = False
                        if len(seen) == 11:
                            service.kill()
                            service.start()
                        break
            except httpx.TransportError:
                ended = False
        if ended:
            break
    writer.join()
    assert seen == list(range(1, total + 3))
