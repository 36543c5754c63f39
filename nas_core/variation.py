"""Making genotypes that were not tried before."""

from __future__ import annotations

from collections.abc import Callable, Collection

from nas_core.architecture import Genotype

TRIES = 200
"""Draws in a row that may bring nothing new before a space counts as used up."""


def distinct(draw: Callable[[], Genotype], count: int, seen: Collection[str]) -> list[Genotype]:
    """Up to ``count`` genotypes that differ from one another and from the keys ``seen``."""
    known = set(seen)
    found: list[Genotype] = []
    tries = 0
    while len(found) < count and tries < TRIES:
        genotype = draw()
        key = genotype.key()
        tries += 1
        if key not in known:
            known.add(key)
            found.append(genotype)
            tries = 0
    return found
