"""Jobs made from a catalog: valid ones, from the forms that workers published, and ones that miss by a little."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from nas_core.costs import OPS

Json = Any
MEANT = {"latency_ms": ("runtime", "batch", "threads", "seconds"), "energy_mj": ("batch",)}
"""Settings that go together whatever they are, of objectives that may be measured or predicted."""
MOST = 1e15
"""More than any network of these spaces costs."""
FEWEST = 5
"""Cells: three levels want as many."""
MOST_SHRUNK = 2
"""Of the images of any data set here something is left then."""
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


def value_of(form: Mapping[str, Any], root: Mapping[str, Any]) -> SearchStrategy[Json]:
    """What a part of a form (JSON Schema, as pydantic writes it) takes."""
    if "$ref" in form:
        return value_of(root["$defs"][form["$ref"].rpartition("/")[2]], root)
    if "anyOf" in form or "oneOf" in form:
        return st.one_of([value_of(branch, root) for branch in form.get("anyOf") or form["oneOf"]])
    if "enum" in form or "const" in form:
        return st.sampled_from(form.get("enum") or [form["const"]])
    match form["type"]:
        case "object":
            return settings_of(form, root)
        case "array":
            return st.lists(
                value_of(form["items"], root), min_size=form.get("minItems", 0), max_size=form.get("maxItems", 4)
            )
        case "integer":
            least = form.get("minimum", form.get("exclusiveMinimum", -1) + 1)
            return st.integers(least, min(form.get("maximum", least + 1000), least + 1000))
        case "number":
            return st.floats(
                form.get("minimum", form.get("exclusiveMinimum")),
                form.get("maximum", form.get("exclusiveMaximum")),
                exclude_min="exclusiveMinimum" in form,
                exclude_max="exclusiveMaximum" in form,
                allow_nan=False,
                allow_infinity=False,
            )
        case "string":
            return TEXT.filter(lambda text: form.get("minLength", 0) <= len(text) <= form.get("maxLength", 20))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    raise AssertionError(f"no strategy for {form}")


def settings_of(form: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> SearchStrategy[dict[str, Json]]:
    """Some of the settings that a form knows, and all that it wants."""
    made = {name: value_of(part, root or form) for name, part in form.get("properties", {}).items()}
    wanted = set(form.get("required", ()))
    return st.fixed_dictionaries(
        {name: made[name] for name in sorted(wanted)},
        optional={name: part for name, part in made.items() if name not in wanted},
    )


@st.composite
def valid(draw: DrawFn, catalog: Mapping[str, Any], hands_on: bool = False) -> dict[str, Json]:
    """A job that has to be taken; with ``hands_on`` one whose search others can go on from."""
    searching = [each for each in catalog["algorithms"] if not each["facts"].get("needs_seeds")]
    if hands_on:
        searching = [each for each in searching if each["facts"].get("hands_on")]
    algorithm = draw(st.sampled_from(searching))
    space = draw(st.sampled_from([e for e in catalog["spaces"] if e["name"] in algorithm["facts"]["spaces"]]))
    dataset = draw(st.sampled_from(catalog["datasets"]))
    spec: dict[str, Json] = {
        "space": {"name": space["name"], **draw(_space_settings(space))},
        "dataset": {"name": dataset["name"], **draw(_dataset_settings(dataset))},
        "objectives": draw(_objectives(catalog["objectives"])),
        "algorithm": {"name": algorithm["name"], **draw(settings_of(algorithm["settings"]))},
    }
    evaluate = spec["algorithm"].get("evaluate")
    if isinstance(evaluate, dict) and "shrink" in evaluate:
        evaluate["shrink"] = min(evaluate["shrink"], MOST_SHRUNK)
    bounded = [(_key(objective), _name(objective)) for objective in spec["objectives"]]
    optional = {
        "name": TEXT,
        "target": _targets(),
        "constraints": _some({key: _bound(name) for key, name in bounded}),
        "reference_point": _some({key: _reference(name) for key, name in bounded}),
        "budget": st.fixed_dictionaries(
            {},
            optional={
                "evaluations": st.integers(1, 10**6),
                "epochs": st.integers(1, 10**4),
                "max_seconds": st.none() | st.floats(0, 604_800, exclude_min=True),
            },
        ),
        "verify": st.fixed_dictionaries(
            {},
            optional={
                "top": st.integers(1, 1000),
                "epochs": st.integers(1, 10**4),
                "seeds": st.integers(1, 20),
                "lr": st.floats(0, 10, exclude_min=True),
                "drop_path": st.floats(0, 1, exclude_max=True),
                "augment": st.booleans(),
            },
        ),
        "resources": st.fixed_dictionaries({}, optional={"device": st.sampled_from(["cpu", "cuda"])}),
        "seed": st.integers(0, 2**63 - 1),
        "labels": st.dictionaries(NAMES, TEXT, max_size=3),
    }
    return {**spec, **draw(st.fixed_dictionaries({}, optional=optional))}


@st.composite
def going_on(draw: DrawFn, catalog: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Json]:
    """A job that has to be taken, and goes on from this one as it was answered."""
    spec = draw(valid(catalog, hands_on=True))
    own = job["spec"]
    facts = next(each["facts"] for each in catalog["algorithms"] if each["name"] == own["algorithm"]["name"])
    for part in ("space", "dataset", "algorithm", "seed"):
        mine = spec.pop(part, None)
        if draw(st.booleans()):
            spec[part] = own[part]
        if part == "algorithm" and part in spec and mine["name"] == own[part]["name"]:
            spec[part] = {**own[part], **{name: mine[name] for name in facts["redone"] if name in mine}}
    return {**spec, "from": job["id"]}


@st.composite
def preset(draw: DrawFn, catalog: Mapping[str, Any], name: str, job: Mapping[str, Any]) -> dict[str, Json]:
    """A job that has to be taken, and leaves fields of its own to a preset."""
    spec = draw(valid(catalog))
    for part, own in job.items():
        mine = spec.pop(part, {})
        same = "name" not in own or mine["name"] == own["name"]
        if part == "dataset" or (same and draw(st.booleans())):
            spec[part] = {key: value for key, value in mine.items() if key != "name" or part == "dataset"}
    return {**spec, "preset": name}


def _space_settings(space: Mapping[str, Any]) -> SearchStrategy[dict[str, Json]]:
    """Small networks: what counts is whether they are counted, not how long that takes."""
    ops = st.lists(st.sampled_from(sorted(set(OPS) - {"none"})), min_size=1, max_size=5, unique=True)
    known: dict[str, SearchStrategy[Json]] = {
        "cells": st.integers(FEWEST, 12),
        "levels": st.sampled_from([1, 3]),  # with one type a position, targets could be no deeper
        "filters": st.just(False),  # it wants those types
        "channels": st.integers(2, 64),
        "nodes": st.integers(1, 4),
        "normal_ops": ops,
        "reduce_ops": ops,
    }
    form = space["settings"]
    made = {name: known.get(name, value_of(part, form)) for name, part in form.get("properties", {}).items()}
    return st.fixed_dictionaries({}, optional=made)


def _dataset_settings(dataset: Mapping[str, Any]) -> SearchStrategy[dict[str, Json]]:
    files = [file for part in dataset["workers"].values() for file in part["files"]]
    enough = st.floats(0.1, 1)  # less may leave a class without images for a part
    fraction = st.fixed_dictionaries({}, optional={"fraction": enough})
    if files:
        return st.tuples(fraction, st.sampled_from(files)).map(lambda both: {**both[0], "path": both[1]})
    return fraction


@st.composite
def _objectives(draw: DrawFn, entries: list[dict[str, Any]]) -> list[Json]:
    quality = draw(st.sampled_from([entry for entry in entries if entry["name"] in ("error", "accuracy")]))
    rest = [entry for entry in entries if entry["facts"]["source"] != "tabular"]  # no table is registered
    others = draw(st.lists(st.sampled_from(rest), max_size=3, unique_by=lambda entry: entry["name"]))
    chosen = [quality, *(entry for entry in others if entry["name"] != quality["name"])]
    made: list[Json] = []
    for number, entry in enumerate(draw(st.permutations(chosen))):
        settings = draw(settings_of(entry["settings"]))
        settings.pop("device", None)  # whose it is decides the key
        settings = {name: value for name, value in settings.items() if name in MEANT.get(entry["name"], settings)}
        key = draw(st.sampled_from([{}, {"key": f"own-{number}"}]))
        short = not settings and not key and draw(st.booleans())
        made.append(entry["name"] if short else {"name": entry["name"], **settings, **key})
    return made


def _name(objective: Json) -> str:
    found: str = objective if isinstance(objective, str) else objective["name"]
    return found


def _key(objective: Json) -> str:
    return objective if isinstance(objective, str) else objective.get("key", objective["name"])


def _bound(name: str) -> SearchStrategy[Json]:
    if name in ("error", "accuracy"):  # on the better side: an error and an accuracy must not contradict each other
        better = "max" if name == "error" else "min"
        return st.floats(0, 1).map(lambda limit: {better: limit}) | st.just({"min": 0, "max": 1})
    return st.floats(MOST, 1e300).map(lambda limit: {"max": limit}) | st.just({"min": 1})


def _reference(name: str) -> SearchStrategy[Json]:
    return st.floats(0.01, 0.99) if name in ("error", "accuracy") else st.floats(MOST, 1e300)


def _targets() -> SearchStrategy[Json]:
    widths = st.lists(st.integers(2, 64), min_size=1, max_size=3, unique=True)
    parts = {
        "cells": st.integers(FEWEST, 12) | st.none(),
        "channels": widths | st.integers(2, 64) | st.none(),
        "stem": st.sampled_from(["auto", "cifar", "imagenet", None]),
    }
    return st.fixed_dictionaries({}, optional=parts)


def _some(parts: dict[str, SearchStrategy[Json]]) -> SearchStrategy[dict[str, Json]]:
    return st.fixed_dictionaries({}, optional=parts)


# --- near misses ------------------------------------------------------------------------------------------------------

SCALARS = st.sampled_from(
    [None, True, False, -1, 0, 1, 2.5, -0.0, 1e308, 2**63 - 1, 2**63, -(2**63), "", "auto", "error", "0", "..", "💥"]
)
CONTAINERS = st.sampled_from(["[]", "{}", "[1, 2]", '{"name": "darts"}']).map(json.loads)
VALUES = SCALARS | TEXT | CONTAINERS | st.integers()


@st.composite
def near_misses(draw: DrawFn, catalog: Mapping[str, Any]) -> dict[str, Json]:
    """A valid job in which one to three things were changed, taken away, added or doubled."""
    spec: dict[str, Json] = json.loads(json.dumps(draw(valid(catalog))))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(_containers(spec)))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        change = draw(st.sampled_from(["set", "set", "add", "drop"]))
        if change != "add" and keys:
            key = draw(st.sampled_from(keys))
            if change == "drop":
                del place[key]
            else:
                place[key] = draw(VALUES)
        elif isinstance(place, dict):
            place[
                draw(NAMES | st.sampled_from(["name", "from", "preset", "key", "path", "min", "channels", "epochs"]))
            ] = draw(VALUES)
        else:
            place.append(draw(st.sampled_from(place).map(copy.deepcopy) | VALUES if place else VALUES))
    return spec


def _containers(value: Json) -> list[Any]:
    inside = list(value.values()) if isinstance(value, dict) else value
    deeper = [found for item in inside if isinstance(item, dict | list) for found in _containers(item)]
    return [value, *deeper]
