"""Fronts as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from skyline.schemas import Candidate, Front
from store import jobs
from store.session import unit_of_work
from tests.api import results
from tests.api.conftest import publish
from tests.api.problems import paths, problem


def read(client: httpx.Client, job_id: UUID, **query: Any) -> Front:
    response = client.get(f"/v1/jobs/{job_id}/front", params=query)
    assert response.status_code == 200, response.text
    return Front.model_validate_json(response.content)


def test_members_are_candidates_with_all_values(shared: httpx.Client) -> None:
    job_id, ids = results.finished(3)
    front = read(shared, job_id)
    assert (front.job, front.kind, front.version, front.hypervolume, front.knee) == (job_id, "final", 1, 1.5, ids[0])
    assert front.reference_point == results.SPEC["reference_point"]
    assert [(o.key, o.unit, o.direction, o.kind) for o in front.objectives] == [
        ("error", "", "minimize", "trained"),
        ("params", "", "minimize", "exact"),
        ("latency_ms", "ms", "minimize", "measured"),
    ]
    assert [member.id for member in front.members] == ids
    assert front.members[0].test is not None
    assert front.infeasible is None
    raw = shared.get(f"/v1/jobs/{job_id}/front").json()["members"]
    for member in raw:
        assert member == shared.get(f"/v1/candidates/{member['id']}").json()


def test_the_search_front_holds_what_the_search_saw(shared: httpx.Client) -> None:
    job_id, ids = results.finished(2)
    member = read(shared, job_id, kind="search").members[0]
    assert member.values == member.search_values
    assert (member.values["error"].kind, member.values["error"].value) == ("supernet", 0.1)
    assert member.values["latency_ms"].model_extra == {"device": "cpu", "n": 30, "iqr": 0.1}
    verified = read(shared, job_id).members[0]
    assert (verified.values["error"].kind, verified.values["params"].kind) == ("trained", "exact")
    assert verified.id == member.id == ids[0]


def test_the_default_is_the_final_front_even_while_it_is_empty(shared: httpx.Client) -> None:
    job_id = results.job()
    results.front(job_id, "search", results.record(job_id, 2))
    front = read(shared, job_id)
    assert (front.kind, front.version, front.members, front.hypervolume) == ("final", 0, [], None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"max.params": 998}, [2, 3, 4]),
        ({"max.params": 998, "min.params": 997}, [2, 3]),
        ({"max.error": 0.0605}, [0, 1, 2]),
        ({"max.latency_ms": 7.8, "max.error": 0.066}, [2, 3]),
        ({"max.latency_ms": "1e-3"}, []),
        ({"kind": "search", "max.latency_ms": 9.8}, [2, 3, 4]),
    ],
)
def test_bounds_choose_members_by_the_values_shown(
    shared: httpx.Client, query: dict[str, Any], expected: list[int]
) -> None:
    job_id, ids = results.finished(5)
    front = read(shared, job_id, **query)
    assert [member.id for member in front.members] == [ids[number] for number in expected]


@pytest.mark.parametrize(
    ("query", "path", "says"),
    [
        ({"max.energy_mj": 1}, "/query/max.energy_mj", "error, params, latency_ms"),
        ({"max.params": "few"}, "/query/max.params", "a number"),
        ({"max.params": "nan"}, "/query/max.params", "a number"),
        ({"min.params": "1e999"}, "/query/min.params", "a number"),
        ({"most.params": 1}, "/query/most.params", "max.<objective>"),
        ({"maximum": 1}, "/query/maximum", "known: kind"),
        ({"kind": "best"}, "/query/kind", "'search' or 'final'"),
        ({"limit": 0}, "/query/limit", "greater than or equal to 1"),
    ],
)
def test_bad_queries(shared: httpx.Client, query: dict[str, Any], path: str, says: str) -> None:
    found = problem(shared.get(f"/v1/jobs/{results.job()}/front", params=query), 422)
    assert paths(found) == [path]
    assert says in found.detail


def test_pages_stay_with_the_version_they_began_with(shared: httpx.Client) -> None:
    job_id = results.job()
    ids = results.record(job_id, 6)
    results.front(job_id, "final", ids[:5])
    first = read(shared, job_id, limit=2)
    assert ([member.id for member in first.members], first.version) == (ids[:2], 1)
    results.front(job_id, "final", ids[3:])
    seen, cursor = [], first.next
    while cursor is not None:
        page = read(shared, job_id, limit=2, cursor=cursor)
        assert page.version == 1
        assert page.hypervolume is None  # only the newest has one
        seen += [member.id for member in page.members]
        cursor = page.next
    assert seen == ids[2:5]
    assert [member.id for member in read(shared, job_id).members] == ids[3:]
    assert [member.id for member in read(shared, job_id, version=1).members] == ids[:5]
    assert read(shared, job_id, version=0).members == []
    refused = problem(shared.get(f"/v1/jobs/{job_id}/front", params={"version": 3}), 404)
    assert refused.detail == "the final front has no version 3; the newest is 2"


@pytest.mark.parametrize(
    "cursor", ["x", "WzEsLTFd", "W3RydWUsMV0", "WzEsbnVsbF0", "WzEsIDk5OTk5OTk5OTk5OTk5OTk5OTk5OV0"]
)
def test_bad_cursors(shared: httpx.Client, cursor: str) -> None:
    job_id, _ = results.finished(1)
    problem(shared.get(f"/v1/jobs/{job_id}/front", params={"cursor": cursor}), 422)


def test_an_unchanged_front_is_not_sent_again(shared: httpx.Client) -> None:
    job_id = results.job()
    ids = results.record(job_id, 2)
    results.front(job_id, "final", ids[:1])
    path = f"/v1/jobs/{job_id}/front"
    tag = shared.get(path).headers["etag"]
    for given in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = shared.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert shared.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert shared.get(path, params={"kind": "search"}, headers={"If-None-Match": tag}).status_code == 200
    results.front(job_id, "final", ids)
    changed = shared.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    with unit_of_work() as session:  # test errors come with the end, without a new version
        jobs.finish(session, job_id, "succeeded")
    assert shared.get(path, headers={"If-None-Match": changed.headers["etag"]}).status_code == 200


def test_an_empty_front_says_what_comes_nearest_to_the_bounds(shared: httpx.Client) -> None:
    constraints = {"params": {"max": 990.0}, "latency_ms": {"max": 2.0}}
    job_id = results.job(constraints=constraints)
    assert read(shared, job_id, kind="search").infeasible is None  # nothing was tried yet
    ids = results.record(job_id, 6)
    infeasible = read(shared, job_id, kind="search").infeasible
    assert infeasible is not None and infeasible.stage == "search"
    assert [near.id for near in infeasible.nearest] == [ids[5], ids[4], ids[3]]
    assert infeasible.nearest[0].values == read_candidate(shared, ids[5]).search_values
    params, latency = infeasible.violations["params"], infeasible.violations["latency_ms"]
    assert (params.side, params.max, params.nearest, params.by) == ("max", 990.0, 995.0, 5.0)
    assert (latency.max, latency.nearest, latency.by, latency.share) == (2.0, 9.5, 7.5, 3.75)
    assert {params.candidate, latency.candidate} == {ids[5]} and infeasible.alone == {}
    assert read(shared, job_id).infeasible is None  # nothing was verified yet
    results.verify(ids[:2])
    final = read(shared, job_id).infeasible
    assert final is not None and final.stage == "final"
    assert [near.id for near in final.nearest] == [ids[1], ids[0]]
    assert final.nearest[0].values["error"].kind == "trained"
    results.front(job_id, "search", ids[:1])
    assert read(shared, job_id, kind="search").infeasible is None


def read_candidate(client: httpx.Client, candidate_id: UUID) -> Candidate:
    return Candidate.model_validate_json(client.get(f"/v1/candidates/{candidate_id}").content)


def test_a_job_without_a_network_says_in_the_job_the_list_and_the_front_what_came_nearest(
    shared: httpx.Client,
) -> None:
    job_id = results.job(constraints={"params": {"max": 990.0}})
    ids = results.record(job_id, 3)
    path, front = f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/front"
    assert shared.get(path).json()["infeasible"] is None, "it may still verify something"
    tag = shared.get(front).headers["etag"]
    with unit_of_work() as session:
        jobs.finish(session, job_id, "succeeded")
    found = read(shared, job_id).infeasible
    assert found is not None and found.stage == "search"
    assert [near.id for near in found.nearest] == ids[::-1]
    assert shared.get(front, headers={"If-None-Match": tag}).status_code == 200
    listed = {each["id"]: each for each in shared.get("/v1/jobs", params={"status": "succeeded"}).json()["items"]}
    for shown in (shared.get(path).json(), listed[str(job_id)]):
        assert shown["infeasible"] == found.model_dump(mode="json")
    other, _ = results.finished(1)
    assert shared.get(f"/v1/jobs/{other}").json()["infeasible"] is None


def test_text_of_users_is_quoted(shared: httpx.Client) -> None:
    key = "_l.a@t:+-"  # all that a key may hold
    objectives = [{"name": "error"}, {"name": "latency_ms", "key": key}]
    job_id = results.job(objectives=objectives, reference_point={}, constraints={})
    with unit_of_work() as session:
        from store import candidates

        values = {"error": results.value(0.1, "", "trained"), key: results.value(1.0, "ms", "measured")}
        new = candidates.NewCandidate("ff", {"genotype": 'a"b'}, 0, values)
        ((candidate_id, _),) = candidates.record(session, job_id, "search", [new])
    results.front(job_id, "search", [candidate_id])
    member = read(shared, job_id, kind="search", **{f"max.{key}": 2}).members[0]
    assert set(member.values) == {"error", key}
    assert member.architecture == {"genotype": 'a"b'}


def test_each_database_gives_the_same_answers(environment_on_each: Path, server: str) -> None:
    """What is put together from text, counted or chosen by SQL."""
    publish("worker-1")
    with httpx.Client(base_url=server, timeout=30, trust_env=False) as client:
        job_id, ids = results.finished(5)
        raw = client.get(f"/v1/jobs/{job_id}/front").json()["members"]
        assert [member["id"] for member in raw] == [str(one) for one in ids]
        assert raw[0] == client.get(f"/v1/candidates/{ids[0]}").json()
        bounded = read(client, job_id, **{"max.params": 998, "min.error": 0.061}, limit=2)
        assert ([member.id for member in bounded.members], bounded.next) == (ids[3:], None)
        other = results.job(constraints={"params": {"max": 990.0}})
        tried = results.record(other, 3)
        infeasible = read(client, other, kind="search").infeasible
        assert infeasible is not None
        assert [near.id for near in infeasible.nearest] == [tried[2], tried[1], tried[0]]
        assert infeasible.alone["params"].candidate == tried[2]
        assert client.get("/v1/jobs", params={"name": "toy", "limit": 1}).json()["next"]
        listed = client.get(f"/v1/jobs/{job_id}/candidates", params={"sort": "params", "limit": 2}).json()
        assert [item["id"] for item in listed["items"]] == [str(ids[4]), str(ids[3])]
        assert client.get("/readyz").json()["workers"] == 1
