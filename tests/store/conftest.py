"""The store's suite runs on each database, with a broker that is dead unless a test asks for a live one."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from store import candidates, jobs, tasks
from store.session import unit_of_work
from tests.store.factories import SPEC, must_claim, new_candidate, only_task


@pytest.fixture(autouse=True)
def store(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SKYLINE_DATABASE_URL", database_url)
    monkeypatch.setenv("SKYLINE_BROKER_URL", f"redis+socket://{tmp_path}/nobody.sock")


@pytest.fixture
def live_broker(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker_url)
    return broker_url


@pytest.fixture
def job_id() -> UUID:
    """A queued job."""
    with unit_of_work() as session:
        return jobs.create(session, SPEC, "toy", {"team": "vision"}).id


@pytest.fixture
def search_id(job_id: UUID) -> UUID:
    """The search task of ``job_id``."""
    return only_task(job_id, "search").id


@pytest.fixture
def verify_ids(job_id: UUID, search_id: UUID) -> list[UUID]:
    """Three verification tasks of ``job_id``, whose search is done."""
    claimed = must_claim(search_id)
    with unit_of_work() as session:
        tasks.hold(session, search_id, claimed.fence)
        found = candidates.record(session, job_id, "search", [new_candidate(number) for number in range(3)])
        made = [tasks.add(session, job_id, "verify", candidate_id).id for candidate_id, _ in found]
        assert tasks.end(session, search_id, claimed.fence, status="done", end="done")
    return made
