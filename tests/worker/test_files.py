"""Files between an attempt and the place of artefacts: stored, fetched, and what goes wrong on the way."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from nas_core.architecture import Architecture
from nas_core.network import Network
from store import artefacts, candidates, exports, jobs, loose, tasks
from store.errors import ArtefactsAwayError, LeaseLostError
from store.models import Artefact, Job, LooseFile
from store.session import reading, unit_of_work
from store.settings import settings
from tests import s3
from tests.api import results
from worker import files, keeper, leftovers, preflight, run
from worker.attempt import Attempt
from worker.control import DONE, GAVE_UP, NO_STORE, StopFlag, Stopped
from worker.quiet import Room
from worker.verify import write_weights

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def undisturbed(environment: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attempts run in this process, on one thread, keep no measurement waiting, and hand back the signal."""
    monkeypatch.setattr(run, "Room", partial(Room, environment / "quiet"))
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "1")
    monkeypatch.setenv("SKYLINE_OUTAGE_SECONDS", "0")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> None:
    if request.param == "s3":
        request.getfixturevalue("bucket")


def verified(folder: Path) -> tuple[UUID, UUID]:
    """(job, candidate), whose weights are stored."""
    job_id, (candidate_id,) = results.finished(1)
    with reading() as session:
        architecture = Architecture.from_json(candidates.get(session, candidate_id).architecture)
    file, facts = folder / "weights", SimpleNamespace(mean=(0.5,), std=(0.2,))
    write_weights(file, architecture, Network(architecture), facts)  # type: ignore[arg-type]
    task_id, fence = claimed(job_id, "verify", candidate_id)
    with files.stored(attempt_of(task_id, fence), candidate_id, "safetensors", ".safetensors", file):
        pass
    return job_id, candidate_id


def claimed(job_id: UUID, kind: str, candidate_id: UUID) -> tuple[UUID, int]:
    """(task, fence) of an attempt that has just begun; ``kind`` may be one that an ended job is past."""
    with unit_of_work() as session:
        task = tasks.add(session, job_id, f"{exports.PREFIX}{kind}", candidate_id)
    with unit_of_work() as session:
        claim = tasks.claim(session, task.id, "one", "cpu", 1, 60, 3)
    assert claim is not None
    return task.id, claim.fence


def attempt_of(task_id: UUID, fence: int) -> Attempt:
    return run.load(task_id, fence, StopFlag())[1]


def rows(model: type[Any]) -> list[str]:
    with reading() as session:
        return list(session.scalars(select(model.path)))


@pytest.mark.slow
def test_an_export_is_made_of_what_was_stored(place: None, tmp_path: Path) -> None:
    job_id, candidate_id = verified(tmp_path)
    task_id, fence = claimed(job_id, "python", candidate_id)
    assert run.run(task_id, fence) == DONE
    with reading() as session:
        found = {file.format: file for file in candidates.artefacts_of(session, [candidate_id])[candidate_id]}
    assert set(found) == {"safetensors", "python"}
    assert found["python"].path == f"{job_id}/{candidate_id}.python-1.py"
    assert artefacts.files().size(found["python"].path) == found["python"].bytes
    assert artefacts.fetch(found["python"].path, found["python"].sha256, tmp_path).read_bytes()
    assert rows(LooseFile) == []
    assert not list(settings().checkpoint_dir.glob("*"))


def test_missing_and_damaged_weights_end_the_task_with_a_reason(
    place: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_id, candidate_id = verified(tmp_path)
    (path,) = rows(Artefact)
    (tmp_path / "other").write_bytes(b"other")
    artefacts.files().put(path, tmp_path / "other")
    assert run.run(*claimed(job_id, "python", candidate_id)) == GAVE_UP
    assert f"the artefact {path} is damaged" in caplog.text
    artefacts.files().delete([path])
    assert run.run(*claimed(job_id, "onnx", candidate_id)) == GAVE_UP
    assert f"the artefact {path} is not there any more; workers on several hosts need one" in caplog.text


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_attempt_and_not_the_task(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id, candidate_id = verified(tmp_path)
    task_id, fence = claimed(job_id, "python", candidate_id)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT", NOWHERE)
        assert run.run(task_id, fence) == NO_STORE
    assert "the export.python task ends, and is tried again where attempts are left" in caplog.text
    assert s3.SECRET not in caplog.text and s3.KEY not in caplog.text
    assert run.run(task_id, fence) == DONE


def test_a_store_that_comes_back_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SKYLINE_OUTAGE_SECONDS", "60")
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    answers = iter([False, False, True])

    def ask() -> str:
        if not next(answers):
            raise ArtefactsAwayError("did not answer")
        return "there"

    attempt: Any = SimpleNamespace(flag=StopFlag())
    assert files.patiently(attempt, ask) == "there"
    assert caplog.text.count("the artefact store did not answer; asking again for 60 s") == 1
    signal.raise_signal(signal.SIGTERM)
    answers = iter([False, True])
    with pytest.raises(Stopped):
        files.patiently(attempt, ask)


@pytest.mark.slow
def test_who_lost_the_lease_leaves_no_file(place: None, tmp_path: Path) -> None:
    job_id, candidate_id = verified(tmp_path)
    before = rows(Artefact)
    task_id, fence = claimed(job_id, "onnx", candidate_id)
    (tmp_path / "file").write_bytes(b"x")
    storing = files.stored(attempt_of(task_id, fence), candidate_id, "onnx", ".onnx", tmp_path / "file")
    with pytest.raises(LeaseLostError), storing:
        raise LeaseLostError(task_id, fence)
    path = artefacts.path_of(job_id, candidate_id, "onnx", fence, ".onnx")
    assert artefacts.files().size(path) is None
    assert rows(Artefact) == before and rows(LooseFile) == []


@pytest.mark.slow
def test_an_attempt_that_dies_between_file_and_row_leaves_a_line(place: None, tmp_path: Path) -> None:
    job_id, candidate_id = verified(tmp_path)
    task_id, fence = claimed(job_id, "onnx", candidate_id)
    (tmp_path / "file").write_bytes(b"x")
    storing = files.stored(attempt_of(task_id, fence), candidate_id, "onnx", ".onnx", tmp_path / "file")
    with pytest.raises(KeyboardInterrupt), storing:
        raise KeyboardInterrupt
    path = artefacts.path_of(job_id, candidate_id, "onnx", fence, ".onnx")
    assert rows(LooseFile) == [path] and artefacts.files().size(path) == 1
    assert loose.sweep() == 0, "not before a day"


def test_the_scratch_folder_of_a_task_that_is_over_goes(tmp_path: Path) -> None:
    job_id, (candidate_id,) = results.finished(1)
    task_id, fence = claimed(job_id, "onnx", candidate_id)
    with attempt_of(task_id, fence).scratch() as folder:
        (folder / "half").write_bytes(b"x")
        with reading() as session:
            leftovers.forget(session)
        assert (folder / "half").exists(), "the task is open"
        with unit_of_work() as session:
            jobs.delete(session, job_id)
        with reading() as session:
            leftovers.forget(session)
        assert not folder.exists()


def test_a_worker_does_not_start_without_its_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.wait_until_ready(patience=0)
    monkeypatch.setenv("AWS_ENDPOINT", NOWHERE)
    with pytest.raises(preflight.NotReadyError) as raised:
        preflight.wait_until_ready(patience=0)
    assert str(raised.value).startswith(f"artefacts at {bucket}: did not answer (")
    assert "AWS_ACCESS_KEY_ID" in str(raised.value) and s3.SECRET not in str(raised.value)
    monkeypatch.setenv("SKYLINE_ARTEFACT_URL", f"s3://{s3.KEY}:{s3.SECRET}@bucket")
    with pytest.raises(preflight.NotReadyError, match="SKYLINE_ARTEFACT_URL is no address") as raised:
        preflight.wait_until_ready(patience=3600)
    assert s3.SECRET not in str(raised.value)


@pytest.mark.slow
def test_keepers_tidy_up_beside_their_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_WORKER_QUEUES", "short")
    monkeypatch.setenv("SKYLINE_KEEP_JOBS_DAYS", "7")
    (old, _), (young, _) = verified(tmp_path), verified(tmp_path)
    with unit_of_work() as session:
        session.execute(update(Job).where(Job.id == old).values(ended_at=datetime.now(UTC) - timedelta(days=8)))
        loose.release(session, ["gone/already"])
    keepers = [keeper.Keeper() for _ in range(2)]
    for one in keepers:
        one.start()
    deadline = time.monotonic() + 60
    while len(rows(Artefact)) > 1 or rows(LooseFile):
        assert time.monotonic() < deadline, (rows(Artefact), rows(LooseFile))
        time.sleep(0.02)
    for one in keepers:
        one.stop()
    with reading() as session:
        assert [job.id for job in jobs.page(session)[0]] == [young]
    assert [path.name for path in settings().artefact_dir.iterdir()] == [str(young)]


def test_tidying_without_a_database_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://someone:secret@127.0.0.1:1/nothing")
    keeper.tidy()
    assert "tidying up failed; it is tried again" in caplog.text and "secret" not in caplog.text
