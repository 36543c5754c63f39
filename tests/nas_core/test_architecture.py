"""Architectures: JSON both ways, one hash, clear refusals."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.architecture import Architecture, CellType, Edge, Genotype, genotype_from_json, skeleton_from_json
from nas_core.costs import OPS, count
from nas_core.errors import InvalidGenotypeError, NasCoreError, UnknownNameError
from nas_core.network import Network
from nas_core.spaces.darts import DartsCells
from tests.fuzz import fuzzed

SPACE = DartsCells(cells=5, channels=8)
SKELETON = SPACE.skeleton((3, 32, 32), 10)


def architecture(seed: int = 0) -> Architecture:
    return Architecture(SPACE.sample(np.random.default_rng(seed)), SKELETON)


@given(st.integers(0, 2**32 - 1))
def test_json_goes_both_ways(seed: int) -> None:
    original = architecture(seed)
    back = Architecture.from_json(json.loads(json.dumps(original.to_json())))
    assert back == original
    assert back.hash == original.hash


def test_edges_are_a_multiset_and_canonically_sorted() -> None:
    edges = [Edge(2, 1, "skip_connect"), Edge(2, 0, "sep_conv_3x3"), Edge(2, 0, "sep_conv_3x3")]
    cells = [CellType(tuple(order), nodes=1, concat=(2,)) for order in (edges, edges[::-1])]
    assert cells[0] == cells[1]
    assert len(cells[0].edges) == 3


def test_hash_covers_both_halves() -> None:
    one = architecture()
    wider = one.on(replace(SKELETON, channels=16))
    other = architecture(1)
    assert len({one.hash, wider.hash, other.hash}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["genotype"]["types"]["normal"]["edges"][0].update(source=9), "runs backwards"),
        (lambda d: d["genotype"]["types"]["normal"]["edges"][0].update(target=9), "ends outside the nodes 2..5"),
        (lambda d: d["genotype"]["types"]["normal"]["edges"].clear(), "has no input"),
        (lambda d: d["genotype"]["types"]["normal"].update(concat=[7]), "must name distinct nodes"),
        (lambda d: d["genotype"]["types"]["normal"].update(colour="red"), "/genotype/types/normal/colour"),
        (lambda d: d["skeleton"].update(channels="8"), "/skeleton/channels"),
        (lambda d: d["skeleton"].update(classes=1), "classes >= 2"),
        (lambda d: d["skeleton"].update(channels=1), "channels >= 2.* got 5 cells, 1 channels"),
        (
            lambda d: d["genotype"]["types"]["normal"].update(width=1),
            "'normal': has width 1; at least 2 is wanted",
        ),
        (
            lambda d: d["genotype"]["types"]["normal"].update(inputs=3),
            "'normal': has 3 inputs; .* at most 2 before",
        ),
        (lambda d: d["genotype"]["types"]["normal"].update(nodes=10**18), "node 6 has no input"),
        (lambda d: d["genotype"].update(space=10**5000), "no JSON document: Exceeds the limit"),
        (lambda d: d["genotype"].update(space={1, 2}), "no JSON document: Object of type set"),
        (lambda d: d["skeleton"].update(cells=["normal", "strange"]), "cells of type strange"),
    ],
)
def test_faults_are_named(change, message) -> None:  # type: ignore[no-untyped-def]
    data = architecture().to_json()
    change(data)
    with pytest.raises(InvalidGenotypeError, match=message):
        Architecture.from_json(data)


def test_genotype_keys_ignore_the_order_of_types() -> None:
    genotype = architecture().genotype
    turned = Genotype(genotype.space, dict(reversed(genotype.types.items())))
    assert turned.key() == genotype.key()


def test_equal_edges_but_for_an_idle_weight_stand_in_one_order() -> None:
    """A weight of 1 says what none says, and -0 what 0 says: the documents differ, but not by the order of writing."""
    for weights in ((None, 1.0), (0.0, -0.0)):
        edges = [Edge(1, 0, "skip_connect", weight=weight) for weight in weights]
        keys = {
            Genotype("made up", {"a": CellType(tuple(order), 1, 1, concat=(1,), pre=("conv_1x1",))}).key()
            for order in (edges, edges[::-1])
        }
        assert len(keys) == 1


def test_a_preprocessing_that_nothing_builds_is_named_by_all_that_build() -> None:
    data = architecture().to_json()
    data["genotype"]["types"]["normal"]["pre"] = ["conv_1x1", "skip_connect"]
    odd = Architecture.from_json(data)
    for build in (count, Network):
        with pytest.raises(UnknownNameError, match="unknown preprocessing op 'skip_connect'; known: conv_1x1"):
            build(odd)


# --- documents that nobody wrote --------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NUMBERS = st.integers(-1, 9) | st.sampled_from([2**31, 2**63, 10**30, -(10**30), 1.5, 1e308, np.inf, np.nan])
FIELDS = st.sampled_from(
    ["genotype", "skeleton", "types", "edges", "target", "source", "op", "width", "weight", "inputs", "nodes", "pre"]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=4),
)
VALUES = (
    NUMBERS
    | ANYTHING
    | st.sampled_from([*OPS, "concat", "last", "cifar", "imagenet", "normal", "reduce", "sep_conv_9x9"])
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a document."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)) if isinstance(value, list) else [])
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document in which some things were changed, taken away or moved."""
    data = architecture(draw(st.integers(0, 3))).to_json()
    for _ in range(draw(st.integers(1, 4))):
        container, key = draw(st.sampled_from(places(data)))
        match draw(st.sampled_from(["set", "set", "drop", "swap"])):
            case "set":
                container[key] = draw(VALUES)
            case "drop":
                del container[key]
            case _:
                other, place = draw(st.sampled_from(places(data)))
                container[key] = json.loads(json.dumps(other[place]))
        if not places(data):
            break
    return data


def parsed(data: Any) -> Architecture | None:
    """None for the clear error."""
    try:
        return Architecture.from_json(data)
    except InvalidGenotypeError as error:
        said = str(error)
    assert said and len(said) < 2000
    return None


@fuzzed(8)
@given(data=ANYTHING, text=st.text(max_size=60) | st.text(alphabet='{}[]",:0123456789eE-+.nul', max_size=60))
def test_any_document_is_refused_in_words(data: Any, text: str) -> None:
    assert parsed(data) is None
    assert parsed(text) is None
    for read in (genotype_from_json, skeleton_from_json):
        for document in (data, text):
            with pytest.raises(InvalidGenotypeError):
                read(document)


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, '{"genotype":' * 10**4, "9" * 10**5, "\ud800", '"\\ud800"', "\0", "NaN", "1e999", '{"a":1,"a":2}'],
)
def test_texts_that_break_readers(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.slow
@fuzzed(16)
@given(data=mutated())
def test_a_mutated_document_is_an_architecture_or_refused_in_words(data: dict[str, Any]) -> None:
    found = parsed(data)
    if found is None:
        return
    assert Architecture.from_json(found.to_json()) == found
    try:
        cost = count(found)
    except NasCoreError:  # ops that are not known, maps that do not meet
        with pytest.raises(NasCoreError), torch.device("meta"):
            Network(found)
        return
    assert cost.params > 0
    if cost.params < 10**9 and len(found.skeleton.cells) < 50:
        with torch.device("meta"):
            built = Network(found)
        assert sum(parameter.numel() for parameter in built.parameters()) == cost.params
