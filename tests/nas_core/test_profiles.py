"""Device profiles: read from JSON, predictions as sums, calibration and judgement of real measurements."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.errors import MissingPartError, ProfileError
from nas_core.parts import Part, parts_of, parts_on
from nas_core.profiles import DeviceProfile
from nas_core.profiling import Bench, draw, fit, kendall_tau, measure_profile
from nas_core.spaces import spaces
from skyline import schemas

SPACE = spaces["nasbench201"](cells=5, channels=2)
SKELETON = SPACE.skeleton((1, 8, 8), 10)
DARTS = spaces["darts"](cells=3, channels=4)


def rows(parts: Any = None) -> list[dict[str, Any]]:
    """A row for each part: its channels times its pixels, as milliseconds."""
    return [
        {
            "op": part.op,
            "inputs": part.inputs,
            "outputs": part.outputs,
            "size": list(part.size),
            "stride": part.stride,
            "ms": 0.001 * part.inputs * part.size[0],
        }
        for part in sorted(parts_on(SPACE, SKELETON) if parts is None else parts, key=str)
    ]


def document(**changes: Any) -> dict[str, Any]:
    held = {"space": "nasbench201", "cells": 5, "channels": 2, "input": [1, 8, 8], "classes": 10}
    return {
        "name": "pi",
        "device": "cpu:Cortex-A72",
        "protocol": {"batch": 2, "threads": 4, "runtime": "torch 2.13.0"},
        "parts": rows(),
        "latency": {"scale": 2.0, "offset": 0.5, "n": 20},
        "latency_validation": [{**held, "n": 40, "tau": 0.9, "mape": 4.0, "tau_repeat": 0.95}],
        **changes,
    }


def network(seed: int = 0) -> Architecture:
    return Architecture(SPACE.sample(np.random.default_rng(seed)), SKELETON)


def test_a_prediction_is_the_calibrated_sum_over_parts() -> None:
    profile, architecture = DeviceProfile.from_json(document()), network()
    total = sum(n * 0.001 * part.inputs * part.size[0] for part, n in parts_of(architecture).items())
    assert profile.predict(architecture, "ms") == pytest.approx(0.5 + 2 * total)
    assert DeviceProfile.from_json(document(latency=None)).predict(architecture, "ms") == pytest.approx(total)


def test_what_stands_beside_a_prediction() -> None:
    profile = DeviceProfile.from_json(document())
    told = profile.detail("ms", network())
    assert (told["device"], told["describes"], told["profile"]) == ("pi", "cpu:Cortex-A72", profile.sha256)
    assert (told["batch"], told["threads"], told["runtime"]) == (2, 4, "torch 2.13.0")
    assert (told["tau"], told["tau_repeat"], told["mape"], told["held_out"]) == (0.9, 0.95, 4.0, 40)
    elsewhere = Architecture(DARTS.sample(np.random.default_rng(0)), DARTS.skeleton((1, 8, 8), 10))
    other = profile.detail("ms", elsewhere)
    assert (other["tau"], other["mape"], other["held_out"]) == (None, None, 0), "no network of that space was held out"


def test_json_goes_round_and_the_sum_names_the_contents() -> None:
    profile = DeviceProfile.from_json(document())
    again = DeviceProfile.from_json(json.dumps(profile.to_json()))
    assert again == profile and again.sha256 == profile.sha256
    changed = document()
    changed["parts"][0]["ms"] += 1e-9
    assert DeviceProfile.from_json(changed).sha256 != profile.sha256


def test_a_network_with_a_part_that_is_not_there_has_no_value() -> None:
    architecture = network()
    parts = [part for part in parts_of(architecture) if part.op != "add"]
    profile = DeviceProfile.from_json(document(parts=rows(parts)))
    with pytest.raises(
        MissingPartError, match="device 'pi' has no ms of 3 parts of this network: add 2 to 2 channels at"
    ):
        profile.predict(architecture, "ms")
    with pytest.raises(MissingPartError, match="no mj of"):
        profile.predict(architecture, "mj")
    assert profile.lacking([Part("add", 2, 2, (8, 8))], "ms") == [Part("add", 2, 2, (8, 8))]


def test_a_part_between_two_widths_costs_what_lies_between() -> None:
    """By multiply-adds, or by what is read and written; never beyond the ends, nor of another op, size or stride."""
    ends = [Part("conv_3x3", width, width, (8, 8)) for width in (4, 8)]
    ends += [Part("add", width, width, (8, 8)) for width in (4, 8)]
    profile = DeviceProfile.from_json(
        document(parts=[{**row, "ms": ms} for row, ms in zip(rows(ends), (1.0, 2.0, 10.0, 70.0), strict=True)])
    )
    assert profile.cost(Part("add", 6, 6, (8, 8)), "ms") == pytest.approx(1.5)
    assert profile.cost(Part("conv_3x3", 6, 6, (8, 8)), "ms") == pytest.approx(10 + 60 * (36 - 16) / (64 - 16))
    assert profile.cost(ends[0], "ms") == 10.0
    beyond = [Part("add", 9, 9, (8, 8)), Part("add", 6, 6, (4, 4)), Part("conv_3x3", 6, 6, (8, 8), 2)]
    others = [Part("conv_1x1", 6, 6, (8, 8)), Part("classifier", 6, 10, (8, 8))]
    assert profile.unknown([*beyond, *others], "ms") == sorted([*beyond, *others], key=str)
    assert profile.lacking([Part("add", 6, 6, (8, 8))], "ms"), "it has no row of its own"


def test_a_middle_as_wide_as_what_comes_in_says_nothing() -> None:
    (row,) = rows([Part("sep_conv_3x3", 4, 4, (8, 8))])
    profile = DeviceProfile.from_json(document(parts=[{**row, "middle": 4}, {**row, "middle": 6}]))
    assert [each.part.middle for each in profile.parts] == [None, 6]
    for wrong in ({**row, "op": "dil_conv_3x3", "middle": 6}, {**row, "pool_norm": True}):
        with pytest.raises(ProfileError, match="/parts/0/op: a (sep_conv|pool) alone has"):
            DeviceProfile.from_json(document(parts=[wrong]))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("parts",), [], "/parts: .*at least 1 item"),
        (("parts", 0, "ms"), -1.0, "/parts/0/ms: .*greater than or equal to 0 .got -1"),
        (("parts", 0, "ms"), "fast", "/parts/0/ms: .*valid number .got fast"),
        (("parts", 0, "ms"), float("nan"), "/parts/0/ms|no JSON"),
        (("parts", 0, "op"), "warp_3x3", "/parts/0/op: unknown part 'warp_3x3'; known: .*add"),
        (("parts", 0, "size"), [8], "/parts/0/size"),
        (("parts", 0, "speed"), 1, "/parts/0/speed: .*got 1"),
        (("parts", 0, "ms"), None, "/parts/0: .* has neither ms nor mj"),
        (("protocol",), {"batch": 1}, "/protocol/runtime"),
        (("latency", "scale"), 0, "/latency/scale: .*greater than 0"),
        (("latency_validation", 0, "tau"), 1.5, "/latency_validation/0/tau: .*less than or equal to 1"),
        (("latency_validation", 0, "n"), 1, "/latency_validation/0/n"),
        (("power_w",), 0.0, "/power_w: .*greater than 0"),
    ],
)
def test_what_is_no_profile_says_where(path: tuple[Any, ...], value: Any, words: str) -> None:
    broken: Any = copy.deepcopy(document())
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ProfileError, match=words):
        DeviceProfile.from_json(broken)


def test_a_part_stands_once() -> None:
    twice = rows()
    with pytest.raises(ProfileError, match="/parts/[0-9]+: .* stands at /parts/0 already; each part has one row"):
        DeviceProfile.from_json(document(parts=[*twice, twice[0]]))


@pytest.mark.parametrize("text", ["", "[]", "{", "nonsense", "3", "{}"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ProfileError):
        DeviceProfile.from_json(text)


def test_the_wire_and_the_science_have_the_same_fields() -> None:
    profile = DeviceProfile.from_json(document())
    made = schemas.DeviceProfile.model_validate(profile.to_json())
    assert made.model_dump(mode="json") == profile.to_json()
    with pytest.raises(ValueError, match="a name other than 'this-worker'"):
        schemas.DeviceProfile.model_validate({**document(), "name": "this-worker"})


# --- from times to a profile ------------------------------------------------------------------------------------------


def test_kendalls_tau_against_known_answers() -> None:
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(2 / 3)
    # ties: 5 concordant pairs, one pair tied in b alone, of 6; tau-b = 5 / sqrt(6 * 5)
    assert kendall_tau([1, 2, 3, 4], [1, 2, 3, 3]) == pytest.approx(5 / 30**0.5)
    assert kendall_tau([1, 2], [3, 3]) == 0
    for wrong in (([1], [1]), ([1, 2], [1, 2, 3])):
        with pytest.raises(ValueError, match="two lists of equal length"):
            kendall_tau(*wrong)


def test_the_fit_finds_scale_and_offset_and_neither_is_negative() -> None:
    sums = np.array([1.0, 2.0, 3.0, 5.0])
    found = fit(sums, 0.7 + 1.3 * sums)
    assert (found.scale, found.offset, found.n) == (pytest.approx(1.3), pytest.approx(0.7), 4)
    found = fit(sums, 2 * sums - 0.5)
    assert found.offset == 0 and 1 < found.scale < 2
    found = fit(sums, 6 - sums)
    assert found.offset == 0 and found.scale > 0


@pytest.mark.slow
def test_drawn_networks_differ_and_a_small_space_has_as_many_as_it_has() -> None:
    found = draw(SPACE, SKELETON, 30, np.random.default_rng(0))
    assert len({architecture.hash for architecture in found}) == len(found) == 30
    tiny = spaces["nasbench201"](cells=5, channels=2, normal_ops=("conv_1x1", "conv_3x3"))
    assert 50 < len(draw(tiny, SKELETON, 100, np.random.default_rng(0))) <= 64


@pytest.mark.slow
def test_this_machine_is_measured_and_judged_by_networks_it_was_not_fitted_on() -> None:
    bench = Bench(torch.device("cpu"), part_seconds=0.01, network_seconds=0.02)
    before = torch.random.get_rng_state()
    judged = measure_profile("here", "nasbench201", SPACE, [SKELETON], bench, train=6, held_out=10, power_w=12.0)
    assert torch.equal(before, torch.random.get_rng_state())
    profile = judged.profile
    assert {row.part for row in profile.parts} == parts_on(SPACE, SKELETON)
    assert all(row.ms is not None and row.ms > 0 for row in profile.parts)
    assert profile.latency is not None and profile.latency.n == 6
    (seen,) = profile.latency_validation
    assert (seen.n, seen.space, seen.cells, seen.input) == (10, "nasbench201", 5, (1, 8, 8))
    held = draw(SPACE, SKELETON, 16, np.random.default_rng(0))[:10]
    assert [profile.predict(each, "ms") for each in held] == pytest.approx(list(judged.predicted))
    assert seen.tau == kendall_tau(judged.predicted, judged.first)
    assert seen.tau_repeat == kendall_tau(judged.first, judged.second)
    assert seen.mape == pytest.approx(100 * np.mean(np.abs(judged.predicted / judged.first - 1)))
    assert DeviceProfile.from_json(profile.to_json()) == profile


@pytest.mark.slow
def test_a_space_of_few_networks_cannot_be_held_out() -> None:
    one = spaces["nasbench201"](cells=5, channels=2, normal_ops=("conv_1x1",))
    with pytest.raises(ProfileError, match="gave 1 different networks; a profile needs 4"):
        measure_profile("here", "nasbench201", one, [SKELETON], Bench(torch.device("cpu")))
