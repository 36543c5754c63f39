"""Whole jobs through the real service: HTTP, broker, Celery workers and their children as processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from api.embedded import Embedded
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.network import Network
from skyline import Client
from skyline.schemas import Attempt, Job
from tests.waiting import until

pytestmark = pytest.mark.e2e

SECONDS = 150.0


@pytest.fixture(scope="module")
def service(shared_service: Embedded) -> Embedded:
    return shared_service


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 2},
        "dataset": {"name": "digits", "fraction": 0.5},
        "objectives": ["error", "params"],
        "algorithm": {"name": "nsga2", "population": 4, "evaluate": {"epochs": 1, "batch": 32, "subset": 96}},
        "budget": {"evaluations": 8},
        "verify": {"top": 3, "epochs": 2, "batch": 32, "lr": 0.1},
        **changes,
    }


def ended(client: Client, job: Job) -> Job:
    return client.wait(job.id, timeout=SECONDS)


def all_ended(job: Job) -> list[Attempt] | None:
    return job.attempts if all(attempt.ended_at for attempt in job.attempts) else None


def child_of(service: Embedded) -> psutil.Process | None:
    """A process of a running attempt under this service."""
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.name() == "skyline-child":  # spares have another name
                return process
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return None


def test_a_job_ends_in_a_front_of_trained_and_measured_networks(client: Client, service: Embedded) -> None:
    wanted = spec(
        objectives=["error", "params", {"name": "latency_ms", "seconds": 0.05, "key": "lat"}],
        reference_point={"error": 1, "lat": 1000},  # the default leaves no room for times on a busy machine
        target={"channels": [2, 4]},
        verify={"top": 4, "epochs": 2, "batch": 32, "lr": 0.1, "seeds": 2},
        labels={"suite": "e2e"},
    )
    job = ended(client, client.submit(wanted))
    assert (job.status, job.reason, job.progress) == ("succeeded", None, 1.0)
    front = client.front(job.id, kind="final")
    assert front.members and front.hypervolume and front.knee in {member.id for member in front.members}
    for member in front.members:
        assert member.status == "verified"
        error, params, lat = (member.values[key].model_dump() for key in ("error", "params", "lat"))
        assert (error["kind"], error["epochs"], error["seeds"], error["split"]) == ("trained", 2, 2, "select")
        assert error["value"] == pytest.approx(sum(error["by_seed"]) / 2)
        assert lat["kind"] == "measured" and lat["n"] >= 3 and lat["q25"] > 0 and lat["device"].startswith("cpu")
        architecture = Architecture.from_json(member.architecture)
        assert architecture.hash == member.hash
        assert (params["value"], params["kind"]) == (count(architecture).params, "exact")
        assert member.test is not None and 0 <= member.test.error <= 1 and member.test.n == 360
    costs = [[member.values[key].value for key in ("error", "params", "lat")] for member in front.members]
    for one in costs:
        assert not any(all(a <= b for a, b in zip(two, one, strict=True)) and two != one for two in costs)
    search = client.front(job.id, kind="search")
    assert {value.kind for member in search.members for value in member.values.values()} == {
        "trained",
        "exact",
        "measured",
    }
    tried = list(client.candidates(job.id))
    assert len(tried) == 16  # eight genotypes at two widths
    assert {len(candidate.architecture["skeleton"]["cells"]) for candidate in tried} == {3}
    attempts = until("end of all attempts", lambda: all_ended(client.job(job.id)))  # the last closes after the job
    kinds = [attempt.kind for attempt in attempts]
    assert kinds[0] == "search" and kinds[-1] == "conclude" and kinds.count("verify") == 4
    for attempt in attempts:
        assert (attempt.end, attempt.threads, attempt.exit_signal) == ("done", 1, None)
        assert attempt.cpu_seconds and attempt.cpu_seconds > 0
        assert attempt.peak_memory_mb and attempt.peak_memory_mb > 50


def test_events_are_numbered_without_gaps_and_tell_the_story(client: Client) -> None:
    job = ended(client, client.submit(spec()))
    events = [event for event in client.watch(job.id)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    phases = [event.data["status"] for event in events if event.type == "phase"]
    assert list(dict.fromkeys(phases)) == ["queued", "searching", "verifying", "succeeded"]
    assert len([event for event in events if event.type == "candidate" and event.data["stage"] == "search"]) == 8
    kinds = [event.type for event in events]
    first = events[kinds.index("progress")]
    assert first.data["phase"] == "training" and first.data["metrics"]["loss"] > 0
    assert first.seq < events[kinds.index("candidate")].seq, "a loss is seen long before the first result"
    steps = [event.data["step"] for event in events if event.type == "progress" and event.data["phase"] == "search"]
    assert steps == sorted(steps) and steps[-1] == 8


def test_a_pulled_model_is_the_network_that_was_verified(client: Client, tmp_path: Path) -> None:
    job = ended(client, client.submit(spec(seed=3)))
    member = client.front(job.id, kind="final").members[0]
    path = client.pull(member.id, "safetensors", tmp_path / "model.safetensors")
    architecture = Architecture.from_json(json.loads(client.model(member.id, "json")))
    network = Network(architecture)
    network.load_state_dict(load_file(path))
    logits = network.eval()(torch.zeros(2, *architecture.skeleton.input))
    assert logits.shape == (2, 10) and torch.isfinite(logits).all()


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "darts", "batch": 32, "share_features": True},
        {"name": "random", "batch": 4, "evaluate": {"supernet_epochs": 1, "batch": 32, "score_images": 64}},
    ],
    ids=["darts", "random on a supernet"],
)
def test_supernet_methods_fill_the_same_fronts(client: Client, algorithm: dict[str, Any]) -> None:
    budget = {"evaluations": 4, "epochs": 2}
    job = ended(client, client.submit(spec(algorithm=algorithm, budget=budget, verify={"top": 1, "epochs": 1})))
    assert (job.status, job.reason) == ("succeeded", None)
    search = client.front(job.id, kind="search")
    assert {member.values["error"].kind for member in search.members} == {"supernet"}
    assert client.front(job.id, kind="final").members[0].values["error"].kind == "trained"


def result(client: Client, job: Job) -> tuple[Any, ...]:
    """What must not depend on how often a job was interrupted."""
    tried = sorted((c.hash, c.search_values["error"].value) for c in client.candidates(job.id))
    final = sorted((m.hash, m.values["error"].value, m.test) for m in client.front(job.id, kind="final").members)
    return tried, [(hash, error, test.model_dump() if test else None) for hash, error, test in final]


def test_kill_nine_in_search_and_in_verification_changes_nothing(client: Client, service: Embedded) -> None:
    unbroken = ended(client, client.submit(spec(seed=7)))
    job = client.submit(spec(seed=7))
    until("first candidate", lambda: next(iter(client.candidates(job.id)), None))
    until("child to kill", lambda: child_of(service)).kill()
    until("verification", lambda: client.job(job.id).status == "verifying")
    victim = until("child to kill", lambda: child_of(service))
    victim.kill()
    broken = ended(client, job)
    assert broken.status == "succeeded", broken.reason
    assert result(client, broken) == result(client, unbroken)
    died = [attempt for attempt in broken.attempts if attempt.end == "died"]
    assert died and all(attempt.exit_signal == signal.SIGKILL for attempt in died)


def test_cancel_while_searching_keeps_what_was_found(client: Client, service: Embedded) -> None:
    job = client.submit(spec(budget={"evaluations": 5000}))
    until("first candidate", lambda: next(iter(client.candidates(job.id)), None))
    client.cancel(job.id)
    stopped = ended(client, job)
    assert stopped.status == "cancelled"
    until("end of the child", lambda: child_of(service) is None)
    assert list(client.candidates(job.id))


def test_a_verification_that_diverges_costs_its_candidate_and_all_of_them_the_job(client: Client) -> None:
    job = ended(
        client, client.submit(spec(verify={"top": 2, "epochs": 3, "lr": 10.0, "batch": 16, "weight_decay": 1.0}))
    )
    failed = [candidate for candidate in client.candidates(job.id) if candidate.status == "failed"]
    if job.status == "failed":
        assert job.reason is not None and "every verification failed" in job.reason
        assert len(failed) == 2
    for candidate in failed:
        assert candidate.failure is not None and "training diverged" in candidate.failure
    assert failed, "this learning rate was meant to diverge"


def test_bounds_hold_on_every_front(client: Client) -> None:
    limit = 1200.0
    job = ended(client, client.submit(spec(constraints={"params": {"max": limit}}, seed=5)))
    assert job.status == "succeeded"
    assert any(candidate.search_values["params"].value > limit for candidate in client.candidates(job.id))
    for kind in ("search", "final"):
        assert all(member.values["params"].value <= limit for member in client.front(job.id, kind=kind).members)


def texts(client: Client, job: Job) -> list[str]:
    return [event.data["text"] for event in client.events(job.id).items if event.type == "warning"]


EVALUATE = {"evaluate": {"epochs": 1, "batch": 32, "subset": 96}}


@pytest.mark.parametrize(
    "algorithm",
    [{"name": "nsga2", "population": 4, **EVALUATE}, {"name": "random", **EVALUATE}, {"name": "darts", "batch": 32}],
    ids=["nsga2", "random", "darts"],
)
def test_a_search_that_finds_nothing_within_the_bounds_verifies_nothing_and_says_what_came_nearest(
    client: Client, algorithm: dict[str, Any]
) -> None:
    least, most = ends(client, "params", "macs")
    both = {"params": {"max": least["params"] + 1}, "macs": {"min": most["macs"] - 1}}  # each by itself is possible
    wanted = spec(objectives=["error", "params", "macs"], constraints=both, algorithm=algorithm)
    job = ended(client, client.submit({**wanted, "budget": {"evaluations": 8, "epochs": 2}}))
    assert (job.status, job.reason, job.front.search, job.front.final) == ("succeeded", None, 0, 0)
    assert [attempt.kind for attempt in until("ends", lambda: all_ended(client.job(job.id)))] == ["search", "conclude"]
    tried = {candidate.id: candidate for candidate in client.candidates(job.id)}
    told = job.infeasible
    assert told is not None and told.stage == "search"
    excess = {
        name: max(0.0, values["params"].value / (least["params"] + 1) - 1)
        + max(0.0, 1 - values["macs"].value / (most["macs"] - 1))
        for name, values in ((name, candidate.search_values) for name, candidate in tried.items())
    }
    assert [near.violation for near in told.nearest] == pytest.approx(sorted(excess.values())[: len(told.nearest)])
    for near in told.nearest:
        assert near.values == tried[near.id].search_values and set(near.values) == {"error", "params", "macs"}
    for key, move in told.violations.items():
        assert move.candidate == told.nearest[0].id
        assert move.nearest == tried[move.candidate].search_values[key].value
        bound = move.max if move.side == "max" else move.min
        assert bound is not None and move.by == abs(move.nearest - bound) and move.share == move.by / bound
    assert client.front(job.id).infeasible == client.front(job.id, kind="search").infeasible == told
    verdict = client.gate(job.id, "error<=100%")
    assert not verdict.passed and verdict.nearest is not None and verdict.nearest.id == told.nearest[0].id
    said = texts(client, job)
    assert said[0] == "no candidate can hold all bounds, so none is verified and the final front stays empty"
    assert f"no network found by the search holds all bounds; the nearest, {str(told.nearest[0].id)[:8]}" in said[1]
    types = [event.type for event in client.events(job.id).items if event.type != "attempt"]
    assert types[-2:] == ["warning", "phase"], "told before the end, so that whoever watches sees it"


def ends(client: Client, *resources: str) -> tuple[dict[str, int], dict[str, int]]:
    """Least and most that any network of the jobs' space has."""
    ranges = client.estimate(spec(objectives=["error", *resources])).targets[0].ranges
    found = [(ranges[key].possible, key) for key in resources]
    spans = {key: span for span, key in found if span is not None}
    return {key: span.floor for key, span in spans.items()}, {key: span.ceiling for key, span in spans.items()}


def test_a_bound_that_no_verified_network_holds_is_told_with_verified_values(client: Client) -> None:
    """After one epoch of search nobody has an error of 1 %, so the nearest are verified all the same."""
    job = ended(client, client.submit(spec(constraints={"error": {"max": 0.01}}, verify={"top": 2, "epochs": 1})))
    assert (job.status, job.front.search, job.front.final) == ("succeeded", 0, 0)
    told = job.infeasible
    assert told is not None and told.stage == "final"
    verified = [candidate for candidate in client.candidates(job.id) if candidate.status == "verified"]
    assert {near.id for near in told.nearest} == {candidate.id for candidate in verified}
    errors = [near.values["error"].value for near in told.nearest]  # which may be equal
    assert errors == sorted(candidate.values["error"].value for candidate in verified)
    best = sorted(candidate.search_values["error"].value for candidate in client.candidates(job.id))[:2]
    assert sorted(candidate.search_values["error"].value for candidate in verified) == best, "the nearest by the search"
    assert all(near.values["error"].kind == "trained" for near in told.nearest)
    move = told.violations["error"]
    assert move.nearest == told.nearest[0].values["error"].value and move.by == pytest.approx(move.nearest - 0.01)
    said = texts(client, job)
    assert said[0].startswith("2 of the 2 networks to be verified break the bound on error by the search's estimate")
    assert said[1].startswith("no network verified holds all bounds; the nearest, ")


@pytest.mark.slow
def test_networks_that_a_search_underrates_are_verified_and_found_to_hold_their_bound(client: Client) -> None:
    """The short training of the search gives errors that the bound does not allow, the long one errors that it does."""
    long = {"top": 1, "epochs": 20, "batch": 16, "lr": 0.1}
    space = {"name": "darts", "cells": 3, "nodes": 2, "channels": 4}
    short = {"name": "random", "batch": 3, "evaluate": {"epochs": 1, "batch": 32, "subset": 64}}
    wanted = spec(space=space, algorithm=short, budget={"evaluations": 3}, constraints={"accuracy": {"min": 0.5}})
    job = ended(client, client.submit({**wanted, "objectives": ["accuracy", "params"], "verify": long}))
    assert (job.status, job.front.search) == ("succeeded", 0), "nothing holds it by the search's values"
    front = client.front(job.id)
    assert front.kind == "final" and front.members and front.infeasible is job.infeasible is None
    assert all(member.values["accuracy"].value >= 0.5 for member in front.members)


@pytest.mark.slow
def test_a_measured_bound_holds_by_the_values_of_record(client: Client) -> None:
    """Of several widths; whatever the final measurement says decides."""
    latency = {"name": "latency_ms", "seconds": 0.02, "key": "lat"}
    free = ended(client, client.submit(spec(objectives=["error", "params", latency], target={"channels": [2, 16]})))
    seen = sorted(candidate.search_values["lat"].value for candidate in client.candidates(free.id))
    limit = seen[len(seen) // 2]
    job = ended(
        client,
        client.submit(
            spec(
                objectives=["error", "params", latency],
                target={"channels": [2, 16]},
                constraints={"lat": {"max": limit}},
            )
        ),
    )
    assert job.status == "succeeded"
    for kind in ("search", "final"):
        front = client.front(job.id, kind=kind)
        assert all(member.values["lat"].value <= limit for member in front.members)
        assert (front.infeasible is None) == bool(front.members)
    for candidate in client.candidates(job.id):
        assert candidate.status != "verified" or candidate.search_values["lat"].value <= limit, "trained for nothing"


def test_seconds_end_a_search(client: Client) -> None:
    job = ended(
        client, client.submit(spec(budget={"evaluations": 5000, "max_seconds": 1.0}, verify={"top": 1, "epochs": 1}))
    )
    assert job.status == "succeeded"
    assert 4 <= len(list(client.candidates(job.id))) < 5000
