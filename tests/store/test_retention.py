"""What goes by itself, and when: loose files, unused exports, exports over the quota, old jobs; whoever sweeps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from store import artefacts, candidates, exports, jobs, loose, quota, retention
from store.errors import NotFoundError, QuotaExceededError
from store.models import Artefact, Candidate, Job, LooseFile
from store.session import reading, unit_of_work
from store.settings import settings
from tests.store.factories import SPEC, change, new_candidate

MB = 2**20


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def file(job_id: UUID, candidate_id: UUID, format: str, size: int = MB) -> str:
    """A file with its row."""
    path = artefacts.path_of(job_id, candidate_id, format, 1, f".{format}")
    place = settings().artefact_dir / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(bytes(size))
    with unit_of_work() as session:
        candidates.add_artefact(session, candidate_id, job_id, format, path, "0" * 64, size)
    return path


def made(*formats: str, size: int = MB) -> tuple[UUID, list[str]]:
    """An ended job with a candidate that has these files."""
    with unit_of_work() as session:
        job_id = jobs.create(session, SPEC).id
        ((candidate_id, _),) = candidates.record(session, job_id, "search", [new_candidate(0)])
        jobs.finish(session, job_id, "succeeded")
    return job_id, [file(job_id, candidate_id, format, size) for format in formats]


def used(path: str, days: float | None, made_days_ago: float = 100) -> None:
    times = {"created_at": days_ago(made_days_ago), "last_used_at": None if days is None else days_ago(days)}
    change(Artefact, times, Artefact.path == path)


def on_record() -> set[str]:
    with reading() as session:
        return set(session.scalars(select(Artefact.path)))


def loose_ones() -> set[str]:
    with reading() as session:
        return set(session.scalars(select(LooseFile.path)))


def lying() -> set[str]:
    root = settings().artefact_dir
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def candidate_of(job_id: UUID) -> UUID:
    with reading() as session:
        return session.scalars(select(Candidate.id).where(Candidate.job_id == job_id)).one()


# --- loose files ------------------------------------------------------------------------------------------------------


def test_a_file_whose_attempt_died_goes_after_a_day() -> None:
    job_id, _ = made()
    path = artefacts.path_of(job_id, candidate_of(job_id), "onnx", 1, ".onnx")
    with unit_of_work() as session:
        loose.announce(session, path)
    place = settings().artefact_dir / path
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")  # and here it died
    assert loose.sweep() == 0 and lying() == {path}
    change(LooseFile, {"due_at": days_ago(0)}, LooseFile.path == path)
    assert loose.sweep() == 1 and lying() == set() == loose_ones()


def test_a_file_that_has_its_row_is_not_loose() -> None:
    job_id, _ = made()
    candidate_id = candidate_of(job_id)
    with unit_of_work() as session:
        loose.announce(session, artefacts.path_of(job_id, candidate_id, "onnx", 1, ".onnx"))
    path = file(job_id, candidate_id, "onnx")
    assert loose_ones() == set() and loose.sweep() == 0 and lying() == {path}


def test_what_a_second_file_replaces_goes() -> None:
    job_id, (first,) = made("onnx")
    second = artefacts.path_of(job_id, candidate_of(job_id), "onnx", 2, ".onnx")
    (settings().artefact_dir / second).write_bytes(b"x")
    used(first, 1)
    with unit_of_work() as session:
        row = candidates.add_artefact(session, candidate_of(job_id), job_id, "onnx", second, "1" * 64, 1)
        assert row.last_used_at is None, "a new file, which nobody has used"
    assert loose_ones() == {first}
    assert loose.sweep() == 1
    assert lying() == {second} == on_record()


def test_files_of_a_deleted_job_that_were_not_removed_are_swept() -> None:
    job_id, paths = made("safetensors", "onnx")
    with unit_of_work() as session:
        gone = jobs.delete(session, job_id)  # and here it died
    assert set(gone) == set(paths) == loose_ones() == lying()
    assert loose.sweep() == 2 and lying() == set() == loose_ones()


def test_a_store_that_is_away_keeps_its_loose_files(bucket: str, tmp_path: Path) -> None:
    content, path = tmp_path / "content", "job/one"
    content.write_bytes(b"x")
    artefacts.files().put(path, content)
    with unit_of_work() as session:
        loose.release(session, [path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
        assert loose.sweep() == 0 and loose_ones() == {path}
    assert artefacts.files().size(path) == 1
    assert loose.sweep() == 1 and loose_ones() == set()
    assert artefacts.files().size(path) is None


# --- exports that nobody uses -----------------------------------------------------------------------------------------


def test_exports_go_when_nobody_has_used_them_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (weights, never, lately, long_ago) = made("safetensors", "onnx", "pt2", "python")
    used(weights, None)
    used(never, None, made_days_ago=31)
    used(lately, 29)
    used(long_ago, 31)
    monkeypatch.setenv("SKYLINE_KEEP_EXPORTS_DAYS", "0")
    retention.tidy()
    assert on_record() == {weights, never, lately, long_ago}, "0 keeps all"
    monkeypatch.delenv("SKYLINE_KEEP_EXPORTS_DAYS")
    retention.tidy()
    assert on_record() == {weights, lately} == lying()
    assert loose_ones() == set()


def test_use_is_noted_now_and_then() -> None:
    _, (weights, path) = made("safetensors", "onnx")

    def row(path: str) -> Artefact:
        with reading() as session:
            return session.scalars(select(Artefact).where(Artefact.path == path)).one()

    def note(path: str) -> datetime | None:
        if quota.unnoted(row(path), datetime.now(UTC)):
            with unit_of_work() as session:
                quota.note_use(session, row(path).id)
        return row(path).last_used_at

    first = note(path)
    assert first is not None and note(path) == first, "a second use within minutes is no write"
    used(path, quota.USED_SECONDS / 86_400 + 0.001)
    second = note(path)
    assert second is not None and second > first
    assert note(weights) is None, "weights stay whether they are used or not"


def test_an_export_that_is_used_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (path,) = made("onnx")
    used(path, 31)
    with reading() as session:
        chosen = quota.unused(session)
    used(path, 0)
    assert retention.drop(lambda _: chosen, "unused for long") == 0
    assert on_record() == {path} == lying()


# --- quota ------------------------------------------------------------------------------------------------------------


def test_over_the_quota_exports_go_that_were_not_used_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_KEEP_EXPORTS_DAYS", "0")
    one, (weights, oldest, newer) = made("safetensors", "onnx", "pt2")
    _, (middle,) = made("onnx")
    for path, days in ((weights, 9.0), (oldest, 3.0), (newer, 1.0), (middle, 2.0)):
        used(path, days)
    retention.tidy()
    assert len(on_record()) == 4, "without a quota all stays"
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "2.5")
    retention.tidy()
    assert on_record() == {weights, newer} == lying()
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "0.5")
    retention.tidy()
    assert on_record() == {weights}, "weights are never removed"
    assert jobs_there() == {one, job_of(middle)}


def jobs_there() -> set[UUID]:
    with reading() as session:
        return set(session.scalars(select(Job.id)))


def job_of(path: str) -> UUID:
    return UUID(path.partition("/")[0])


def test_a_full_quota_refuses_what_is_new_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = made("safetensors", size=3 * MB)
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "2.5")
    said = r"artefacts take 3\.0 MB, and 2\.5 MB is the limit \(SKYLINE_ARTEFACT_QUOTA_MB\); delete jobs .* or raise"
    with pytest.raises(QuotaExceededError, match=said), unit_of_work() as session:
        jobs.create(session, SPEC)
    with pytest.raises(QuotaExceededError, match=said), unit_of_work() as session:
        exports.order(session, candidates.get(session, candidate_of(job_id)), "onnx")
    file(job_id, candidate_of(job_id), "onnx")  # what runs still stores its files
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "10")
    with unit_of_work() as session:
        first = exports.order(session, candidates.get(session, candidate_of(job_id)), "pt2")
        jobs.create(session, SPEC)
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "2.5")
    with unit_of_work() as session:
        again = exports.order(session, candidates.get(session, candidate_of(job_id)), "pt2")
        assert again.id == first.id, "what is under way is not refused"


def test_exports_that_may_go_are_no_reason_to_refuse_and_ones_in_use_are(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, path) = made("safetensors", "onnx")
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "1.5")
    with pytest.raises(QuotaExceededError), unit_of_work() as session:
        jobs.create(session, SPEC)
    retention.tidy()
    assert path in on_record(), "it has just been made; somebody may be downloading it"
    used(path, quota.IN_USE_SECONDS / 86_400 + 0.001)
    with unit_of_work() as session:
        jobs.create(session, SPEC)
    retention.tidy()
    assert path not in on_record()


def test_usage_is_counted_by_format() -> None:
    made("safetensors", "onnx", size=3)
    made("onnx", size=4)
    with reading() as session:
        assert quota.usage(session) == {"onnx": quota.Usage(7, 2), "safetensors": quota.Usage(3, 1)}


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_old_jobs_go_with_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    (old, _), (young, kept), (running, also_kept) = (
        made("safetensors", "onnx"),
        made("safetensors"),
        made("safetensors"),
    )
    change(Job, {"ended_at": days_ago(8)}, Job.id.in_([old, running]))
    change(Job, {"status": "verifying"}, Job.id == running)
    retention.tidy()
    assert jobs_there() == {old, young, running}, "by default for ever"
    monkeypatch.setenv("SKYLINE_KEEP_JOBS_DAYS", "7")
    retention.tidy()
    assert jobs_there() == {young, running}
    assert lying() == {*kept, *also_kept} == on_record()
    with pytest.raises(NotFoundError), reading() as session:
        jobs.get(session, old)


def test_several_workers_tidy_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    old = [made("safetensors", "onnx", size=10)[0] for _ in range(4)]
    change(Job, {"ended_at": days_ago(8)}, Job.id.in_(old))
    young = [made("safetensors", "onnx") for _ in range(4)]
    for number, (_, (_, export)) in enumerate(young):
        used(export, 10 - number)
    monkeypatch.setenv("SKYLINE_KEEP_JOBS_DAYS", "7")
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "5.5")
    together = threading.Barrier(3)

    def keeper() -> None:
        together.wait()
        retention.tidy()

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(keeper) for _ in range(3)]:
            done.result()
    retention.tidy()  # a job that another keeper held was left for the next round
    weights = {paths[0] for _, paths in young}
    assert jobs_there() == {job_id for job_id, _ in young}
    assert on_record() == weights | {young[-1][1][1]} == lying(), "not one export more than the quota asks for"
    assert loose_ones() == set()
