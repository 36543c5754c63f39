"""Weight masks and inherited weights over HTTP: downloaded, and taken along when a candidate is verified anew."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from nas_core.architecture import Architecture, Genotype, genotype_to_json
from nas_core.spaces import spaces
from store import candidates
from store.candidates import NewCandidate
from store.session import unit_of_work
from store.settings import settings
from tests.api import results
from tests.api.problems import paths, problem

MASKS, WEIGHTS = b"weight masks", b"inherited weights"
DIGESTS = {"masks": hashlib.sha256(MASKS).hexdigest(), "inherited": hashlib.sha256(WEIGHTS).hexdigest()}


def found(client: httpx.Client, spec: dict[str, Any], formats: tuple[str, ...]) -> UUID:
    """A candidate with weight masks of a posted job, and those of its files."""
    job_id = UUID(client.post("/v1/jobs", json={**spec, "constraints": {}}).json()["id"])
    genotype = replace(results.architectures(1)[0].genotype, masks=DIGESTS["masks"])
    return record(job_id, genotype, formats)


def record(job_id: UUID, genotype: Genotype, formats: tuple[str, ...]) -> UUID:
    skeleton = spaces["darts"](cells=5, channels=8).skeleton((1, 8, 8), 10)
    architecture = Architecture(genotype, skeleton)
    with unit_of_work() as session:
        new = NewCandidate(architecture.hash, architecture.to_json(), 0, {})
        candidate_id = candidates.record(session, job_id, "search", [new])[0][0]
        for format in formats:
            content, path = {"masks": MASKS, "inherited": WEIGHTS}[format], f"{job_id}/{candidate_id}.{format}"
            place = settings().artefact_dir / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            candidates.add_artefact(session, candidate_id, job_id, format, path, DIGESTS[format], len(content))
    return candidate_id


@pytest.mark.parametrize(("format", "content"), [("masks", MASKS), ("inherited", WEIGHTS)])
def test_what_a_search_brought_is_there_before_any_verification(
    shared: httpx.Client, spec: dict[str, Any], format: str, content: bytes
) -> None:
    candidate_id = found(shared, spec, ("masks", "inherited"))
    shown = shared.get(f"/v1/candidates/{candidate_id}").json()
    assert shown["artefacts"] == ["inherited", "json", "masks"]
    assert shown["architecture"]["genotype"]["masks"] == DIGESTS["masks"]
    path = f"/v1/candidates/{candidate_id}/model"
    response = shared.get(path, params={"format": format})
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["etag"] == f'"{DIGESTS[format]}"'
    assert response.headers["content-disposition"].endswith(f'.{format}.safetensors"')
    same = {"If-None-Match": response.headers["etag"]}
    assert shared.get(path, params={"format": format}, headers=same).status_code == 304
    part = shared.get(path, params={"format": format}, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, content[2:6])


def test_what_is_not_there_is_not_made(shared: httpx.Client, spec: dict[str, Any]) -> None:
    candidate_id = found(shared, spec, ())
    path = f"/v1/candidates/{candidate_id}/model"
    said = problem(shared.get(path, params={"format": "masks"}), 404)
    assert said.detail == f"candidate {candidate_id} has no weight masks: its search brought none"
    other = found(shared, spec, ("masks",))
    job_id = shared.get(f"/v1/candidates/{other}").json()["job"]
    (settings().artefact_dir / job_id / f"{other}.masks").unlink()
    said = problem(shared.get(f"/v1/candidates/{other}/model", params={"format": "masks"}), 404)
    assert "is not where the artefacts of this server lie any more" in said.detail


def verify(client: httpx.Client, candidate_id: UUID, **body: Any) -> httpx.Response:
    return client.post(f"/v1/candidates/{candidate_id}/verify", json=body)


def test_masks_go_along_to_other_data_and_not_to_other_widths(shared: httpx.Client, spec: dict[str, Any]) -> None:
    candidate_id = found(shared, spec, ("masks",))
    made = verify(shared, candidate_id, dataset={"name": "npz", "path": "mine/birds.npz"}, target={"channels": 8})
    assert made.status_code == 201, made.text
    (seed,) = made.json()["spec"]["seed_genotypes"]
    assert seed["masks"] == DIGESTS["masks"] and made.json()["spec"]["verify"]["start"] == "scratch"
    said = problem(verify(shared, candidate_id, target={"channels": [8, 12]}), 422)
    assert "got 12; the network has weight masks, which stay with the widths that they were found at (8)" in said.detail
    assert paths(said) == ["/target/channels"]


def test_masks_that_no_candidate_has_are_refused(shared: httpx.Client, spec: dict[str, Any]) -> None:
    genotype = replace(results.architectures(1)[0].genotype, masks="f" * 64)
    job = {**spec, "constraints": {}, "seed_genotypes": [genotype_to_json(genotype)]}
    said = problem(shared.post("/v1/jobs", json=job), 409)
    assert said.title == "File of a candidate gone"
    assert f"no candidate here has the weight masks with SHA-256 {'f' * 64} (any more)" in said.detail


def test_the_weights_that_a_training_begins_with_are_noted(shared: httpx.Client, spec: dict[str, Any]) -> None:
    candidate_id = found(shared, spec, ("masks", "inherited"))
    noted = verify(shared, candidate_id, verify={"start": "inherited", "epochs": 3}).json()["spec"]["verify"]
    assert (noted["start"], noted["weights"], noted["epochs"]) == ("inherited", DIGESTS["inherited"], 3)
    assert "weights" not in verify(shared, candidate_id).json()["spec"]["verify"]
    without = found(shared, {**spec, "seed": 3}, ("masks",))
    said = problem(verify(shared, without, verify={"start": "inherited"}), 422)
    assert f"weights that candidate {without} brought from its search, and it brought none" in said.detail
    assert paths(said) == ["/verify/start"]


def test_a_search_that_brings_no_weights_is_told_before_it_begins(shared: httpx.Client, spec: dict[str, Any]) -> None:
    said = problem(shared.post("/v1/jobs", json={**spec, "verify": {"start": "inherited"}}), 422)
    name = spec["algorithm"]["name"]
    assert f"algorithm '{name}' brings none; those that do: none here" in said.detail
    assert paths(said) == ["/verify/start"]
