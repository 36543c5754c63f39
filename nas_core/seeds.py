"""Known architectures to begin a search with, in the forms in which people have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.architecture import Genotype, genotype_from_json
from nas_core.errors import InvalidGenotypeError
from nas_core.spaces.darts import from_darts
from nas_core.spaces.nasbench201 import from_arch

FORMS = (
    'a genotype {"space": ..., "types": {...}}, an architecture {"genotype": ..., "skeleton": ...}, '
    'the form of DARTS {"normal": [["sep_conv_3x3", 0], ...], "normal_concat": [...], "reduce": ..., ...} (two ops for '
    "each node, or a list of them for each node) or "
    'of NAS-Bench-201 {"arch": "|nor_conv_3x3~0|+|...|+|...|"}'
)
"""In words, for messages."""


def read_genotype(document: Mapping[str, Any]) -> Genotype:
    """A genotype out of any of the FORMS; of an architecture, the skeleton is left aside.

    Raises InvalidGenotypeError that says what is wrong. Whether a space holds the genotype is for its ``check``.
    """
    if "genotype" in document:
        unknown = sorted(set(document) - {"genotype", "skeleton"})
        inner = document["genotype"]
        if unknown or not isinstance(inner, Mapping):
            what = f"unknown field '{unknown[0]}'" if unknown else f"its genotype is {str(inner)[:80]!r}"
            raise InvalidGenotypeError(f"{what}; an architecture has a genotype and a skeleton")
        return genotype_from_json(inner)
    if "normal" in document or "reduce" in document:
        return from_darts(document)
    if "arch" in document:
        unknown = sorted(set(document) - {"arch"})
        if unknown or not isinstance(document["arch"], str):
            what = f"unknown field '{unknown[0]}'" if unknown else f"its arch is {str(document['arch'])[:80]!r}"
            raise InvalidGenotypeError(f"{what}; a cell of NAS-Bench-201 is one string, |op~0|+|op~0|op~1|+...")
        return from_arch(document["arch"])
    if "types" in document:
        return genotype_from_json(document)
    named = ", ".join(sorted(map(str, document))[:8]) or "none"
    raise InvalidGenotypeError(f"it has the fields {named}; expected {FORMS}")
