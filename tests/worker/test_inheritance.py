"""Searches that go on from another job's: the state that is kept, taken up, replaced, missed and damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from sqlalchemy import delete, select, update

from nas_core import checkpoint
from nas_core.algorithms import algorithms
from skyline.schemas import JobSpec
from store import artefacts, jobs, loose, origins, tasks
from store.models import Artefact, Job, LooseFile, Task
from store.session import reading, unit_of_work
from tests.worker import ladder
from tests.worker.here import attempts_here
from tests.worker.ladder import SPEC
from worker import files, inheritance, run
from worker.catalog import publication
from worker.control import DONE, GAVE_UP


@pytest.fixture
def folder(environment: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from attempts_here(environment, monkeypatch, ladder.write(environment))


def posted(**changes: Any) -> UUID:
    stored = JobSpec.model_validate({**SPEC, **changes}).model_dump(mode="json")
    with unit_of_work() as session:
        return jobs.create(session, stored).id


def searched(job_id: UUID, ends: int = DONE) -> None:
    """One attempt of the job's search; whatever held it before is given up for dead."""
    with unit_of_work() as session:
        task_id = session.scalars(select(Task.id).where(Task.job_id == job_id, Task.kind == "search")).one()
        claimed = tasks.claim(session, task_id, "w", "cpu", 1, -1, 9)
    assert claimed is not None
    assert run.run(task_id, claimed.fence) == ends


def state_of(job_id: UUID, scratch: Path) -> dict[str, Any]:
    with reading() as session:
        kept = origins.state(session, job_id)
    assert kept is not None
    return checkpoint.load(artefacts.fetch(kept.path, kept.sha256, scratch))


def failed(job_id: UUID) -> str:
    searched(job_id, GAVE_UP)
    with reading() as session:
        job = jobs.get(session, job_id)
    assert job.status == "failed" and job.reason is not None
    return job.reason


def all_of(column: Any) -> list[Any]:
    with reading() as session:
        return list(session.scalars(select(column)))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_search_goes_on_from_what_another_kept(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    if place == "s3":
        request.getfixturevalue("bucket")
    first = posted()
    searched(first)
    state = state_of(first, tmp_path)
    assert (state["began"], state["steps"]) == (0, 3) and torch.equal(state["sum"], torch.tensor([6.0, 6.0]))
    second = posted(**{"from": str(first)}, objectives=["error", "macs"], algorithm={"name": "ladder", "length": 10})
    searched(second)
    state = state_of(second, tmp_path)
    assert (state["began"], state["steps"]) == (3, 6) and torch.equal(state["sum"], torch.tensor([36.0, 36.0]))
    assert all_of(LooseFile.path) == []
    assert all_of(Artefact.path) == [f"{first}/job.state-1.pt", f"{second}/job.state-1.pt"]


@pytest.mark.slow
def test_a_search_that_is_repeated_leaves_one_state(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its file was stored and before its row, then after its row and before its task was over."""
    job_id = posted()
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr(files.candidates, "add_artefact", killed)
        with pytest.raises(KeyboardInterrupt):
            searched(job_id)
    assert all_of(Artefact.path) == [] and all_of(LooseFile.path) == [f"{job_id}/job.state-1.pt"]
    for _ in range(2):
        searched(job_id)
    assert all_of(Artefact.path) == [f"{job_id}/job.state-3.pt"]
    assert state_of(job_id, tmp_path)["steps"] == 3
    with unit_of_work() as session:
        session.execute(update(LooseFile).values(due_at=session.get_one(Job, job_id).created_at))
    assert loose.sweep() == 2
    assert [path.name for path in (folder / "artefacts" / str(job_id)).iterdir()] == ["job.state-3.pt"]


def test_of_an_algorithm_that_hands_nothing_on_nothing_is_kept(folder: Path) -> None:
    ladder.write(folder, hands_on=False)
    source = posted()
    searched(source)
    assert all_of(Artefact.path) == all_of(LooseFile.path) == []


@pytest.mark.slow
def test_what_cannot_be_taken_up_ends_the_job_with_a_reason(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = posted()
    searched(source)
    one, two, three, four = (posted(**{"from": str(source)}) for _ in range(4))
    (path,) = all_of(Artefact.path)
    with monkeypatch.context() as patch:
        patch.setattr(algorithms["ladder"], "hands_on", False)
        assert f"algorithm 'ladder' of this worker cannot go on from the search of job {source}" in failed(one)
    (tmp_path / "other").write_bytes(b"other")
    artefacts.files().put(path, tmp_path / "other")
    assert f"the artefact {path} is damaged" in failed(two)
    artefacts.files().delete([path])
    assert f"the artefact {path} is not there any more" in failed(three)
    with unit_of_work() as session:
        session.execute(delete(Artefact))
    reason = failed(four)
    assert reason.startswith(f"there is no state of a search of job {source} to go on from (any more)")
    assert "post a job without 'from'" in reason


def test_the_catalog_says_who_hands_on(folder: Path) -> None:
    facts = {entry.name: entry.facts for entry in publication().entries if entry.kind == "algorithm"}
    assert (facts["ladder"]["hands_on"], facts["ladder"]["redone"]) == (True, ["length"])
    assert (facts["random"]["hands_on"], facts["random"]["redone"]) == (False, [])
    assert inheritance.hands_on(JobSpec.model_validate(SPEC))
