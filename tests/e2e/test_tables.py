"""Whole service runs over tables: nothing is trained, and everything repeats exactly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.embedded import Embedded
from benchmarks.tabular_service import ACCURACY, COST, by_pymoo, register, spec, through_service
from benchmarks.tight import load_table, tight
from nas_core.architecture import genotype_from_json
from nas_core.pareto import non_dominated
from nas_core.spaces.nasbench201 import to_arch
from skyline import ApiError, Client
from skyline.schemas import Candidate, Job
from tests.made_table import ARCHS, CLASSES, COLUMNS, INPUT, SPACE, job, text, values

pytestmark = pytest.mark.e2e

SECONDS = 120.0


@pytest.fixture(scope="module")
def service(shared_service: Embedded) -> Embedded:
    return shared_service


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        made.add_table("made", text(), space=SPACE, input=INPUT, classes=CLASSES, columns=COLUMNS)
        some = text(ARCHS[::2])
        made.add_table("some", some, space=SPACE, input=INPUT, classes=CLASSES, columns=COLUMNS, partial=True)
        yield made


def run(client: Client, **changes: Any) -> Job:
    ended = client.wait(client.submit(job(**changes)).id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    return ended


def arch(candidate: Candidate) -> str:
    return to_arch(genotype_from_json(candidate.architecture["genotype"]))


def found(client: Client, ended: Job) -> dict[str, tuple[float, float]]:
    """Values by arch string, in order of arrival."""
    return {
        arch(one): (one.search_values["error"].value, one.search_values["ms"].value)
        for one in client.candidates(ended.id)
    }


def test_a_job_from_the_table_to_the_front(client: Client) -> None:
    seeds = [{"arch": name} for name in ARCHS]
    ended = run(client, algorithm={"name": "given"}, seed_genotypes=seeds, budget={"evaluations": len(ARCHS)})
    every = found(client, ended)
    assert sorted(every) == sorted(ARCHS), "the whole space"
    best = non_dominated([[100 - values(name)["acc"], values(name)["ms"]] for name in ARCHS])
    front = client.front(ended.id, kind="final")
    assert {arch(member) for member in front.members} == {
        name for name, is_best in zip(ARCHS, best, strict=True) if is_best
    }
    assert ended.front.final == ended.front.search == len(front.members) > 8
    sha256 = client.table("made").sha256
    for member in front.members:
        known = values(arch(member))
        assert member.status == "verified" and member.artefacts == ["json"]
        error, cost = member.values["error"], member.values["ms"]
        assert error.value == (100 - known["acc"]) / 100 and cost.value == known["ms"]
        detail = {"table": "made", "sha256": sha256}
        assert (error.kind, error.unit, error.model_extra) == ("tabular", "", {**detail, "column": "acc"})
        assert (cost.kind, cost.unit, cost.model_extra) == ("tabular", "ms", {**detail, "column": "ms"})
        assert member.test is not None and (member.test.sd, member.test.n) == (None, None)
        assert member.test.error == (100 - known["test_acc"]) / 100
    assert [(one.key, one.unit, one.direction, one.kind) for one in front.objectives] == [
        ("error", "", "minimize", "tabular"),
        ("ms", "ms", "minimize", "tabular"),
    ]
    assert front.reference_point == {"error": 0.9, "ms": max(values(name)["ms"] for name in ARCHS)}
    assert [attempt.kind for attempt in ended.attempts] == ["search", "conclude"]
    with pytest.raises(ApiError, match="nothing was trained, so there are no weights") as refused:
        client.model(front.members[0].id, "safetensors")
    assert refused.value.status == 409


@pytest.mark.parametrize("algorithm", [{"name": "nsga2", "population": 10}, {"name": "random"}])
def test_the_same_seed_gives_the_same_to_the_last_bit(client: Client, algorithm: dict[str, Any]) -> None:
    one, other = (run(client, algorithm=algorithm, seed=3) for _ in range(2))
    assert list(found(client, one).items()) == list(found(client, other).items())
    assert client.front(one.id).hypervolume == client.front(other.id).hypervolume
    assert found(client, run(client, algorithm=algorithm, seed=4)) != found(client, one)


def test_bounds_and_a_limit_to_the_front(client: Client) -> None:
    ended = run(client, constraints={"ms": {"max": 12}}, verify={"top": 3}, budget={"evaluations": 300})
    members = client.front(ended.id, kind="final").members
    assert len(members) == 3 < ended.front.search
    assert all(member.values["ms"].value <= 12 for member in members)


def test_bounds_that_nothing_holds_together_leave_the_front_empty(client: Client) -> None:
    ended = run(client, constraints={"ms": {"max": 4}, "error": {"max": 0.2}})
    assert client.front(ended.id, kind="final").members == []
    searched = client.front(ended.id, kind="search")
    assert searched.members == [] and searched.infeasible is not None and searched.infeasible.violations


def test_a_cell_without_a_row_is_a_failed_candidate(client: Client) -> None:
    objectives = [{**one, "table": "some"} for one in job()["objectives"]]
    ended = run(client, objectives=objectives, algorithm={"name": "random"})
    failed = list(client.candidates(ended.id, status="failed"))
    assert 10 < len(failed) < 90
    assert {one.failure for one in failed} == {f"table 'some' has no row for {arch(one)}" for one in failed}
    assert not {arch(one) for one in failed} & set(ARCHS[::2])
    assert {arch(one) for one in client.front(ended.id, kind="final").members} <= set(ARCHS[::2])


def test_a_search_that_hits_no_row_says_how_many_there_are(client: Client) -> None:
    client.add_table("two", text(ARCHS[:2]), space=SPACE, input=INPUT, classes=CLASSES, columns=COLUMNS, partial=True)
    objectives = [{**one, "table": "two"} for one in job()["objectives"]]
    made = client.submit(job(objectives=objectives, algorithm={"name": "random"}, budget={"evaluations": 2}))
    ended = client.wait(made.id, timeout=SECONDS)
    assert ended.status == "failed" and ended.reason is not None
    assert "no candidate could be evaluated; the first failed with: table 'two' has no row for |" in ended.reason
    assert f"table 'two' has a row for 2 of the {len(ARCHS)} architectures of its space" in ended.reason
    assert "algorithm 'given' with those as seed_genotypes evaluates just them" in ended.reason


def test_counts_and_measurements_stand_beside_looked_up_values(client: Client) -> None:
    measured = {"name": "latency_ms", "seconds": 0.05}
    ended = run(client, objectives=[*job()["objectives"], "params", measured], budget={"evaluations": 10})
    members = client.front(ended.id, kind="final").members
    assert members
    for member in members:
        kinds = {key: value.kind for key, value in member.values.items()}
        assert kinds == {"error": "tabular", "ms": "tabular", "params": "exact", "latency_ms": "measured"}


def test_a_network_of_the_front_is_trained_and_its_cost_is_still_looked_up(client: Client) -> None:
    cheap = min(client.front(run(client).id, kind="final").members, key=lambda member: member.values["ms"].value)
    posted = client.verify(cheap.id, dataset={"name": "digits"}, verify={"epochs": 1, "batch": 32})
    ended = client.wait(posted.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    (member,) = client.front(ended.id, kind="final").members
    assert arch(member) == arch(cheap)
    assert {key: value.kind for key, value in member.values.items()} == {"error": "trained", "ms": "tabular"}
    assert member.values["ms"] == cheap.values["ms"]
    assert member.test is not None and member.test.n == 360
    assert "safetensors" in member.artefacts


def test_what_darts_derives_is_looked_up(client: Client) -> None:
    changes = {"algorithm": {"name": "darts", "batch": 32}, "dataset": {"name": "digits", "fraction": 0.3}}
    ended = run(client, **changes, budget={"epochs": 2})
    assert found(client, ended) == {
        name: ((100 - values(name)["acc"]) / 100, values(name)["ms"]) for name in found(client, ended)
    }
    assert client.front(ended.id, kind="final").members


def test_a_killed_search_ends_as_an_unbroken_one(service: Embedded, client: Client) -> None:
    changes: dict[str, Any] = {"budget": {"evaluations": len(ARCHS)}, "algorithm": {"name": "nsga2", "population": 4}}
    unbroken = run(client, **changes)
    posted = client.submit(job(**changes))
    deadline = time.monotonic() + SECONDS
    while not client.job(posted.id).front.search:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.name() == "skyline-child":
                process.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    ended = client.wait(posted.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    assert next(attempt.end for attempt in ended.attempts if attempt.kind == "search") == "died"
    assert list(found(client, ended).items()) == list(found(client, unbroken).items())
    ours, theirs = (client.front(one.id, kind="final") for one in (ended, unbroken))
    assert [arch(member) for member in ours.members] == [arch(member) for member in theirs.members]
    assert ours.hypervolume == theirs.hypervolume


@pytest.mark.slow
def test_nasbench201_in_less_than_a_minute(client: Client, nasbench201: Path) -> None:
    """The gate of benchmarks/tabular_service.py at three seeds and a quarter of its evaluations."""
    table = load_table(nasbench201.parent)
    measure = tight(table, ACCURACY, COST)
    register(client, nasbench201.parent)
    scores = []
    for seed in range(3):
        ours, random = (
            through_service(client, spec(algorithm, 500, seed), table, measure)
            for algorithm in ({"name": "nsga2", "population": 50}, {"name": "random", "batch": 50})
        )
        scores.append(
            [ours["hypervolume"], random["hypervolume"], by_pymoo(table, measure, 500, 50, seed)["hypervolume"]]
        )
    ours, random, pymoo = sorted(scores)[1]
    assert ours >= random and ours >= pymoo - 0.05
