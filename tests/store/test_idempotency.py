"""A named request is done once: whoever comes second, at once or later, gets the first one's job."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select

from store import idempotency, jobs, keys
from store.errors import IdempotencyConflictError
from store.models import IdempotencyKey, Job
from store.session import now, reading, unit_of_work
from tests.store.factories import SPEC, change

DIGEST = idempotency.digest(SPEC)


def post(key: str = "nightly", owner: UUID | None = None, digest: str = DIGEST) -> UUID:
    with unit_of_work() as session:
        there = idempotency.reserve(session, owner, key, digest)
        if there is not None:
            return there
        made = jobs.create(session, SPEC).id
        idempotency.keep(session, owner, key, made)
        return made


def count(model: type[Job] | type[IdempotencyKey]) -> int:
    with reading() as session:
        return session.execute(select(func.count()).select_from(model)).scalar_one()


def new_owner() -> UUID:
    with unit_of_work() as session:
        return keys.create(session, "pipeline", "submit")[0].id


def test_the_same_request_is_the_same_job() -> None:
    first = post()
    assert post() == first
    assert count(Job) == 1
    with reading() as session:
        assert idempotency.find(session, None, "nightly", DIGEST) == first
        assert idempotency.find(session, None, "another", DIGEST) is None


def test_another_body_is_refused() -> None:
    first = post()
    with pytest.raises(IdempotencyConflictError, match="'nightly' came with another body within the last 24 h"):
        post(digest="0" * 64)
    with reading() as session, pytest.raises(IdempotencyConflictError):
        idempotency.find(session, None, "nightly", "0" * 64)
    assert post() == first


def test_keys_do_not_meet() -> None:
    found = {post(owner=owner) for owner in (None, new_owner(), new_owner())}
    assert len(found) == 3


def test_how_a_body_is_written_makes_no_difference() -> None:
    assert idempotency.digest({"a": 1, "b": [1, 2]}) == idempotency.digest({"b": [1, 2], "a": 1})
    assert idempotency.digest({"a": 1}) != idempotency.digest({"a": 2})


def test_two_at_once_make_one_job() -> None:
    together = threading.Barrier(4)

    def attempt(_: int) -> UUID:
        together.wait()
        return post()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(attempt, range(4)))) == 1
    assert count(Job) == 1


def test_a_request_that_failed_leaves_its_key_free() -> None:
    with pytest.raises(RuntimeError), unit_of_work() as session:
        assert idempotency.reserve(session, None, "nightly", DIGEST) is None
        raise RuntimeError
    assert count(IdempotencyKey) == 0
    assert post()


def test_after_a_day_it_is_free() -> None:
    first = post()
    post("older")
    with reading() as session:
        before = now(session) - timedelta(hours=idempotency.KEPT_HOURS, seconds=1)
    change(IdempotencyKey, {"created_at": before})
    with reading() as session:
        assert idempotency.find(session, None, "nightly", "0" * 64) is None
    assert post(digest="0" * 64) != first
    assert count(IdempotencyKey) == 1, "what is too old is cleared away"


def test_it_goes_with_its_job() -> None:
    first = post()
    with unit_of_work() as session:
        jobs.finish(session, first, "failed", "for the test")
        jobs.delete(session, first)
    assert count(IdempotencyKey) == 0
    assert post() != first
