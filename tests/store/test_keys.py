"""Keys: shown once, kept as a digest, found, refused, revoked; and how many jobs each may have under way."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import inspect, select, text

from store import jobs, keys, retries
from store.errors import InvalidKeyError, NotFoundError, TooManyOpenJobsError
from store.models import ApiKey, Base, Job
from store.session import now, reading, unit_of_work
from tests.store.factories import SPEC, change


def new_key(scope: keys.Scope = "submit", *, lifetime: timedelta | None = None, open_jobs: int | None = None) -> str:
    with unit_of_work() as session:
        return keys.create(session, "pipeline", scope, lifetime=lifetime, open_jobs=open_jobs)[1]


def row_of(secret: str) -> ApiKey:
    with reading() as session:
        return keys.verify(session, secret)


def post(owner: UUID | None) -> UUID:
    with unit_of_work() as session:
        return jobs.create(session, SPEC, owner_key=owner).id


def test_a_key_is_found_again_and_is_nowhere_in_the_database() -> None:
    secret = new_key("read")
    assert secret.startswith("skl_") and len(secret) == 47
    row = row_of(secret)
    assert (row.name, row.scope, row.prefix) == ("pipeline", "read", secret[:12])
    assert row.digest == hashlib.sha256(secret.encode()).hexdigest()
    post(row.id)
    with reading() as session:
        everything = [str(session.execute(select(table)).all()) for table in Base.metadata.sorted_tables]
    assert secret[12:] not in "".join(everything)


def test_keys_differ() -> None:
    assert len({new_key() for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("secret", "why"),
    [("", "look like one"), ("skl_short", "look like one"), ("skl_" + "é" * 43, "look"), ("skl_" + "A" * 43, "known")],
)
def test_what_is_no_key_is_refused_without_being_repeated(secret: str, why: str) -> None:
    with pytest.raises(InvalidKeyError, match=rf"{why}.*skyline keys create") as caught:
        row_of(secret)
    assert not secret or secret not in str(caught.value)


def test_the_same_beginning_is_not_enough() -> None:
    secret = new_key()
    other = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    with pytest.raises(InvalidKeyError, match="not known"):
        row_of(other)


def test_an_expired_key_opens_nothing() -> None:
    secret = new_key(lifetime=timedelta(days=1))
    assert row_of(secret)
    with reading() as session:
        before = now(session) - timedelta(seconds=1)
    change(ApiKey, {"expires_at": before})
    with pytest.raises(InvalidKeyError, match="expired at 20"):
        row_of(secret)
    with reading() as session:
        assert not keys.usable(session)
        assert keys.state(keys.listed(session)[0], now(session)) == "expired"


@pytest.mark.parametrize("by", ["id", "prefix", "itself"])
def test_a_revoked_key_opens_nothing(by: str) -> None:
    secret, kept = new_key(), new_key()
    names = {"id": str(row_of(secret).id), "prefix": secret[:12], "itself": secret}
    with unit_of_work() as session:
        first = keys.revoke(session, names[by]).revoked_at
    with unit_of_work() as session:
        again = keys.revoke(session, names[by])
        assert again.revoked_at == first and first is not None
    with pytest.raises(InvalidKeyError, match="was revoked"):
        row_of(secret)
    assert row_of(kept)
    with reading() as session:
        assert [keys.state(row, now(session)) for row in keys.listed(session)] == ["revoked", "active"]
        assert keys.usable(session)


@pytest.mark.parametrize("which", ["0f8fad5b-d9cb-469f-a165-70867728950e", "skl_AAAAAAAA", "skl_" + "A" * 43, "x"])
def test_what_is_not_there_cannot_be_revoked(which: str) -> None:
    new_key()
    with unit_of_work() as session, pytest.raises(NotFoundError, match="no API key") as caught:
        keys.revoke(session, which)
    assert "A" * 9 not in str(caught.value)


@pytest.mark.parametrize(("name", "scope"), [("", "read"), ("n" * 201, "read"), ("x", "write")])
def test_a_key_has_a_name_and_a_scope(name: str, scope: keys.Scope) -> None:
    with unit_of_work() as session, pytest.raises(ValueError, match="read, submit, admin"):
        keys.create(session, name, scope)


def test_use_is_noted_coarsely() -> None:
    secret = new_key()
    with unit_of_work() as session:
        row = keys.verify(session, secret)
        assert keys.stale(session, row)
        keys.note_use(session, row.id)
    with reading() as session:
        row = keys.verify(session, secret)
        assert row.last_used_at is not None and not keys.stale(session, row)
        before = now(session) - timedelta(seconds=keys.USED_SECONDS + 1)
    change(ApiKey, {"last_used_at": before})
    with reading() as session:
        assert keys.stale(session, keys.verify(session, secret))


# --- open jobs --------------------------------------------------------------------------------------------------------


def test_a_key_has_so_many_jobs_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_OPEN_JOBS", "2")
    owner, other = row_of(new_key()).id, row_of(new_key()).id
    first = post(owner)
    post(owner)
    with pytest.raises(TooManyOpenJobsError, match="this API key: 2, the most.*cancel one"):
        post(owner)
    post(other)
    post(None)
    with unit_of_work() as session:
        jobs.finish(session, first, "failed", "for the test")
    third = post(owner)
    with unit_of_work() as session, pytest.raises(TooManyOpenJobsError):
        retries.retry_job(session, first)
    with unit_of_work() as session:
        jobs.request_cancel(session, third)
    with unit_of_work() as session:
        assert retries.retry_job(session, first).status == "queued"


@pytest.mark.parametrize(("own", "possible"), [(1, 1), (0, 4), (None, 3)])
def test_a_key_may_have_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch, own: int | None, possible: int) -> None:
    monkeypatch.setenv("SKYLINE_OPEN_JOBS", "3")
    owner = row_of(new_key(open_jobs=own)).id
    for _ in range(possible):
        post(owner)
    if own != 0:
        with pytest.raises(TooManyOpenJobsError):
            post(owner)


def test_two_at_once_do_not_both_take_the_last_place() -> None:
    owner = row_of(new_key(open_jobs=1)).id
    together = threading.Barrier(2)

    def attempt(_: int) -> bool:
        together.wait()
        try:
            post(owner)
        except TooManyOpenJobsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, range(2))) == [False, True]


def test_jobs_know_their_key_and_are_found_by_it() -> None:
    owner = row_of(new_key()).id
    job_id = post(owner)
    with reading() as session:
        assert session.get_one(Job, job_id).owner_key == owner
        indexes = inspect(session.connection()).get_indexes("jobs")
        assert ["owner_key", "status"] in [index["column_names"] for index in indexes]
        assert json.dumps(SPEC, sort_keys=True) == json.dumps(session.get_one(Job, job_id).spec, sort_keys=True)
        assert session.execute(text("SELECT count(*) FROM api_keys")).scalar_one() == 1
