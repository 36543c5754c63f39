"""Data sets under names of users' own: what is refused, what is known of them, what jobs make of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nas_core.datasets import datasets as plugins
from nas_core.settings import form
from skyline.schemas import Catalog, RegisteredDataset
from store import catalog, datasets
from store.session import unit_of_work
from tests.api.conftest import publish, served
from tests.api.problems import paths, problem
from tests.api.publications import entries

FILE = {"input": [3, 64, 64], "scaled_by": "size", "classes": 6, "train": 240, "test": 60}
BIRDS = {"name": "npz", "path": "mine/birds.npz"}
LEAVES = {"name": "imagefolder", "path": "leaves", "size": 32}
FULL = {"name": "imagefolder", "path": "leaves", "size": 32, "workers": 2, "flip": False}


def published(worker: str, files: dict[str, Any], faults: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """What a worker with these folders of images publishes, beside all else."""
    part = {"present": bool(files), "searched": ["/data"], "hint": "Put a folder there", "downloadable": False}
    cls = plugins["imagefolder"]
    entry = {"kind": "dataset", "name": "imagefolder", "summary": "", "settings": form(cls), "facts": {}}
    return [*entries(worker), {**entry, "workers": {worker: {**part, "files": files, "faults": faults or {}}}}]


def register(client: httpx.Client, name: str = "leaves", dataset: Any = None, **more: Any) -> httpx.Response:
    return client.post("/v1/datasets", json={"name": name, "dataset": LEAVES if dataset is None else dataset, **more})


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> Iterator[httpx.Client]:
    """A service with one live worker that has a folder of images, on each database in turn."""
    with served(request, tmp_path, server, entries=published("worker-1", {"leaves": FILE})) as client:
        yield client


@pytest.fixture
def client(client: httpx.Client) -> httpx.Client:
    """On SQLite alone."""
    publish("worker-1", entries=published("worker-1", {"leaves": FILE}, {"few": "/data/few: class 'a' has 1 image"}))
    return client


# --- a life -----------------------------------------------------------------------------------------------------------


def test_from_registration_to_deletion(service: httpx.Client, spec: dict[str, Any]) -> None:
    made = register(service, description="of 2026")
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/v1/datasets/leaves"
    found = RegisteredDataset.model_validate_json(made.content)
    assert (found.name, found.dataset, found.description) == ("leaves", FULL, "of 2026")
    assert (found.input, found.classes, found.images) == ([3, 32, 32], 6, {"train": 240, "test": 60})
    assert [(each.worker, each.live, each.present) for each in found.workers] == [("worker-1", True, True)]
    assert service.get("/v1/datasets/leaves").json() == made.json()
    assert service.get("/v1/datasets").json() == {"items": [made.json()], "next": None}

    again = register(service, dataset={**LEAVES, "flip": False}, description="of 2026")
    assert (again.status_code, again.json()) == (200, made.json())
    assert again.headers["location"] == "/v1/datasets/leaves"
    for other in ({"dataset": {**LEAVES, "size": 64}, "description": "of 2026"}, {"description": ""}):
        refused = problem(register(service, **other), 409)
        assert refused.title == "Name in use" and "choose another name, or delete it first" in refused.detail

    job = service.post("/v1/jobs", json={**spec, "dataset": {"name": "leaves", "fraction": 0.5}, "constraints": {}})
    assert job.status_code == 201, job.text
    assert service.delete("/v1/datasets/leaves").status_code == 204
    for gone in (service.get("/v1/datasets/leaves"), service.delete("/v1/datasets/leaves")):
        assert "no registered data set 'leaves'" in problem(gone, 404).detail
    stored = service.get(job.headers["location"]).json()["spec"]["dataset"]
    assert stored == {**FULL, "fraction": 0.5, "registered": "leaves"}
    assert service.get("/v1/datasets").json() == {"items": [], "next": None}


def test_the_list_is_paged_by_name(service: httpx.Client) -> None:
    for name in ("b", "c", "a"):
        assert register(service, name).status_code == 201
    first = service.get("/v1/datasets", params={"limit": 2}).json()
    assert [item["name"] for item in first["items"]] == ["a", "b"]
    second = service.get("/v1/datasets", params={"limit": 2, "cursor": first["next"]}).json()
    assert ([item["name"] for item in second["items"]], second["next"]) == (["c"], None)
    assert paths(problem(service.get("/v1/datasets", params={"limit": 0}), 422)) == ["/query/limit"]
    assert "not one of this list" in problem(service.get("/v1/datasets", params={"cursor": "x"}), 422).detail


def test_yaml_will_do(client: httpx.Client) -> None:
    body = "name: leaves\ndataset: {name: imagefolder, path: leaves}\n"
    made = client.post("/v1/datasets", content=body, headers={"Content-Type": "application/yaml"})
    assert made.status_code == 201 and made.json()["dataset"]["size"] == 64


def test_as_many_as_there_may_be(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MOST", 1)
    assert register(client).status_code == 201
    assert "delete one" in problem(register(client, "more"), 409).detail


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "blätter", "x" * 101, "a\n", "a\0b", ".hidden"])
def test_names_are_plain(client: httpx.Client, name: str) -> None:
    found = problem(register(client, name), 422)
    assert paths(found) == ["/name"]
    if "\0" not in name:
        assert "1 to 100 letters" in found.detail


@pytest.mark.parametrize("name", ["a", "9", "Leaves-2026_v1.2", "x" * 100])
def test_names_that_will_do(client: httpx.Client, name: str) -> None:
    assert register(client, name).status_code == 201
    assert client.get(f"/v1/datasets/{name}").json()["name"] == name


@pytest.mark.parametrize("name", ["%00", "a b", "-x"])
def test_what_cannot_be_a_name_is_not_looked_up(client: httpx.Client, name: str) -> None:
    for method in ("GET", "DELETE"):
        assert paths(problem(client.request(method, f"/v1/datasets/{name}"), 422)) == ["/path/dataset_name"]


@pytest.mark.parametrize(
    ("body", "path", "detail"),
    [
        (
            {"name": "digits"},
            "/name",
            "'digits' is a data set of the catalog (digits, fashion-mnist, imagefolder, npz)",
        ),
        ({"dataset": {"name": "zebras"}}, "/dataset/name", "unknown data set 'zebras'; known: digits, fashion-mnist"),
        ({"dataset": {**LEAVES, "pixels": 64}}, "/dataset/pixels", "known: flip, path, size, workers"),
        ({"dataset": {**LEAVES, "size": 4}}, "/dataset/size", "at least 8"),
        ({"dataset": {**LEAVES, "fraction": 0.5}}, "/dataset/fraction", "is for a job to say"),
        ({"dataset": {"name": "imagefolder"}}, "/dataset/path", "needs the setting 'path'"),
        ({"dataset": {**LEAVES, "path": "mine"}}, "/dataset/path", "no worker has 'mine' for data set 'imagefolder'"),
        ({"dataset": {**LEAVES, "path": "few"}}, "/dataset/path", "worker worker-1: /data/few: class 'a' has 1 image"),
        ({"dataset": "leaves"}, "/dataset", "a valid dictionary"),
        ({"colour": 1}, "/colour", "one of dataset, description, name"),
        ({"description": "x" * 1001}, "/description", "at most 1000 characters"),
    ],
)
def test_a_registration_is_checked_as_a_job_is(
    client: httpx.Client, body: dict[str, Any], path: str, detail: str
) -> None:
    found = problem(client.post("/v1/datasets", json={"name": "leaves", "dataset": LEAVES, **body}), 422)
    assert paths(found) == [path]
    assert detail in found.detail


@pytest.mark.parametrize("path", ["/etc", "../leaves", "a/../../b", "a\\b", "c:/x"])
def test_paths_cannot_leave_the_data_folder(client: httpx.Client, path: str) -> None:
    found = problem(register(client, dataset={**LEAVES, "path": path}), 422)
    assert paths(found) == ["/dataset/path"]
    assert found.title == "Unsafe path" and "Data folders: /data" in found.detail


def test_what_was_missing_says_where_and_that_it_takes_a_moment(client: httpx.Client) -> None:
    found = problem(register(client, dataset={**LEAVES, "path": "mine"}), 422)
    assert "worker worker-1 looked in /data" in found.detail
    assert "known files: leaves" in found.detail
    assert "is seen within some seconds" in found.detail


def test_a_path_may_be_written_as_shells_complete_it(client: httpx.Client) -> None:
    made = register(client, dataset={**LEAVES, "path": "./leaves/"})
    assert made.json()["classes"] == 6
    assert (register(client).status_code, register(client).json()) == (200, made.json())


def test_a_name_stands_for_a_data_set_of_the_catalog(client: httpx.Client) -> None:
    register(client)
    found = problem(register(client, "more", {"name": "leaves"}), 422)
    assert paths(found) == ["/dataset/name"]
    assert "'leaves' is registered itself" in found.detail and "It is made of 'imagefolder'" in found.detail


def test_no_worker_has_registered(empty: httpx.Client) -> None:
    assert "no worker has registered" in problem(register(empty), 503).detail
    assert paths(problem(register(empty, "a b"), 422)) == ["/name"]
    assert empty.get("/v1/datasets").json() == {"items": [], "next": None}


# --- what is known of it ----------------------------------------------------------------------------------------------


def test_which_workers_have_it_now(client: httpx.Client) -> None:
    register(client)
    publish("worker-2", entries=published("worker-2", {}, {"leaves/b": "/data/leaves/b: is a symbolic link"}))
    found = RegisteredDataset.model_validate_json(client.get("/v1/datasets/leaves").content)
    one, two = found.workers
    assert (one.present, one.classes, one.images, one.note) == (True, 6, {"train": 240, "test": 60}, "")
    assert (two.present, two.classes, two.images, two.note) == (False, None, None, "/data/leaves/b: is a symbolic link")
    with unit_of_work() as session:
        catalog.retire(session, "worker-1")
    found = RegisteredDataset.model_validate_json(client.get("/v1/datasets/leaves").content)
    assert [each.live for each in found.workers] == [False, True]
    assert (found.input, found.classes, found.images) == (None, None, None), "no live worker has it"


def test_a_data_set_with_a_fixed_shape_and_one_that_is_fetched(client: httpx.Client) -> None:
    digits = register(client, "small", {"name": "digits"}).json()
    assert (digits["input"], digits["classes"], digits["images"]) == ([1, 8, 8], 10, {"train": 1437, "test": 360})
    clothes = register(client, "clothes", {"name": "fashion-mnist"}).json()
    (there,) = clothes["workers"]
    assert (clothes["classes"], there["present"], there["downloadable"]) == (10, False, True)
    found = problem(register(client, "offline", {"name": "fashion-mnist", "download": False}), 422)
    assert paths(found) == ["/dataset/name"]


def test_the_same_again_is_fine_when_its_images_are_gone(client: httpx.Client) -> None:
    register(client)
    publish("worker-1", entries=published("worker-1", {}))
    assert register(client).status_code == 200
    assert client.get("/v1/datasets/leaves").json()["input"] is None
    assert register(client, "other").status_code == 422


def test_settings_that_came_with_an_upgrade_make_no_other_data_set(client: httpx.Client) -> None:
    with unit_of_work() as session:
        datasets.add(session, "old", LEAVES)
    assert register(client, "old").status_code == 200
    assert register(client, "old", {**LEAVES, "flip": True}).status_code == 409


def test_the_catalog_lists_it_for_forms(client: httpx.Client) -> None:
    register(client, description="Leaves by species")
    register(client, "plain", BIRDS)
    there = Catalog.model_validate_json(client.get("/v1/catalog").content).datasets
    assert [entry.name for entry in there] == ["digits", "fashion-mnist", "imagefolder", "npz", "leaves", "plain"]
    leaves, plain = there[-2:]
    assert leaves.facts == {"registered": "imagefolder", "dataset": FULL, "input": [3, 32, 32], "classes": 6}
    assert (leaves.summary, plain.summary) == ("Leaves by species", "npz with settings of its own.")
    assert leaves.settings["properties"] == {} and leaves.settings["additionalProperties"] is False
    assert leaves.workers == {"worker-1": {"present": True, "downloadable": False, "hint": ""}}


# --- jobs -------------------------------------------------------------------------------------------------------------


def post(client: httpx.Client, spec: dict[str, Any], dataset: dict[str, Any]) -> httpx.Response:
    return client.post("/v1/jobs", json={**spec, "dataset": dataset, "constraints": {}})


def test_settings_beside_a_registered_name_are_refused(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client)
    found = problem(post(client, spec, {"name": "leaves", "size": 64, "flip": True, "fraction": 0.5}), 422)
    assert paths(found) == ["/dataset/flip", "/dataset/size"]
    assert "only 'fraction' may stand there" in found.detail and "name 'imagefolder' with settings" in found.detail
    assert paths(problem(post(client, spec, {"name": "leaves", "fraction": 2}), 422)) == ["/dataset/fraction"]


def test_unknown_names_list_registered_ones(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client)
    found = problem(post(client, spec, {"name": "zebras"}), 422)
    assert found.detail == "unknown data set 'zebras'; known: digits, fashion-mnist, imagefolder, leaves, npz"


def test_bounds_are_those_of_its_images(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client, "small", {**LEAVES, "size": 8})
    register(client, "large", {**LEAVES, "size": 32})
    floors = []
    for name in ("small", "large"):
        job = {**spec, "dataset": {"name": name}, "objectives": ["error", "macs"], "constraints": {"macs": {"max": 1}}}
        found = problem(client.post("/v1/jobs", json=job), 422)
        assert paths(found) == ["/constraints/macs/max"]
        floors.append(found.errors[0].expected)
    assert floors[0] != floors[1]


def test_images_that_went_are_a_fault_of_the_name(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client)
    publish("worker-1", entries=published("worker-1", {}, {"leaves": "/data/leaves: has 1 folders"}))
    found = problem(post(client, spec, {"name": "leaves"}), 422)
    assert paths(found) == ["/dataset/name"]
    assert found.detail.startswith(
        "registered data set 'leaves': 'leaves' cannot be used. worker worker-1: /data/leaves"
    )
    assert found.errors[0].got == "leaves"


def test_a_data_set_that_no_worker_has_any_more(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client)
    publish("worker-1", entries=entries("worker-1"))
    found = problem(post(client, spec, {"name": "leaves"}), 422)
    assert found.detail.startswith("registered data set 'leaves': unknown data set 'imagefolder'")
    assert client.get("/v1/datasets/leaves").json()["workers"] == []


def test_a_name_that_a_worker_brought_later_is_ambiguous(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client, "cifar10")
    later = {**entries("worker-2")[-1], "name": "cifar10"}
    publish("worker-2", entries=[*entries("worker-2"), later])
    found = problem(post(client, spec, {"name": "cifar10"}), 422)
    assert (found.title, paths(found)) == ("Ambiguous data set", ["/dataset/name"])
    assert "delete the registered one" in found.detail
    listed = [entry["name"] for entry in client.get("/v1/catalog").json()["datasets"]]
    assert listed.count("cifar10") == 1
    assert client.delete("/v1/datasets/cifar10").status_code == 204


def test_a_stored_job_can_be_posted_again(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client)
    first = post(client, spec, {"name": "leaves"}).json()["spec"]
    again = client.post("/v1/jobs", json=first)
    assert again.status_code == 201 and again.json()["spec"] == first
    for dataset in ({**first["dataset"], "size": 64}, {**FULL, "registered": "oaks"}, {**FULL, "registered": "npz"}):
        found = problem(client.post("/v1/jobs", json={**first, "dataset": dataset}), 422)
        assert paths(found) == ["/dataset/registered"] and "leave it out" in found.detail
    client.delete("/v1/datasets/leaves")
    assert paths(problem(client.post("/v1/jobs", json=first), 422)) == ["/dataset/registered"]
    assert client.post("/v1/jobs", json={**first, "dataset": {**FULL, "fraction": 1.0}}).status_code == 201


def test_a_name_may_be_asked_for_twice_in_a_way_that_cannot_be(client: httpx.Client, spec: dict[str, Any]) -> None:
    register(client)
    found = problem(post(client, spec, {"name": "leaves", "registered": "leaves"}), 422)
    assert paths(found) == ["/dataset/registered"]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_submit_key_registers_and_does_not_delete(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from store import keys

    monkeypatch.delenv("SKYLINE_KEYS")
    scopes: tuple[keys.Scope, ...] = ("read", "submit", "admin")
    with unit_of_work() as session:
        read, submit, admin = ({"Authorization": f"Bearer {keys.create(session, scope, scope)[1]}"} for scope in scopes)
    body = {"name": "leaves", "dataset": LEAVES}
    assert "scope submit" in problem(client.post("/v1/datasets", json=body, headers=read), 403).detail
    assert client.post("/v1/datasets", json=body, headers=submit).status_code == 201
    assert client.get("/v1/datasets/leaves", headers=read).status_code == 200
    assert "scope admin" in problem(client.delete("/v1/datasets/leaves", headers=submit), 403).detail
    assert client.delete("/v1/datasets/leaves", headers=admin).status_code == 204
