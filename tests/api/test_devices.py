"""Devices and their profiles over HTTP, and what jobs make of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from nas_core.architecture import Genotype, genotype_to_json
from nas_core.parts import Widths, parts_on
from nas_core.profiles import DeviceProfile
from nas_core.spaces import spaces
from skyline.schemas import Catalog, Device, DeviceWithProfile, Problem
from store import devices
from store.session import reading
from tests.api.conftest import publish, served
from tests.api.problems import paths, problem
from tests.api.publications import entries

DARTS = spaces["darts"](cells=5, channels=8)
HELD = {"space": "darts", "cells": 5, "channels": 8, "input": [1, 8, 8], "classes": 10}


def profile(name: str = "pi", *, without: str = "", mj: float | None = None, **changes: Any) -> dict[str, Any]:
    """A profile with every part of the networks of the fixture ``spec``; ``without``: but those of this op."""
    skeleton = DARTS.skeleton((1, 8, 8), 10)
    rows = [
        {
            "op": part.op,
            "inputs": part.inputs,
            "outputs": part.outputs,
            "size": list(part.size),
            "stride": part.stride,
            "ms": 0.01,
            **({} if mj is None else {"mj": mj}),
        }
        for part in sorted(parts_on(DARTS, skeleton), key=str)
        if part.op != without
    ]
    return {
        "name": name,
        "device": "cpu:Cortex-A72",
        "protocol": {"batch": 1, "threads": 4, "runtime": "torch 2.13.0"},
        "parts": rows,
        "latency_validation": [{**HELD, "n": 40, "tau": 0.9, "mape": 4.0, "tau_repeat": 0.95}],
        **changes,
    }


def upload(client: httpx.Client, document: dict[str, Any]) -> httpx.Response:
    return client.post("/v1/devices", json=document)


def job(spec: dict[str, Any], *objectives: Any, **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(spec), "objectives": ["error", *objectives], "constraints": {}, **changes}


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> Iterator[httpx.Client]:
    """A service with one live worker, on each database in turn."""
    with served(request, tmp_path, server) as client:
        yield client


# --- a life -----------------------------------------------------------------------------------------------------------


def test_from_upload_to_deletion(service: httpx.Client, spec: dict[str, Any]) -> None:
    made = upload(service, profile())
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/v1/devices/pi"
    found = Device.model_validate_json(made.content)
    assert (found.name, found.device, found.predicts, found.power_w) == ("pi", "cpu:Cortex-A72", ["latency_ms"], None)
    assert (found.latency_validation[0].tau, found.latency_validation[0].n) == (0.9, 40)
    one = DeviceWithProfile.model_validate_json(service.get("/v1/devices/pi").content)
    assert one.sha256 == found.sha256 == DeviceProfile.from_json(profile()).sha256
    assert upload(service, one.profile).json() == made.json(), "what was answered can be uploaded again"
    again = upload(service, profile())
    assert (again.status_code, again.json()) == (200, made.json())
    assert service.get("/v1/devices").json() == {"items": [made.json()], "next": None}
    catalog = Catalog.model_validate_json(service.get("/v1/catalog").content)
    assert [device.name for device in catalog.devices] == ["pi"]

    posted = service.post("/v1/jobs", json=job(spec, {"name": "latency", "device": "pi"}))
    assert posted.status_code == 201, posted.text
    newer = upload(service, profile(power_w=4.0))
    assert (newer.status_code, newer.json()["predicts"]) == (200, ["latency_ms", "energy_mj"])
    assert newer.json()["sha256"] != found.sha256
    assert service.delete("/v1/devices/pi").status_code == 204
    for gone in (service.get("/v1/devices/pi"), service.delete("/v1/devices/pi")):
        assert "no device 'pi'" in problem(gone, 404).detail
    stored = service.get(posted.headers["location"]).json()["spec"]["objectives"][1]
    assert stored == {
        "name": "latency_ms",
        "key": "latency_ms@pi",
        "device": "pi",
        "kind": "predicted",
        "profile": found.sha256,
    }
    with reading() as session:
        kept = devices.profile(session, stored["profile"]).profile
    assert DeviceProfile.from_json(kept) == DeviceProfile.from_json(profile()), "the job's worker finds it still"


def test_the_list_is_paged_by_name(client: httpx.Client) -> None:
    for name in ("c", "a", "b"):
        upload(client, profile(name))
    first = client.get("/v1/devices", params={"limit": 2}).json()
    second = client.get("/v1/devices", params={"limit": 2, "cursor": first["next"]}).json()
    assert [each["name"] for each in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["next"] is None
    assert problem(client.get("/v1/devices", params={"cursor": "x"}), 422).title == "Invalid cursor"


# --- malformed profiles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"name": "this-worker"}, "/name", "a name other than 'this-worker'"),
        ({"name": "a b"}, "/name", "a name of 1 to 100 letters"),
        ({"parts": []}, "/parts", "at least 1 item"),
        ({"protocol": {"batch": 0, "runtime": "torch"}}, "/protocol/batch", "greater than or equal to 1"),
        ({"protocol": {}}, "/protocol/runtime", "it is required"),
        ({"speed": 3}, "/speed", "unknown field 'speed'"),
        ({"power_w": -1.0}, "/power_w", "greater than 0"),
        ({"latency": {"scale": 0.0}}, "/latency/scale", "greater than 0"),
        ({"latency": {"scale": 1e300}}, "/latency/scale", "less than or equal to 1000000"),
        ({"energy": {"offset": 1e300}}, "/energy/offset", "less than or equal to 1000000000"),
        ({"measured_at": "yesterday"}, "/measured_at", "an ISO 8601 time for 'measured_at', such as"),
        (
            {"latency_validation": [{**HELD, "n": 40, "tau": 2.0, "mape": 1.0}]},
            "/latency_validation/0/tau",
            "less than or equal to 1",
        ),
    ],
)
def test_a_malformed_profile_names_the_place(
    client: httpx.Client, changes: dict[str, Any], path: str, words: str
) -> None:
    refused = problem(upload(client, profile(**changes) if "name" not in changes else {**profile(), **changes}), 422)
    assert paths(refused) == [path]
    assert words in refused.detail
    assert client.get("/v1/devices").json()["items"] == [], "nothing is kept of it"


def test_rows_that_make_no_sense_are_all_named(client: httpx.Client) -> None:
    document = profile()
    document["parts"][0] |= {"op": "warp"}
    document["parts"][2] |= {"ms": None}
    document["parts"].append(document["parts"][3])
    last = len(document["parts"]) - 1
    refused = problem(upload(client, document), 422)
    assert paths(refused) == ["/parts/0/op", "/parts/2", f"/parts/{last}"]
    assert "unknown part 'warp'; known: " in refused.detail
    assert "stands at /parts/3 already; each part has one row" in " ".join(each.expected for each in refused.errors)
    assert client.get("/v1/devices").json()["items"] == []
    document["parts"] = [{"op": "add", "inputs": 2, "outputs": 2, "size": [8, "x"], "ms": -1}]
    assert paths(problem(upload(client, document), 422)) == ["/parts/0/size/1", "/parts/0/ms"]
    document["parts"] = [{"op": "add", "inputs": 2, "outputs": 2, "size": [8, 8], "ms": 1e300, "mj": 1e300}]
    refused = problem(upload(client, document), 422)
    assert paths(refused) == ["/parts/0/ms", "/parts/0/mj"], "their sum would be no number"


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"name": NaN}', '{"name": "a", "name": "b"}'])
def test_what_is_no_document_is_refused(client: httpx.Client, text: str) -> None:
    headers = {"Content-Type": "application/json"}
    problem(client.post("/v1/devices", content=text, headers=headers), 422)


def test_a_table_that_is_too_long_is_refused(client: httpx.Client) -> None:
    row = {"op": "add", "inputs": 2, "outputs": 2, "ms": 1.0}
    document = {**profile(), "parts": [{**row, "size": [n + 1, 1]} for n in range(1001)]}
    refused = problem(upload(client, document), 422)
    assert paths(refused) == ["/parts"] and "at most 1000 rows, not 1001" in refused.detail


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "path", "words"),
    [
        (
            {"device": "moon"},
            "/objectives/1/device",
            "unknown device 'moon'; with a profile: pi; upload one with 'skyline",
        ),
        ({"device": "pi", "kind": "measured"}, "/objectives/1/device", "this-worker for kind measured"),
        ({"kind": "predicted"}, "/objectives/1/device", "the name of a device with a profile"),
        ({"device": "pi", "batch": 4}, "/objectives/1/batch", "no meaning for latency_ms predicted"),
        (
            {"device": "pi", "profile": "0" * 64},
            "/objectives/1/profile",
            "device 'pi' never had a profile of SHA-256 000",
        ),
        ({"kind": "guessed"}, "/objectives/1/kind", "measured, predicted"),
    ],
)
def test_objectives_that_cannot_be_predicted_are_refused(
    client: httpx.Client, spec: dict[str, Any], objective: dict[str, Any], path: str, words: str
) -> None:
    upload(client, profile())
    refused = problem(client.post("/v1/jobs", json=job(spec, {"name": "latency_ms", **objective})), 422)
    assert paths(refused) == [path]
    assert words in refused.detail


def test_a_job_whose_parts_are_not_covered_is_refused_with_their_names(
    client: httpx.Client, spec: dict[str, Any]
) -> None:
    upload(client, profile("half", without="sep_conv_3x3"))
    refused = problem(client.post("/v1/jobs", json=job(spec, {"name": "latency_ms", "device": "half"})), 422)
    assert paths(refused) == ["/objectives/1/device"]
    assert "has no ms of 5 of 48 parts" in refused.detail
    assert "sep_conv_3x3 8 to 8 channels at 8x8" in refused.detail
    command = "skyline device profile --space darts --cells 5 --channels 8 --input 1x8x8 --classes 10"
    assert command in refused.detail
    rows = missing_rows(refused)
    assert all(row.pop("ms", 0) is None and row["op"] == "sep_conv_3x3" for row in rows) and len(rows) == 5
    mended = profile("half", without="sep_conv_3x3")
    mended["parts"] += [{**row, "ms": 0.01} for row in rows]
    assert upload(client, mended).status_code == 200
    assert client.post("/v1/jobs", json=job(spec, {"name": "latency_ms", "device": "half"})).status_code == 201

    upload(client, profile("whole"))
    wide = job(spec, {"name": "latency_ms", "device": "whole"}, target={"channels": [8, 12]})
    refused = problem(client.post("/v1/jobs", json=wide), 422)
    assert "12 channels" in refused.detail and "--channels 8,12" in refused.detail


def missing_rows(refused: Problem) -> list[dict[str, Any]]:
    """What a profile lacks, as the first error has it."""
    text = refused.errors[0].expected
    rows: list[dict[str, Any]] = json.loads(text[text.index("[") :])
    return rows


def test_parts_without_time_and_energy_are_told_once(client: httpx.Client, spec: dict[str, Any]) -> None:
    document = profile("half", mj=0.2, without="sep_conv_3x3")
    document["parts"][0] |= {"mj": None}
    upload(client, document)
    both = [{"name": name, "device": "half"} for name in ("latency_ms", "energy_mj")]
    refused = problem(client.post("/v1/jobs", json=job(spec, *both)), 422)
    assert paths(refused) == ["/objectives/1/device", "/objectives/2/device"]
    assert "has no ms of 5 of 48 and no mj of 6 of 48 parts" in refused.detail
    assert refused.detail.count("'skyline device profile") == 1
    rows = missing_rows(refused)
    assert sorted(len({"ms", "mj"} & set(row)) for row in rows) == [1, 2, 2, 2, 2, 2]
    assert refused.errors[1].expected == "the same"


def test_networks_that_are_given_need_only_their_own_parts(client: httpx.Client, spec: dict[str, Any]) -> None:
    upload(client, profile("half", without="sep_conv_3x3"))
    cell = [[op, source] for node in range(4) for op, source in (("max_pool_3x3", 0), ("skip_connect", 1))]
    seed = {"normal": cell, "normal_concat": [2, 3, 4, 5], "reduce": cell, "reduce_concat": [2, 3, 4, 5]}
    given = {"algorithm": {"name": "given"}, "seed_genotypes": [seed]}
    on = {"name": "latency_ms", "device": "half"}
    assert client.post("/v1/jobs", json=job(spec, on, **given)).status_code == 201
    upload(client, profile("low", without="sep_conv_5x5"))
    low = {"name": "latency_ms", "device": "low", "key": "lat"}
    refused = problem(client.post("/v1/jobs", json=job(spec, low, **given)), 422)
    assert "sep_conv_5x5" in refused.detail, "the reference point is the ceiling network's"
    named = {**given, "reference_point": {"lat": 9.0}}
    assert client.post("/v1/jobs", json=job(spec, low, **named)).status_code == 201
    other = copy.deepcopy(given)
    other["seed_genotypes"][0]["normal"][0] = ["sep_conv_3x3", 0]
    refused = problem(client.post("/v1/jobs", json=job(spec, on, **other)), 422)
    assert "has no ms of 5 of 33 parts that networks of this job" in refused.detail, "at three widths, from both inputs"


def stored(client: httpx.Client, spec: dict[str, Any], objective: Any) -> dict[str, Any]:
    made = client.post("/v1/jobs", json=job(spec, objective))
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()["spec"]["objectives"][1]
    again = client.post("/v1/jobs", json={**made.json()["spec"], "name": "again"})
    assert again.status_code == 201, again.text
    assert again.json()["spec"]["objectives"][1] == found, "what is stored can be posted again"
    return found


def test_given_networks_of_narrower_cells_need_parts_around_theirs(client: httpx.Client, spec: dict[str, Any]) -> None:
    """And so do the networks that a search makes of them."""
    settings: dict[str, Any] = {"cells": 5, "channels": 8, "fan_in": "free", "levels": "cell", "filters": True}
    space = spaces["darts"](**settings)
    skeleton, rng = space.skeleton((1, 8, 8), 10), np.random.default_rng(0)
    plain, narrow = space.sample(rng), space.narrowed(space.sample(rng), rng)
    assert any(cell.width not in (None, space.widths(name)[1]) for name, cell in narrow.types.items())
    kinds: tuple[tuple[str, Widths], ...] = (("full", "rule"), ("any", "all"))
    for name, widths in kinds:
        rows = [{**asdict(part), "size": list(part.size), "ms": 0.01} for part in parts_on(space, skeleton, widths)]
        upload(client, {**profile(name), "parts": rows})

    def posted(device: str, genotype: Genotype) -> httpx.Response:
        changes = {"space": {"name": "darts", **settings}, "seed_genotypes": [genotype_to_json(genotype)]}
        return client.post("/v1/jobs", json=job(spec, {"name": "latency_ms", "device": device}, **changes))

    assert posted("full", plain).status_code == posted("any", narrow).status_code == 201
    assert "--filters" in problem(posted("full", narrow), 422).detail


def test_energy_is_settled_when_the_job_is_posted(client: httpx.Client, spec: dict[str, Any]) -> None:
    common = {"name": "energy_mj", "key": "energy_mj", "device": "this-worker"}
    counted = {"kind": "predicted", "method": "operations", "pj_per_mac": 4.6, "pj_per_byte": 162.5, "batch": 1}
    assert stored(client, spec, "energy") == common | counted
    power = {"kind": "predicted", "method": "power", "power_w": 15.0, "batch": 1, "threads": 1}
    assert stored(client, spec, {"name": "energy", "power_w": 15.0}) == common | power
    upload(client, profile("powered", power_w=3.0))
    found = stored(client, spec, {"name": "energy", "device": "powered"})
    assert (found["key"], found["method"], found["power_w"]) == ("energy_mj@powered", "power", 3.0)
    upload(client, profile("rich", mj=0.2))
    found = stored(client, spec, {"name": "energy", "device": "rich", "key": "e"})
    assert (found["key"], found["method"]) == ("e", "parts") and len(found["profile"]) == 64


def test_energy_that_nobody_can_tell_is_refused_and_never_zero(client: httpx.Client, spec: dict[str, Any]) -> None:
    refused = problem(client.post("/v1/jobs", json=job(spec, {"name": "energy", "kind": "measured"})), 422)
    assert paths(refused) == ["/objectives/1/kind"]
    assert "no live cpu worker counts energy: this machine shows no RAPL counter" in refused.detail
    assert "A prediction would do" in refused.detail
    upload(client, profile("plain"))
    refused = problem(client.post("/v1/jobs", json=job(spec, {"name": "energy", "device": "plain"})), 422)
    assert paths(refused) == ["/objectives/1/power_w"] and "power of the busy device in W" in refused.detail


def counting(worker: str, counter: str | None) -> list[dict[str, Any]]:
    found = entries(worker)
    for entry in found:
        if entry["name"] == "energy_mj":
            entry["workers"][worker] = {"counter": counter, "reason": None if counter else "no RAPL", "class": "cpu"}
    return found


def test_energy_is_measured_where_every_live_worker_counts_it(client: httpx.Client, spec: dict[str, Any]) -> None:
    publish("worker-1", entries=counting("worker-1", "rapl"))
    found = stored(client, spec, "energy")
    assert (found["kind"], found["seconds"], found["threads"]) == ("measured", 2.0, 1)
    publish("worker-2", entries=counting("worker-2", None))
    assert stored(client, spec, "energy")["kind"] == "predicted", "one front, one kind, whoever takes it"
    assert stored(client, spec, {"name": "energy", "kind": "measured"})["kind"] == "measured"


def test_latency_here_is_measured_as_before(client: httpx.Client, spec: dict[str, Any]) -> None:
    assert stored(client, spec, "latency") == {
        "name": "latency_ms",
        "key": "latency_ms",
        "device": "this-worker",
        "kind": "measured",
        "runtime": "torch",
        "batch": 1,
        "threads": 1,
        "seconds": 0.6,
    }


def test_bounds_on_predictions(client: httpx.Client, spec: dict[str, Any]) -> None:
    upload(client, profile())
    on = {"name": "latency_ms", "device": "pi", "key": "lat"}
    made = client.post("/v1/jobs", json={**job(spec, on), "constraints": {"lat": {"max": 3.0}}})
    assert made.status_code == 201, made.text
    refused = problem(client.post("/v1/jobs", json={**job(spec, on), "constraints": {"lat": {"max": 0}}}), 422)
    assert paths(refused) == ["/constraints/lat/max"]
