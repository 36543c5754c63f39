"""Architectures: JSON both ways, one hash, clear refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.architecture import Architecture, CellType, Edge, Genotype
from nas_core.errors import InvalidGenotypeError
from nas_core.spaces.darts import DartsCells

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
