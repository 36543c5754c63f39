"""How often a key may ask, how many jobs it may have, how much a body may hold; and headers of all answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api import limits
from api.guards import DRAIN_FACTOR
from store import keys
from store.session import unit_of_work
from tests.api.problems import problem

LIMIT = 2048
CHUNK = b"400\r\n" + b"x" * 0x400 + b"\r\n"


def new_key(**options: Any) -> dict[str, str]:
    with unit_of_work() as session:
        return {"Authorization": f"Bearer {keys.create(session, 'test', 'submit', **options)[1]}"}


@pytest.fixture
def guarded(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A service that asks for keys; nothing is known of a broker that is away."""
    monkeypatch.setenv("SKYLINE_KEYS", "required")
    monkeypatch.setattr(limits._Away, "until", 0.0)
    limits._own.cache_clear()
    limits._shared.cache_clear()
    yield client
    limits._shared.cache_clear()


@pytest.fixture(params=["broker", "no broker"])
def counting(
    request: pytest.FixtureRequest, guarded: httpx.Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> httpx.Client:
    """On a broker that lives, and on none."""
    if request.param == "broker":
        monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    return guarded


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_key_asks_so_often_a_minute(counting: httpx.Client) -> None:
    own, other = new_key(requests_per_minute=3), new_key(requests_per_minute=3)
    for _ in range(3):
        assert counting.get("/v1/jobs", headers=own).status_code == 200
    response = counting.get("/v1/jobs", headers=own)
    assert "3 times a minute; ask again in" in problem(response, 429).detail
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert counting.get("/v1/jobs", headers=other).status_code == 200
    assert counting.get("/healthz", headers=own).status_code == 200


def test_the_setting_counts_where_a_key_has_no_limit_of_its_own(
    guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_REQUESTS_PER_MINUTE", "1")
    headers, free = new_key(), new_key(requests_per_minute=0)
    assert guarded.get("/v1/jobs", headers=headers).status_code == 200
    problem(guarded.get("/v1/jobs", headers=headers), 429)
    assert {guarded.get("/v1/jobs", headers=free).status_code for _ in range(5)} == {200}
    monkeypatch.setenv("SKYLINE_REQUESTS_PER_MINUTE", "0")
    assert guarded.get("/v1/jobs", headers=headers).status_code == 200


def test_several_processes_agree(guarded: httpx.Client, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    headers = new_key(requests_per_minute=2)
    for _ in range(2):
        assert guarded.get("/v1/jobs", headers=headers).status_code == 200
        limits._shared.cache_clear()  # what another process would know: only what the broker does
        limits._own.cache_clear()
    problem(guarded.get("/v1/jobs", headers=headers), 429)


def test_refused_requests_do_not_prolong_the_wait(counting: httpx.Client) -> None:
    headers = new_key(requests_per_minute=1)
    counting.get("/v1/jobs", headers=headers)
    waits = [int(counting.get("/v1/jobs", headers=headers).headers["retry-after"]) for _ in range(5)]
    assert waits == sorted(waits, reverse=True)


@pytest.mark.parametrize("url", ["amqp://user:hidden@127.0.0.1/", "redis://:hidden@127.0.0.1:1/0", "nonsense"])
def test_a_broker_that_cannot_count_is_not_told_with_its_password(
    guarded: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SKYLINE_BROKER_URL", url)
    headers = new_key(requests_per_minute=1)
    assert guarded.get("/v1/jobs", headers=headers).status_code == 200
    problem(guarded.get("/v1/jobs", headers=headers), 429)
    assert "counted in this process alone" in caplog.text and "hidden" not in caplog.text


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_key_has_so_many_jobs_under_way(guarded: httpx.Client, spec: dict[str, Any]) -> None:
    headers, other = new_key(open_jobs=1), new_key(open_jobs=1)
    first = guarded.post("/v1/jobs", json=spec, headers=headers)
    assert first.status_code == 201
    refused = problem(guarded.post("/v1/jobs", json=spec, headers=headers), 409)
    assert "under way with this API key: 1, the most" in refused.detail
    assert guarded.post("/v1/jobs", json=spec, headers=other).status_code == 201
    location = first.headers["location"]
    assert guarded.post(f"{location}/cancel", headers=headers).status_code == 200
    assert guarded.post("/v1/jobs", json=spec, headers=headers).status_code == 201
    problem(guarded.post(f"{location}/retry", headers=headers), 409)


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    monkeypatch.setenv("SKYLINE_MAX_BODY_BYTES", str(LIMIT))
    return client


def routes(client: httpx.Client) -> list[str]:
    missing = "00000000-0000-4000-8000-000000000000"
    return ["/v1/jobs", f"/v1/jobs/{missing}/cancel", "/nowhere"]


@pytest.mark.parametrize("form", ["announced", "in chunks"])
def test_a_body_beyond_the_limit_is_refused(small: httpx.Client, form: str) -> None:
    body = b'{"a": "' + b"x" * LIMIT + b'"}'
    response = small.post("/v1/jobs", content=body if form == "announced" else iter([body[:100], body[100:]]))
    assert str(LIMIT) in problem(response, 413).detail
    assert "connection" not in response.headers, "read to its end, so that the connection is good for more"


def test_it_does_not_matter_whether_a_route_wants_a_body(small: httpx.Client) -> None:
    for path in routes(small):
        problem(small.post(path, content=b"x" * (LIMIT + 1)), 413)


def test_a_body_at_the_limit_is_taken(small: httpx.Client, spec: dict[str, Any]) -> None:
    from json import dumps

    body = dumps(spec).encode()
    body += b" " * (LIMIT - len(body))
    for content in (body, iter([body[:1000], body[1000:]])):
        assert small.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"}).status_code == 201


def raw(client: httpx.Client, *parts: bytes) -> bytes:
    """Head of the answer to a request that is never finished."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=20) as connection:
        for part in (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n", *parts):
            connection.sendall(part)
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = connection.recv(65536)
            assert received, "closed without an answer"
            answer += received
        return answer.lower()


def test_a_body_without_end_is_not_read_to_its_end(small: httpx.Client) -> None:
    announced = raw(small, f"Content-Length: {DRAIN_FACTOR * LIMIT + 1}\r\n\r\n".encode())
    chunks = [CHUNK] * (DRAIN_FACTOR * LIMIT // 0x400 + 1)
    endless = raw(small, b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    for answer in (announced, endless):
        assert answer.startswith(b"http/1.1 413")
        assert b"connection: close" in answer and b"application/problem+json" in answer


def test_who_has_no_key_is_told_so_whatever_is_sent(guarded: httpx.Client) -> None:
    problem(guarded.post("/v1/jobs", content=b"x" * 500_000), 401)
    problem(guarded.post("/v1/jobs", content=iter([b"x" * 500_000] * 3)), 401)


# --- headers ----------------------------------------------------------------------------------------------------------


def test_every_answer_has_headers_that_browsers_obey(client: httpx.Client) -> None:
    for path in ("/v1/jobs", "/v1/catalog", "/healthz", "/nowhere", "/openapi.json", "/v1/jobs?limit=x", "/metrics"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "private, no-cache"
    refused = client.get("/v1/jobs", headers={"Host": "evil.example"}).headers
    assert refused["x-content-type-options"] == "nosniff"


def test_what_an_answer_says_itself_stays(client: httpx.Client, spec: dict[str, Any]) -> None:
    location = client.post("/v1/jobs", json=spec).headers["location"]
    client.post(f"{location}/cancel")
    stream = client.get(f"{location}/events", headers={"Accept": "text/event-stream"})
    assert stream.headers["cache-control"] == "no-cache"
    assert stream.headers["x-content-type-options"] == "nosniff"


def test_the_page_of_documents_may_load_what_it_names(client: httpx.Client) -> None:
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    for source in ("https://cdn.jsdelivr.net", "https://fastapi.tiangolo.com"):
        assert source in page.text and source in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    problem(client.get("/redoc"), 404)
