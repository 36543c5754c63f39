"""``Idempotency-Key``: sent twice, done once, for a day, for each API key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from store import idempotency, keys
from store.models import IdempotencyKey, Job
from store.session import now, reading, unit_of_work
from tests.api.problems import paths, problem

NAMED = {"Idempotency-Key": "nightly-2026-01-31"}


def count() -> int:
    with reading() as session:
        return session.execute(select(func.count()).select_from(Job)).scalar_one()


def test_the_same_request_is_the_same_job(client: httpx.Client, spec: dict[str, Any]) -> None:
    first = client.post("/v1/jobs", json=spec, headers=NAMED)
    client.post(f"{first.headers['location']}/cancel")
    again = client.post("/v1/jobs", json=dict(reversed(spec.items())), headers=NAMED)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["status"] == "cancelled", "the job as it is now"
    assert again.headers["location"] == first.headers["location"]
    assert count() == 1


def test_without_a_name_each_is_a_job(client: httpx.Client, spec: dict[str, Any]) -> None:
    assert {client.post("/v1/jobs", json=spec).status_code for _ in range(2)} == {201}
    assert count() == 2


def test_another_body_is_a_conflict(client: httpx.Client, spec: dict[str, Any]) -> None:
    client.post("/v1/jobs", json=spec, headers=NAMED)
    found = problem(client.post("/v1/jobs", json={**spec, "seed": 1}, headers=NAMED), 409)
    assert "another body" in found.detail and "new key" in found.detail
    assert count() == 1


def test_two_at_once_make_one_job(client: httpx.Client, spec: dict[str, Any]) -> None:
    together = Barrier(2)

    def post(_: int) -> tuple[int, str]:
        with httpx.Client(base_url=client.base_url, timeout=30, trust_env=False) as own:
            together.wait()
            response = own.post("/v1/jobs", json=spec, headers=NAMED)
            return response.status_code, response.json()["id"]

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(post, range(2)))
    assert sorted(status for status, _ in answers) == [200, 201]
    assert len({job for _, job in answers}) == 1
    assert count() == 1


def test_another_key_has_names_of_its_own(
    client: httpx.Client, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_KEYS", "required")
    found = set()
    for name in ("one", "two"):
        with unit_of_work() as session:
            secret = keys.create(session, name, "submit")[1]
        response = client.post("/v1/jobs", json=spec, headers={**NAMED, "Authorization": f"Bearer {secret}"})
        assert response.status_code == 201
        found.add(response.json()["id"])
    assert len(found) == 2


def test_a_request_that_was_refused_does_not_hold_its_name(client: httpx.Client, spec: dict[str, Any]) -> None:
    problem(client.post("/v1/jobs", json={**spec, "seed": -1}, headers=NAMED), 422)
    assert client.post("/v1/jobs", json=spec, headers=NAMED).status_code == 201


def test_a_repeated_request_needs_no_room(
    client: httpx.Client, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_KEYS", "required")
    with unit_of_work() as session:
        secret = keys.create(session, "one", "submit", open_jobs=1)[1]
    headers = {**NAMED, "Authorization": f"Bearer {secret}"}
    assert [client.post("/v1/jobs", json=spec, headers=headers).status_code for _ in range(2)] == [201, 200]


def test_after_a_day_the_name_is_free(client: httpx.Client, spec: dict[str, Any]) -> None:
    first = client.post("/v1/jobs", json=spec, headers=NAMED).json()["id"]
    with unit_of_work() as session:
        before = now(session) - timedelta(hours=idempotency.KEPT_HOURS, seconds=1)
        session.execute(update(IdempotencyKey).values(created_at=before))
    later = client.post("/v1/jobs", json={**spec, "seed": 1}, headers=NAMED)
    assert later.status_code == 201 and later.json()["id"] != first


@pytest.mark.parametrize("name", ["", "n" * 256, "two words", "é".encode()])
def test_what_is_no_name_is_refused(client: httpx.Client, spec: dict[str, Any], name: str | bytes) -> None:
    found = problem(client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": name}), 422)
    assert paths(found) == ["/header/Idempotency-Key"]
    assert count() == 0
