"""A candidate verified anew: the job that its own job and the body make together."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api import transfer
from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton
from nas_core.costs import count
from nas_core.settings import settings
from nas_core.spaces import spaces
from skyline.schemas import Job
from store import candidates, jobs
from store.candidates import NewCandidate
from store.session import unit_of_work
from tests.api import results
from tests.api.conftest import publish
from tests.api.problems import paths, problem
from tests.api.publications import entries


@pytest.fixture
def found(shared: httpx.Client, spec: dict[str, Any]) -> UUID:
    """A candidate of a job that was posted: five cells of 24 channels on digits."""
    changes = {"seed": 7, "resources": {"min_memory_gb": 1}, "constraints": {"params": {"max": 600000}}}
    job_id = UUID(shared.post("/v1/jobs", json={**spec, **changes, "target": {"channels": 24}}).json()["id"])
    space = spaces["darts"](cells=5, channels=8)
    genotype = results.architectures(1)[0].genotype
    return record(job_id, Architecture(genotype, space.skeleton((1, 8, 8), 10, channels=24)))


def record(job_id: UUID, architecture: Architecture) -> UUID:
    new = NewCandidate(architecture.hash, architecture.to_json(), 0, {})
    with unit_of_work() as session:
        return candidates.record(session, job_id, "search", [new])[0][0]


def verify(client: httpx.Client, candidate_id: UUID, body: Any = None, **headers: str) -> httpx.Response:
    return client.post(f"/v1/candidates/{candidate_id}/verify", json={} if body is None else body, headers=headers)


def made(client: httpx.Client, candidate_id: UUID, body: Any = None) -> dict[str, Any]:
    response = verify(client, candidate_id, body)
    assert response.status_code == 201, response.text
    job = Job.model_validate_json(response.content)
    assert response.headers["location"] == f"/v1/jobs/{job.id}"
    assert job.status == "queued"
    spec: dict[str, Any] = response.json()["spec"]
    return spec


def own(client: httpx.Client, candidate_id: UUID) -> dict[str, Any]:
    job_id = client.get(f"/v1/candidates/{candidate_id}").json()["job"]
    spec: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()["spec"]
    return spec


def test_what_is_not_said_is_as_in_its_own_job(shared: httpx.Client, found: UUID) -> None:
    before, spec = own(shared, found), made(shared, found)
    for part in ("name", "space", "dataset", "objectives", "constraints", "resources", "seed"):
        assert spec[part] == before[part], part
    assert spec["algorithm"] == {"name": "given", "batch": 10, "evaluate": None}
    assert spec["target"] == {"cells": 5, "channels": 24, "stem": "cifar"}
    assert spec["verify"] == {**before["verify"], "top": 1}
    assert spec["budget"]["evaluations"] == 1
    assert spec["reference_point"] == {}
    assert spec["labels"] == {"team": "vision", "verifies": str(found)}
    architecture = shared.get(f"/v1/candidates/{found}").json()["architecture"]
    assert spec["seed_genotypes"] == [architecture["genotype"]]


def test_what_is_said_takes_the_place_of_it(shared: httpx.Client, found: UUID) -> None:
    body = {
        "dataset": {"name": "npz", "path": "mine/birds.npz"},
        "target": {"cells": 14, "channels": [16, 32]},
        "verify": {"epochs": 3, "seeds": 2},
        "objectives": ["error", "macs", "latency"],
        "constraints": {"latency": {"max": 8}},
        "resources": {"device": "cuda"},
        "seed": 1,
        "name": "birds",
        "labels": {"a": "b"},
    }
    spec = made(shared, found, body)
    assert spec["dataset"] == {"name": "npz", "path": "mine/birds.npz", "fraction": 1.0}
    assert spec["target"] == {"cells": 14, "channels": [16, 32], "stem": "cifar"}
    assert (spec["verify"]["epochs"], spec["verify"]["seeds"], spec["verify"]["top"]) == (3, 2, 2)
    assert [objective["key"] for objective in spec["objectives"]] == ["error", "macs", "latency_ms"]
    assert spec["constraints"] == {"latency_ms": {"min": None, "max": 8}}
    assert spec["resources"] == {"device": "cuda", "min_memory_gb": 1}
    assert (spec["seed"], spec["name"], spec["labels"]) == (1, "birds", {"a": "b"})


def test_parts_of_the_same_data_set_are_kept(shared: httpx.Client, spec: dict[str, Any]) -> None:
    data = {"name": "npz", "path": "mine/birds.npz", "fraction": 0.5}
    job_id = UUID(shared.post("/v1/jobs", json={**spec, "dataset": data, "constraints": {}}).json()["id"])
    architecture = results.architectures(1)[0]
    body = {"dataset": {"name": "npz", "fraction": 1.0}, "labels": None}
    assert made(shared, record(job_id, architecture), body)["dataset"] == {**data, "fraction": 1.0}


def test_bounds_of_objectives_that_are_gone_are_left_behind(shared: httpx.Client, found: UUID) -> None:
    assert made(shared, found, {"objectives": ["accuracy", "macs"]})["constraints"] == {}
    assert set(made(shared, found, {"objectives": ["accuracy", "params"]})["constraints"]) == {"params"}


def test_a_body_is_not_needed_and_may_be_yaml(shared: httpx.Client, found: UUID) -> None:
    path = f"/v1/candidates/{found}/verify"
    assert shared.post(path).status_code == 201
    written = shared.post(path, content=b"verify: {epochs: 3}", headers={"Content-Type": "application/yaml"})
    assert written.json()["spec"]["verify"]["epochs"] == 3


def test_bounds_that_the_network_cannot_hold_are_told_before_it_is_trained(shared: httpx.Client, found: UUID) -> None:
    architecture = Architecture.from_json(shared.get(f"/v1/candidates/{found}").json()["architecture"])
    params = count(architecture).params
    for bound in ({"max": params - 1}, {"min": params + 1}):
        refused = problem(verify(shared, found, {"constraints": {"params": bound}}), 422)
        assert paths(refused) == ["/constraints/params"]
        assert refused.errors[0].expected == f"a bound that {params} meets, or none"
    wide = {"channels": [24, 64]}
    neither = problem(verify(shared, found, {"target": wide, "constraints": {"params": {"max": params - 1}}}), 422)
    assert f"none of the networks of this job holds it; they have {params} to " in neither.detail
    for good in ({"max": params}, {"min": params}):
        assert made(shared, found, {"target": wide, "constraints": {"params": good}})["target"]["channels"] == [24, 64]


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (
            {"color": 1},
            "/color",
            "one of constraints, dataset, labels, name, objectives, resources, seed, target, verify",
        ),
        ({"algorithm": {"name": "random"}}, "/algorithm", "one of constraints, dataset"),
        ({"verify": {"epochs": 0}}, "/verify/epochs", "greater than or equal to 1"),
        ({"verify": {"speed": 1}}, "/verify/speed", "one of augment, auxiliary, batch"),
        ({"verify": 3}, "/verify", "a valid dictionary"),
        ({"target": {"channels": [8, 8]}}, "/target/channels", "widths that differ"),
        ({"target": {"channels": [8, 16]}, "verify": {"top": 1}}, "/verify/top", "at least 2"),
        ({"target": {"cells": 2}}, "/target", "a stem that the space can have"),
        ({"dataset": {"name": "zebras"}}, "/dataset/name", "one of digits"),
        ({"dataset": {"fraction": 0.5}}, "/dataset/name", "it is required"),
        ({"dataset": {"name": "npz", "path": "other.npz"}}, "/dataset/path", "one of mine/birds.npz"),
        ({"objectives": ["params"]}, "/objectives", "error or accuracy among them"),
        ({"constraints": {"macs": {"max": 1}}}, "/constraints/macs", "or macs among the objectives"),
        ({"constraints": {"params": {"max": 1}}}, "/constraints/params/max", "5 cells, 24 channels"),
        ({"resources": {"device": "tpu"}}, "/resources/device", "'cpu' or 'cuda'"),
        ({"seed": -1}, "/seed", "greater than or equal to 0"),
        ({"labels": {"a": 1}}, "/labels/a", "a valid string"),
    ],
)
def test_places_of_faults_are_those_of_the_body(
    shared: httpx.Client, found: UUID, body: dict[str, Any], path: str, expected: str
) -> None:
    refused = problem(verify(shared, found, body), 422)
    assert paths(refused) == [path]
    assert expected in refused.errors[0].expected


def test_what_does_not_fit_of_its_own_job_has_no_place(client: httpx.Client) -> None:
    (candidate_id,) = results.record(results.job(), 1)
    old = [entry for entry in entries() if entry["name"] != "given"]
    publish("worker-1", entries=old)
    refused = problem(verify(client, candidate_id), 422)
    assert (paths(refused), refused.title) == ([""], "Unknown algorithm")
    assert "unknown algorithm 'given'; known: darts, entrannas, mgas, nsga2, random, rc-darts" in refused.detail


def test_depth_that_is_bound_to_positions_stays(shared: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    @settings
    class OwnTypes:
        cells: int = 3

        def skeleton(self, input: Any, classes: int, cells: int | None = None, *rest: Any, **more: Any) -> Skeleton:
            return Skeleton(tuple(str(place) for place in range(cells or self.cells)), 4, "cifar", input, classes)

    monkeypatch.setitem(spaces._known, "own-types", OwnTypes)
    cell = CellType((Edge(2, 0, "skip_connect"),), nodes=1, concat=(2,))
    skeleton = OwnTypes().skeleton((1, 8, 8), 10)
    architecture = Architecture(Genotype("own-types", dict.fromkeys(skeleton.cells, cell)), skeleton)
    candidate_id = record(results.job(space={"name": "own-types"}), architecture)
    for cells, says in ((2, "no place for cells of type 2"), (4, "stacks cells of type 3")):
        refused = problem(verify(shared, candidate_id, {"target": {"cells": cells}}), 422)
        assert (paths(refused), refused.title) == (["/target/cells"], "Depth cannot be changed")
        assert says in refused.detail and "depth can only be changed where types are shared" in refused.detail
        assert refused.errors[0].expected == "3, as the network has"


def test_of_a_space_that_only_workers_know_they_say_so(shared: httpx.Client) -> None:
    architecture = results.architectures(1)[0]
    candidate_id = record(results.job(space={"name": "team-space"}), architecture)
    assert made(shared, candidate_id, {"target": {"cells": 9}})["target"]["cells"] == 9


def test_labels_that_are_full_get_no_other(shared: httpx.Client) -> None:
    full = {f"l{n}": "x" for n in range(transfer.MOST_LABELS)}
    (candidate_id,) = results.record(results.job(labels=full), 1)
    assert made(shared, candidate_id)["labels"] == full


def test_no_such_candidate(shared: httpx.Client) -> None:
    missing = uuid4()
    assert str(missing) in problem(verify(shared, missing), 404).detail


def test_the_same_request_is_the_same_job(client: httpx.Client) -> None:
    one, other = results.record(results.job(), 2)
    named = {"Idempotency-Key": "transfer-1"}
    first, again = verify(client, one, {"seed": 1}, **named), verify(client, one, {"seed": 1}, **named)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    for response in (
        verify(client, one, {"seed": 2}, **named),
        verify(client, other, {"seed": 1}, **named),
        client.post("/v1/jobs", json={"seed": 1}, headers=named),
    ):
        assert "another body" in problem(response, 409).detail
    with unit_of_work() as session:
        assert len(jobs.page(session)[0]) == 2
