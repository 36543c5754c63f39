"""Which workers can do a task, and what becomes of it where one cannot."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from store import candidates, catalog, fitting, jobs, queue, tasks
from store.models import Outbox, Task
from store.session import reading, unit_of_work
from tests.store.factories import change, claim, must_claim, new_candidate, only_task
from tests.store.test_queue import age, client, delivered, now_minus, reap, unsent

OURS = [("space", "darts"), ("algorithm", "random"), ("dataset", "digits"), ("objective", "error")]
CARBON = ("objective", "carbon")
SPEC: dict[str, Any] = {
    "space": {"name": "darts"},
    "algorithm": {"name": "random"},
    "dataset": {"name": "digits"},
    "objectives": [{"name": "error"}, {"name": "carbon", "key": "c"}],
}


def publish(name: str, *parts: tuple[str, str], memory_gb: float = 8.0) -> None:
    entries = [
        {"kind": kind, "name": each, "summary": "", "settings": {}, "facts": {}, "workers": {}} for kind, each in parts
    ]
    made = {"entries": entries, "device": "cpu", "threads": 1, "memory_gb": memory_gb, "versions": {}}
    queues = ["search.cpu", "verify.cpu", "measure.cpu"]
    with unit_of_work() as session:
        catalog.publish(session, {"name": name, "host": "here", "queues": queues}, made)


def create(**changes: Any) -> UUID:
    """A job; returns its search task."""
    with unit_of_work() as session:
        job = jobs.create(session, {**SPEC, **changes}, "", {})
    return only_task(job.id, "search").id


def waiting(task_id: UUID) -> str | None:
    with reading() as session:
        return jobs.waiting_for(session, jobs.get(session, session.get_one(Task, task_id).job_id))


def test_a_worker_leaves_what_it_does_not_know_to_one_that_does() -> None:
    task_id = create()
    publish("plain", *OURS)
    publish("own", *OURS, CARBON)
    assert claim(task_id, "plain") is None
    assert claim(task_id, "own") is not None


def test_what_follows_the_search_needs_data_and_objectives_alone() -> None:
    search = create()
    job_id = must_claim(search, "unknown").job_id
    with unit_of_work() as session:
        ((candidate_id, _),) = candidates.record(session, job_id, "search", [new_candidate(1)])
        verify = tasks.add(session, job_id, "verify", candidate_id).id
    publish("no-search", *OURS[2:], CARBON)
    publish("no-carbon", *OURS)
    assert claim(verify, "no-carbon") is None
    assert claim(verify, "no-search") is not None
    assert fitting.needed(SPEC, "search") == [*OURS, CARBON]
    assert fitting.needed(SPEC, "conclude") == [*OURS[2:], CARBON]
    assert fitting.needed(SPEC, "export.onnx") == []


def test_a_message_that_the_wrong_worker_read_comes_again_soon(
    live_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = create()
    publish("plain", *OURS)
    publish("own", *OURS, CARBON)
    assert delivered(live_broker) == [task_id]
    monkeypatch.setattr(tasks, "LEFT_SECONDS", 60.0)
    assert claim(task_id, "plain") is None
    assert (unsent(), queue.relay(), reap()) == (1, 0, 0), "not at once: it would come to the same worker"
    change(Outbox, {"created_at": now_minus(1)}, Outbox.task_id == task_id)
    assert queue.relay() == 1
    assert delivered(live_broker) == [task_id, task_id]
    assert claim(task_id, "own") is not None


def test_where_no_live_worker_can_the_message_waits_its_time(live_broker: str) -> None:
    task_id = create()
    publish("plain", *OURS)
    assert claim(task_id, "plain") is None
    assert unsent() == 0
    with client(live_broker) as broker:
        broker.flushall()  # the worker has read it
    assert reap() == 0
    age(task_id, 3600)
    assert reap() == 1


def test_a_job_says_what_no_live_worker_has() -> None:
    task_id = create(dataset={"name": "birds"})
    publish("one", *OURS, memory_gb=1)
    publish("two", *OURS, CARBON)
    assert waiting(task_id) == (
        "a worker on queue search.cpu with data set 'birds' and objective 'carbon' "
        "(a user's own: `skyline worker --plugins FILE`); two has no data set 'birds', "
        "one has no data set 'birds' and objective 'carbon'"
    )
    publish("three", *OURS, CARBON, ("dataset", "birds"))
    assert waiting(task_id) is None
    with unit_of_work() as session:
        catalog.drain(session, "three")
    assert waiting(task_id) is not None


def test_memory_comes_before_names() -> None:
    task_id = create(resources={"min_memory_gb": 4})
    publish("small", *OURS, CARBON, memory_gb=2)
    assert waiting(task_id) == ("a worker on queue search.cpu with at least 4 GB of memory; the largest has 2 GB")
    publish("large", *OURS)
    said = waiting(task_id)
    assert said is not None and said.endswith("large has no objective 'carbon'"), "the small one is not asked"
    assert claim(task_id, "small") is None


def test_what_a_worker_turned_out_not_to_have_is_taken_back() -> None:
    task_id = create()
    publish("own", *OURS, CARBON)
    publish("other", *OURS, CARBON)
    with unit_of_work() as session:
        assert [entry["name"] for entry in catalog.published(session, "own", [CARBON, ("space", "none")])] == ["carbon"]
        catalog.withdraw(session, "own", [CARBON])
        assert catalog.published(session, "own", [CARBON]) == []
        assert catalog.lacking(session, ["own", "other"], [CARBON]) == {"own": [CARBON], "other": []}
        assert catalog.lacking(session, ["own"], []) == {"own": []}
        assert catalog.lacking(session, [], [CARBON]) == {}
    assert claim(task_id, "own") is None
    assert claim(task_id, "other") is not None


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], ""),
        ([("space", "a")], "space 'a'"),
        ([("space", "a"), ("dataset", "b")], "space 'a' and data set 'b'"),
        ([("space", "a"), ("objective", "b"), ("objective", "c")], "space 'a', objective 'b' and objective 'c'"),
    ],
)
def test_parts_in_words(parts: list[tuple[str, str]], said: str) -> None:
    assert fitting.words(parts) == said
