"""Jobs that go on from the search of another: what is kept for them, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import inspect, text

from store import artefacts, candidates, jobs, loose, origins, quota, retention
from store.engine import build_for_migration, parse_url
from store.errors import BroughtGoneError, JobInUseError, NotFoundError, OriginGoneError, QuotaExceededError, StoreError
from store.models import Artefact, Job
from store.schema import config
from store.session import dispose, migrate, reading, unit_of_work
from store.settings import settings
from tests.store.factories import SPEC, change, must_claim, only_task
from tests.store.test_concurrency import at_once
from tests.store.test_retention import MB, candidate_of, days_ago, lying, made


def keep(job_id: UUID, fence: int = 1, size: int = 1) -> str:
    """The path of the state that the job has now."""
    path = artefacts.path_of(job_id, None, artefacts.STATE, fence, ".pt")
    place = settings().artefact_dir / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(bytes(size))
    with unit_of_work() as session:
        candidates.add_artefact(session, None, job_id, artefacts.STATE, path, "0" * 64, size)
    return path


def going_on(job_id: UUID) -> UUID:
    with unit_of_work() as session:
        return jobs.create(session, {**SPEC, origins.FIELD: str(job_id)}).id


def going_nowhere() -> UUID:
    with unit_of_work() as session:
        return jobs.create(session, dict(SPEC)).id


def delete(job_id: UUID) -> list[str]:
    with unit_of_work() as session:
        return jobs.delete(session, job_id)


def test_a_job_has_one_state_which_is_no_file_of_a_candidate() -> None:
    job_id, (weights,) = made("safetensors")
    first = keep(job_id)
    second = keep(job_id, fence=2)
    with reading() as session:
        found = origins.state(session, job_id)
        assert found is not None and found.path == second
        candidate_id = candidate_of(job_id)
        assert [file.path for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]] == [weights]
    assert loose.sweep() == 1 and lying() == {weights, second} and first != second
    assert set(delete(job_id)) == {weights, second}
    assert loose.sweep() == 2 and lying() == set()


def test_states_stay_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "1")
    monkeypatch.setenv("SKYLINE_KEEP_EXPORTS_DAYS", "1")
    job_id, _ = made()
    keep(job_id, size=MB)
    change(Artefact, {"created_at": days_ago(9)}, Artefact.job_id == job_id)
    with unit_of_work() as session:
        assert quota.usage(session)["state"] == quota.Usage(MB, 1)
        assert quota.unused(session) == [] == quota.surplus(session)
        with pytest.raises(QuotaExceededError):
            quota.admit(session)


def test_a_job_stays_until_those_that_go_on_from_it_have_searched() -> None:
    source, _ = made()
    path = keep(source)
    waiting, searched = going_on(source), going_on(source)
    with pytest.raises(JobInUseError, match=f"jobs under way go on from: {waiting}, {searched}; wait until"):
        delete(source)
    with unit_of_work() as session:
        jobs.request_cancel(session, waiting)
        jobs.set_phase(session, searched, status="verifying", phase="verifying")
    assert delete(source) == [path]
    with unit_of_work() as session, pytest.raises(OriginGoneError, match="'from', which searches from scratch"):
        jobs.reopen(session, waiting, "queued", "retried", 0.0)
    with unit_of_work() as session:
        jobs.finish(session, searched, "failed", "no reason")
        jobs.reopen(session, searched, "verifying", "retried", 0.6)


def test_a_search_that_runs_still_needs_it() -> None:
    source, _ = made()
    keep(source)
    must_claim(only_task(going_on(source), "search").id)
    with pytest.raises(JobInUseError):
        delete(source)


def test_of_posting_and_deleting_at_once_one_is_refused() -> None:
    def done(act: Callable[[], object], refusal: type[StoreError]) -> bool:
        try:
            act()
        except refusal:
            return False
        return True

    for _ in range(4):
        source, _files = made()
        keep(source)
        ways = [partial(done, partial(going_on, source), OriginGoneError)]
        ways += [partial(done, partial(delete, source), JobInUseError)]
        assert sorted(at_once(ways)) == [False, True]


def test_nothing_goes_on_from_what_kept_no_state() -> None:
    source, _ = made()
    for job_id in (source, uuid4()):
        with pytest.raises(OriginGoneError, match=f"no state of a search of job {job_id} to go on from"):
            going_on(job_id)


@pytest.mark.parametrize("format", [artefacts.MASKS, artefacts.INHERITED])
def test_what_a_candidate_brought_stays_until_those_that_name_it_have_searched(format: str) -> None:
    digest = {artefacts.MASKS: "a" * 64, artefacts.INHERITED: "b" * 64}[format]
    spec = {**SPEC, "seed_genotypes": [{"masks": digest}, {"masks": None}]}
    if format == artefacts.INHERITED:
        spec = {**SPEC, "verify": {"start": "inherited", "weights": digest}}

    def naming() -> UUID:
        with unit_of_work() as session:
            return jobs.create(session, spec).id

    with pytest.raises(BroughtGoneError, match=f"with SHA-256 {digest}"):
        naming()
    source, (path,) = made(format)
    change(Artefact, {"sha256": digest}, Artefact.job_id == source)
    waiting, _other = naming(), going_nowhere()
    with reading() as session:
        found = candidates.artefact_with(session, format, digest)
        assert found is not None and found.path == path
        assert list(origins.users(session, source)) == [waiting]
    with pytest.raises(JobInUseError, match=str(waiting)):
        delete(source)
    with unit_of_work() as session:
        jobs.set_phase(session, waiting, status="verifying", phase="verifying")
    assert delete(source) == [path]
    with unit_of_work() as session:
        jobs.finish(session, waiting, "failed", "no reason")
    with unit_of_work() as session, pytest.raises(BroughtGoneError):
        jobs.reopen(session, waiting, "queued", "retried", 0.0)


def test_what_candidates_brought_is_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_KEEP_EXPORTS_DAYS", "1")
    job_id, _ = made(artefacts.MASKS, artefacts.INHERITED, "onnx")
    change(Artefact, {"created_at": days_ago(9)}, Artefact.job_id == job_id)
    with reading() as session:
        assert len(quota.unused(session)) == 1, "the export"


def test_old_jobs_are_not_forgotten_while_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_KEEP_JOBS_DAYS", "7")
    source, _ = made()
    keep(source)
    job_id = going_on(source)
    change(Job, {"ended_at": days_ago(8)}, Job.id == source)
    assert retention.forget_jobs() == 0
    with unit_of_work() as session:
        jobs.request_cancel(session, job_id)
    assert retention.forget_jobs() == 1
    with reading() as session, pytest.raises(NotFoundError):
        jobs.get(session, source)


def test_the_way_down_leaves_files_of_candidates_alone(database_url: str) -> None:
    job_id, (weights,) = made("safetensors")
    state = keep(job_id)
    dispose()
    with build_for_migration(parse_url(database_url)).begin() as connection:
        command.downgrade(config(connection), "0009")
        assert list(connection.execute(text("SELECT path FROM artefacts")).scalars()) == [weights]
        (column,) = [c for c in inspect(connection).get_columns("artefacts") if c["name"] == "candidate_id"]
        assert column["nullable"] is False
        keys = inspect(connection).get_foreign_keys("artefacts")
        assert {key["options"].get("ondelete") for key in keys} == {"CASCADE"}
    migrate(database_url)
    assert lying() == {weights, state}
    assert loose.sweep() == 1 and lying() == {weights}
    assert keep(job_id) == state, "and there is room for one again"
