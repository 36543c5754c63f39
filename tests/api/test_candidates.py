"""Candidates and the networks to take home."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import update

from nas_core.architecture import Architecture
from skyline.schemas import Candidate, CandidatePage, ExportState
from store import candidates, logs, tasks
from store.models import Attempt
from store.session import unit_of_work
from store.settings import settings
from tests.api import results
from tests.api.problems import paths, problem


def numbers(client: httpx.Client, job_id: UUID, ids: list[UUID], **query: Any) -> list[int]:
    """All pages of a list, as indices into ``ids``."""
    found: list[int] = []
    while True:
        response = client.get(f"/v1/jobs/{job_id}/candidates", params=query)
        assert response.status_code == 200, response.text
        page = CandidatePage.model_validate_json(response.content)
        found += [ids.index(candidate.id) for candidate in page.items]
        if page.next is None:
            return found
        query["cursor"] = page.next


def test_lists_are_sorted_filtered_and_paged(shared: httpx.Client) -> None:
    job_id = results.job()
    ids = results.record(job_id, 5)
    results.verify(ids[:2])
    with unit_of_work() as session:
        candidates.fail(session, ids[4], "out of memory")
    for limit in (2, 100):
        assert numbers(shared, job_id, ids, limit=limit) == [0, 1, 2, 3, 4]
        assert numbers(shared, job_id, ids, limit=limit, descending=True) == [4, 3, 2, 1, 0]
        assert numbers(shared, job_id, ids, limit=limit, sort="params") == [4, 3, 2, 1, 0]
        assert numbers(shared, job_id, ids, limit=limit, sort="error", descending=True) == [4, 3, 2, 1, 0]
        assert numbers(shared, job_id, ids, limit=limit, sort="latency_ms", stage="final") == [1, 0, 2, 3, 4]
    assert numbers(shared, job_id, ids, status="verified") == [0, 1]
    assert numbers(shared, job_id, ids, status="failed") == [4]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"sort": "beauty"}, "/query/sort"),
        ({"sort": "Number"}, "/query/sort"),
        ({"status": "good"}, "/query/status"),
        ({"limit": 1001}, "/query/limit"),
        ({"descending": "perhaps"}, "/query/descending"),
        ({"order": "asc"}, "/query/order"),
    ],
)
def test_bad_queries(shared: httpx.Client, query: dict[str, Any], path: str) -> None:
    assert paths(problem(shared.get(f"/v1/jobs/{results.job()}/candidates", params=query), 422)) == [path]


def test_the_answer_to_a_wrong_sort_key_lists_the_right_ones(shared: httpx.Client) -> None:
    response = shared.get(f"/v1/jobs/{results.job()}/candidates", params={"sort": "beauty"})
    assert "number, error, params, latency_ms" in problem(response, 422).detail


def test_a_candidate_shows_what_counts_and_what_the_search_saw(shared: httpx.Client) -> None:
    _, ids = results.finished(2)
    candidate = Candidate.model_validate_json(shared.get(f"/v1/candidates/{ids[0]}").content)
    assert (candidate.status, candidate.artefacts) == ("verified", ["json"])
    assert candidate.test is not None
    assert candidate.test.n == 360
    assert {key: value.kind for key, value in candidate.values.items()} == {
        "error": "trained",
        "params": "exact",
        "latency_ms": "measured",
    }
    assert candidate.search_values["error"].kind == "supernet"
    assert Architecture.from_json(candidate.architecture).hash == candidate.hash


def test_a_failed_verification_is_done_again_and_nothing_else(shared: httpx.Client) -> None:
    job_id, (verified, failed) = results.finished(2)
    with unit_of_work() as session:
        for kind, candidate_id in (("search", None), ("verify", verified), ("verify", failed), ("conclude", None)):
            tasks.add(session, job_id, kind, candidate_id)
        tasks.abandon(session, job_id)  # the job has ended: none of them waits
        candidates.fail(session, failed, "died")
    again = Candidate.model_validate_json(shared.post(f"/v1/candidates/{failed}/retry").content)
    assert (again.status, again.failure, again.job) == ("verified", None, job_id)  # it has all its values
    assert shared.get(f"/v1/jobs/{job_id}").json()["status"] == "verifying"
    assert "verification is queued" in problem(shared.post(f"/v1/candidates/{failed}/retry"), 409).detail
    found = problem(shared.post(f"/v1/candidates/{verified}/retry"), 409)
    assert f"candidate {verified} cannot be verified again" in found.detail
    (other,) = results.record(results.job(), 1)
    assert "not chosen for verification" in problem(shared.post(f"/v1/candidates/{other}/retry"), 409).detail


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(shared: httpx.Client) -> tuple[UUID, bytes]:
    """A verified candidate with its file."""
    job_id, ids = results.finished(1)
    content = bytes(range(256)) * 8
    place = settings().artefact_dir / str(job_id) / "weights.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with unit_of_work() as session:
        relative = f"{job_id}/weights.safetensors"
        candidates.add_artefact(session, ids[0], job_id, "safetensors", relative, digest, len(content))
    return ids[0], content


def test_the_architecture_of_any_candidate_as_json(shared: httpx.Client) -> None:
    (candidate_id,) = results.record(results.job(), 1)
    path = f"/v1/candidates/{candidate_id}/model"
    response = shared.get(path)
    assert response.headers["content-type"] == "application/json"
    architecture = Architecture.from_json(response.text)
    assert response.headers["etag"] == f'"{architecture.hash}"'
    assert response.headers["content-disposition"] == f'attachment; filename="{architecture.hash[:12]}.json"'
    again = shared.get(path, params={"format": "json"}, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_weights_come_as_they_lie(shared: httpx.Client, weights: tuple[UUID, bytes]) -> None:
    candidate_id, content = weights
    path, query = f"/v1/candidates/{candidate_id}/model", {"format": "safetensors"}
    response = shared.get(path, params=query)
    assert response.content == content
    assert response.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert response.headers["content-disposition"].endswith('.safetensors"')
    assert shared.get(path, params=query, headers={"If-None-Match": response.headers["etag"]}).status_code == 304
    part = shared.get(path, params=query, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert shared.get(f"/v1/candidates/{candidate_id}").json()["artefacts"] == ["json", "safetensors"]


def test_no_weights_without_verification(shared: httpx.Client) -> None:
    (candidate_id,) = results.record(results.job(), 1)
    found = problem(shared.get(f"/v1/candidates/{candidate_id}/model", params={"format": "safetensors"}), 409)
    assert "is evaluated; only verified candidates" in found.detail


def test_an_unknown_format_lists_what_there_is(shared: httpx.Client, weights: tuple[UUID, bytes]) -> None:
    found = problem(shared.get(f"/v1/candidates/{weights[0]}/model", params={"format": "h5"}), 422)
    known = "json, onnx, pt2, python, safetensors, masks, inherited"
    assert found.detail == f"unknown format 'h5'; a network can be had as: {known}"
    assert paths(found) == ["/query/format"]


def test_a_file_is_made_when_it_is_first_asked_for(shared: httpx.Client, weights: tuple[UUID, bytes]) -> None:
    candidate_id, _ = weights
    path, query = f"/v1/candidates/{candidate_id}/model", {"format": "onnx"}

    def asked(status: int) -> httpx.Response:
        response = shared.get(path, params=query)
        assert response.status_code == status, response.text
        return response

    first = asked(202)
    state = ExportState.model_validate_json(first.content)
    assert (state.format, state.status) == ("onnx", "queued")
    assert state.waiting_for is not None and "a worker on queue short" in state.waiting_for
    assert int(first.headers["Retry-After"]) > 0
    assert asked(202).json()["task"] == str(state.task), "one task, however often it is asked for"

    claimed = claim(state.task)
    assert asked(202).json()["status"] == "running"
    with unit_of_work() as session:
        assert tasks.heartbeat(session, state.task, claimed.fence, 60) == "ok", "its job has ended long ago"
        job_id = candidates.get(session, candidate_id).job_id
        logs.append(session, state.task, claimed.fence, 0, 49, "Traceback: its secrets\nExportError: no such op\n")
        assert tasks.end(session, state.task, claimed.fence, status="failed", end="failed")
    found = problem(shared.get(path, params=query), 409)
    assert f"the export.onnx failed: ExportError: no such op (all of it: the log of job {job_id})" in found.detail
    assert "asked again in a minute" in found.detail
    with unit_of_work() as session:
        session.execute(
            update(Attempt).where(Attempt.task_id == state.task).values(ended_at=datetime(2000, 1, 1, tzinfo=UTC))
        )
    assert asked(202).json()["status"] == "queued"

    claimed = claim(state.task)
    place = settings().artefact_dir / str(job_id) / "network.onnx"
    place.write_bytes(b"onnx")
    with unit_of_work() as session:
        tasks.hold(session, state.task, claimed.fence)
        candidates.add_artefact(session, candidate_id, job_id, "onnx", f"{job_id}/network.onnx", "00", 4)
        tasks.end(session, state.task, claimed.fence, status="done", end="done")
    response = asked(200)
    assert response.content == b"onnx" and response.headers["content-disposition"].endswith('.onnx"')
    place.unlink()
    assert asked(202).json()["status"] == "queued", "a file that went is made again"
    assert shared.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"


def claim(task_id: UUID) -> tasks.Claim:
    with unit_of_work() as session:
        claimed = tasks.claim(session, task_id, "w", "cpu", 1, 60, 3)
    assert claimed is not None
    return claimed


def test_a_file_that_is_gone_or_lies_elsewhere_is_not_sent(shared: httpx.Client, weights: tuple[UUID, bytes]) -> None:
    candidate_id, _ = weights
    query = {"format": "safetensors"}
    folder = settings().data_dir
    secret = folder / "secret"
    secret.write_text("secret")
    with unit_of_work() as session:
        job_id = candidates.get(session, candidate_id).job_id
        candidates.add_artefact(session, candidate_id, job_id, "safetensors", "../secret", "00", 6)
    problem(shared.get(f"/v1/candidates/{candidate_id}/model", params=query), 404)
    with unit_of_work() as session:
        candidates.add_artefact(session, candidate_id, job_id, "safetensors", "gone", "00", 6)
    found = problem(shared.get(f"/v1/candidates/{candidate_id}/model", params=query), 404)
    assert str(folder) not in found.detail
