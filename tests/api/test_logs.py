"""A job's log over HTTP: pages that go on where the last one ended, and text for people."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from skyline.schemas import LogPage
from store import logs, tasks
from store.session import unit_of_work
from tests.api import results
from tests.api.problems import paths, problem
from tests.store.factories import must_claim


@pytest.fixture
def job_id(shared: httpx.Client) -> UUID:
    """A job with two verifications that printed in turn."""
    job_id = results.job()
    ids = results.record(job_id, 2)
    with unit_of_work() as session:
        made = [tasks.add(session, job_id, "verify", candidate_id).id for candidate_id in ids]
    claims = [must_claim(task_id) for task_id in made]
    for number in range(2):
        for claim in claims:
            with unit_of_work() as session:
                tasks.hold(session, claim.task_id, claim.fence)
                offset = logs.end(session, claim.task_id, claim.fence)
                logs.append(session, claim.task_id, claim.fence, offset, 8, f"epoch {number}\n")
    return job_id


def page(client: httpx.Client, job_id: UUID, **query: Any) -> LogPage:
    response = client.get(f"/v1/jobs/{job_id}/log", params=query)
    assert (response.status_code, response.headers["vary"]) == (200, "Accept")
    return LogPage.model_validate_json(response.content)


def test_pages_go_on_where_the_last_one_ended(shared: httpx.Client, job_id: UUID) -> None:
    whole = page(shared, job_id)
    assert [chunk.text for chunk in whole.items] == ["epoch 0\n", "epoch 0\n", "epoch 1\n", "epoch 1\n"]
    assert [chunk.offset for chunk in whole.items] == [0, 0, 8, 8]
    assert {(chunk.kind, chunk.attempt) for chunk in whole.items} == {("verify", 1)}
    assert all(chunk.candidate for chunk in whole.items)
    first = page(shared, job_id, limit=3)
    rest = page(shared, job_id, after=first.next)
    assert first.items + rest.items == whole.items
    assert page(shared, job_id, after=rest.next) == LogPage(items=[], next=rest.next)


def test_one_task_or_attempt_alone(shared: httpx.Client, job_id: UUID) -> None:
    first, second, *_ = page(shared, job_id).items
    of_one = page(shared, job_id, task=str(second.task), attempt=1).items
    assert [chunk.offset for chunk in of_one] == [0, 8] and {chunk.task for chunk in of_one} == {second.task}
    assert page(shared, job_id, attempt=2).items == []
    assert first.task != second.task


def test_text_comes_attempt_by_attempt(shared: httpx.Client, job_id: UUID) -> None:
    response = shared.get(f"/v1/jobs/{job_id}/log", headers={"Accept": "text/plain"})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    one, two = (chunk for chunk in page(shared, job_id).items[:2])
    headings = [
        f"==> verify, attempt 1, candidate {str(chunk.candidate)[:8]} (task {str(chunk.task)[:8]}) <==\n"
        for chunk in (one, two)
    ]
    assert response.text == f"{headings[0]}epoch 0\nepoch 1\n\n{headings[1]}epoch 0\nepoch 1\n"
    alone = shared.get(f"/v1/jobs/{job_id}/log", params={"task": str(two.task)}, headers={"Accept": "text/plain"})
    assert alone.text == f"{headings[1]}epoch 0\nepoch 1\n"


def test_nothing_was_printed_yet(shared: httpx.Client) -> None:
    job_id = results.job()
    assert page(shared, job_id) == LogPage(items=[], next=0)
    assert shared.get(f"/v1/jobs/{job_id}/log", headers={"Accept": "text/plain"}).text == ""


@pytest.mark.parametrize(
    ("query", "path"),
    [({"task": "seven"}, "/query/task"), ({"limit": 501}, "/query/limit"), ({"after": -1}, "/query/after")],
)
def test_bad_queries(shared: httpx.Client, query: dict[str, Any], path: str) -> None:
    assert paths(problem(shared.get(f"/v1/jobs/{results.job()}/log", params=query), 422)) == [path]
    assert page(shared, results.job(), after=2**53).items == []
