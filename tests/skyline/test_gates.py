"""Requirements held against fronts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyline import gates
from skyline.client import Client
from skyline.errors import InvalidRequirementError, NotSucceededError
from skyline.gates import Gate
from skyline.schemas import Front, JobSpec
from tests.skyline.scripted import CANDIDATE_ID, JOB_ID, SPEC, Reply, Script, candidate, front, job

JOB = f"/v1/jobs/{JOB_ID}"
FRONT = f"{JOB}/front"
SMALL = "bbbbbbbb-2222-4333-8444-555555555555"
LARGE = "cccccccc-2222-4333-8444-555555555555"
JOB_SPEC = {**SPEC, "objectives": ["error", "params", "latency_ms"]}
OBJECTIVES = [
    {"key": "error", "unit": "", "direction": "minimize", "kind": "trained"},
    {"key": "params", "unit": "", "direction": "minimize", "kind": "exact"},
    {"key": "latency_ms", "unit": "ms", "direction": "minimize", "kind": "measured"},
]
POINTS = {SMALL: (0.1, 9000.0, 1.0), CANDIDATE_ID: (0.05, 40_000.0, 3.0), LARGE: (0.05, 40_000.0, 2.0)}


def made(*members: dict[str, Any], **changes: Any) -> Front:
    return Front.model_validate_json(json.dumps(front(*members, objectives=OBJECTIVES) | changes))


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({**JOB_SPEC, **changes})


FULL = made(*(candidate(name, error=e, params=p, latency_ms=ms) for name, (e, p, ms) in POINTS.items()))


def decided(require: str, on: Front = FULL) -> Gate:
    return gates.decide(on, gates.parse(require, on, spec()))


def passing(require: str) -> list[str]:
    return [str(member.id)[0] for member in decided(require).passing]


# --- requirements -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "sign", "bound"),
    [
        ("error<=0.1", "error", "<=", 0.1),
        (" error <= 10 % ", "error", "<=", 0.1),
        ("error<29%", "error", "<", 0.29),
        ("params>=3e5", "params", ">=", 300_000.0),
        ("latency_ms>-1", "latency_ms", ">", -1.0),
    ],
)
def test_a_requirement_is_read(text: str, key: str, sign: str, bound: float) -> None:
    (found,) = gates.parse(text, FULL, spec())
    assert (found.key, found.sign, found.bound, found.text) == (key, sign, bound, text.strip())


def test_several_stand_with_commas_between_or_in_a_list() -> None:
    text = "error<=10%, params<=300000,error>1%"
    assert gates.parse(text, FULL, spec()) == gates.parse(text.split(","), FULL, spec())
    assert len(gates.parse(text, FULL, spec())) == 3


def test_a_key_of_ones_own_is_an_objective_whatever_is_in_it() -> None:
    objectives = [{**OBJECTIVES[0], "key": "test.error"}, {**OBJECTIVES[2], "key": "lat-1@edge"}]
    named = spec(
        objectives=[{"name": "error", "key": "test.error"}, {"name": "latency_ms", "key": "lat-1@edge"}],
    )
    on = made(objectives=objectives)
    found = gates.parse(["test.error<=5%", "lat-1@edge < 2"], on, named)
    assert [(each.key, each.bound) for each in found] == [("test.error", 0.05), ("lat-1@edge", 2.0)]


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ("", "requirement '': write it as KEY<=NUMBER"),
        ("error", "requirement 'error': write it as KEY<=NUMBER, with <=, <, >= or >, such as error<=0.1"),
        ("error==0.1", "requirement 'error==0.1': write it as"),
        ("error=<0.1", "requirement 'error=<0.1': write it as"),
        ("error<=", "requirement 'error<=': write it as"),
        ("<=3", "requirement '<=3': write it as"),
        ("error<=0.1,", "requirement '': write it as"),
        ("error<=small", "requirement 'error<=small': 'small' is no number; write it as"),
        ("error<=nan", "requirement 'error<=nan': 'nan' is no number"),
        ("params<=inf", "requirement 'params<=inf': 'inf' is no number"),
        ("weight<=3", "requirement 'weight<=3': 'weight' is no objective of this job: error, params, latency_ms"),
        ("params<=10%", "requirement 'params<=10%': 'params' is no fraction, so % means nothing; give a number"),
        ("latency_ms<10%", "'latency_ms' is no fraction, so % means nothing; give a number (ms)"),
        ("error<=1%,test.error<=1%", "'test.error<=1%': test values decide nothing, or they would be no test any more"),
        ("test<=1%", "any more; require 'error'"),
    ],
)
def test_what_is_no_requirement_says_what_would_do(require: str, message: str) -> None:
    with pytest.raises(InvalidRequirementError) as caught:
        gates.parse(require, FULL, spec())
    assert message in str(caught.value)


def test_no_requirement_at_all_is_refused() -> None:
    with pytest.raises(InvalidRequirementError, match="there is none; write it as"):
        gates.parse([], FULL, spec())


def test_percent_is_known_before_there_is_any_value() -> None:
    empty = made(objectives=[{**objective, "kind": None} for objective in OBJECTIVES])
    assert gates.parse("error<=10%", empty, spec())[0].bound == 0.1
    with pytest.raises(InvalidRequirementError, match="no fraction"):
        gates.parse("params<=10%", empty, spec())


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_bounds_hold_with_and_without_themselves() -> None:
    assert passing("error<=0.1,params<=9000") == ["b"]
    assert passing("error<=0.1,params<9000") == []
    assert passing("error<0.1") == ["c", "a"]
    assert passing("error>=0.1") == ["b"]
    assert passing("error>0.1") == []


def test_the_best_is_that_of_the_first_requirement() -> None:
    by_error, by_params = decided("error<=10%,params<=50000"), decided("params<=50000,error<=10%")
    assert (str(by_error.best), by_error.rule) == (LARGE, "least error")
    assert (str(by_params.best), by_params.rule) == (SMALL, "least params")
    assert by_error.passed and (by_error.members, by_error.nearest, by_error.misses) == (3, None, [])


def test_ties_go_by_the_next_requirement_then_by_the_other_objectives_then_by_age() -> None:
    assert passing("error<=10%,params>=1") == ["c", "a", "b"], "latency decides between equals"
    assert passing("error<=10%,latency_ms<=9") == ["c", "a", "b"]
    twins = made(*(candidate(name, error=0.1, params=1.0) for name in (LARGE, SMALL)))
    assert str(decided("error<=10%", twins).best) == LARGE


def test_what_is_maximised_is_best_when_it_is_greatest() -> None:
    objectives = [{**OBJECTIVES[0], "key": "accuracy", "direction": "maximize"}, OBJECTIVES[1]]
    members = []
    for name, accuracy in ((SMALL, 0.9), (LARGE, 0.95), (CANDIDATE_ID, 0.8)):
        member = candidate(name, params=10.0)
        member["values"]["accuracy"] = {"value": accuracy, "unit": "", "kind": "trained"}
        members.append(member)
    on = made(*members, objectives=objectives)
    named = spec(objectives=["accuracy", "params"])
    found = gates.decide(on, gates.parse("accuracy>=85%", on, named))
    assert ([str(member.id) for member in found.passing], found.rule) == ([LARGE, SMALL], "greatest accuracy")
    none = gates.decide(on, gates.parse("accuracy>=99%", on, named))
    assert none.nearest is not None and str(none.nearest.id) == LARGE
    assert none.misses[0].by == pytest.approx(0.04)


def test_the_nearest_misses_least_as_shares_of_the_bounds() -> None:
    found = decided("error<=0.04,params<=8000")
    assert not found.passed and found.best is None and found.passing == []
    assert found.nearest is not None and str(found.nearest.id) == SMALL, "150 % + 12.5 % are less than 25 % + 400 %"
    assert [(miss.requirement.text, miss.value) for miss in found.misses] == [
        ("error<=0.04", 0.1),
        ("params<=8000", 9000.0),
    ]
    assert [miss.by for miss in found.misses] == pytest.approx([0.06, 1000])
    near = decided("error<=0.04,params<=40000")
    assert near.nearest is not None and str(near.nearest.id) == LARGE, "equally far: the better one"
    assert [miss.requirement.key for miss in near.misses] == ["error"], "only what is missed"


def test_the_bound_itself_is_missed_by_nothing() -> None:
    found = decided("params<9000")
    assert found.nearest is not None and str(found.nearest.id) == SMALL
    assert [(miss.value, miss.by) for miss in found.misses] == [(9000.0, 0.0)]


def test_what_has_no_value_passes_nothing() -> None:
    lone = made(candidate(error=0.01))
    found = decided("error<=10%,params<=10", lone)
    assert not found.passed
    assert [(miss.requirement.key, miss.value, miss.by) for miss in found.misses] == [("params", None, None)]


def test_an_empty_front_has_no_nearest() -> None:
    found = decided("error<=10%", made())
    assert (found.passed, found.members, found.nearest, found.misses) == (False, 0, None, [])


points = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), max_size=8)


@given(points=points, error=st.floats(0, 1), params=st.integers(1, 10**6))
def test_who_passes_holds_everything_and_who_does_not_misses_something(
    points: list[tuple[float, int]], error: float, params: int
) -> None:
    members = [candidate(f"{n:08d}{SMALL[8:]}", error=e, params=float(p)) for n, (e, p) in enumerate(points)]
    on = made(*members)
    found = decided(f"error<={error!r},params<{params}", on)
    wanted = [e for e, p in points if e <= error and p < params]
    assert [member.values["error"].value for member in found.passing] == sorted(wanted)
    assert found.passed == bool(wanted)
    assert bool(found.misses) == (bool(points) and not wanted)


# --- by the client ----------------------------------------------------------------------------------------------------


def test_test_errors_and_search_values_change_no_verdict(script: Script, client: Client) -> None:
    member = {**candidate(error=0.2, params=10.0), "test": {"error": 0.01, "sd": 0.001, "n": 360}}
    member["search_values"] = {"error": {"value": 0.01, "unit": "", "kind": "supernet"}}
    script.on("GET", JOB, Reply(job("succeeded")))
    script.on("GET", FRONT, Reply(front(member)))
    assert not client.gate(JOB_ID, "error<=10%").passed
    assert script.asked[-1].query == {"kind": "final"}, "the final front unless it is said otherwise"
    assert client.gate(JOB_ID, ["error<=20%"], "final").passed


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (job("verifying"), r"is verifying \(50 %\), so its front may still change; wait for its end"),
        (job("cancelled"), "ended as cancelled$"),
        (job("failed", reason="the data set is gone"), "ended as failed: the data set is gone"),
    ],
)
def test_only_a_job_that_succeeded_is_gated(
    script: Script, client: Client, state: dict[str, Any], message: str
) -> None:
    script.on("GET", JOB, Reply(state))
    script.on("GET", FRONT, Reply(front(candidate(error=0.01, params=1.0))))
    with pytest.raises(NotSucceededError, match=message) as caught:
        client.gate(JOB_ID, "error<=10%")
    assert caught.value.job.status == state["status"]
    with pytest.raises(InvalidRequirementError):  # said before anyone waits for hours
        client.gate(JOB_ID, "weight<=3")


@pytest.mark.parametrize("kind", ["final", "search"])
def test_where_the_jobs_bounds_left_nothing_the_nearest_is_among_those_that_broke_them(
    script: Script, client: Client, kind: Any
) -> None:
    script.on("GET", JOB, Reply(job("succeeded")))
    near = [{"id": name, "violation": 0.5, "values": {}} for name in (CANDIDATE_ID, SMALL)]
    infeasible = {"stage": kind, "nearest": near, "violations": {}, "alone": {}}
    script.on("GET", FRONT, Reply(front(kind=kind, infeasible=infeasible)))
    seen = {"error": {"value": 0.3, "unit": "", "kind": "supernet"}}
    for name, error in ((CANDIDATE_ID, 0.2), (SMALL, 0.15)):
        script.on("GET", f"/v1/candidates/{name}", Reply({**candidate(name, error=error), "search_values": seen}))
    found = client.gate(JOB_ID, "error<=10%", kind)
    assert not found.passed and found.nearest is not None
    expected = (SMALL, 0.15) if kind == "final" else (CANDIDATE_ID, 0.3)
    assert (str(found.nearest.id), found.misses[0].value) == expected
