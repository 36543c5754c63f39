"""Making genotypes that were not tried before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from nas_core.architecture import Genotype

TRIES = 200
"""Draws in a row that may bring nothing new before a space counts as used up."""


def untried(genotypes: Iterable[Genotype], count: int, seen: Collection[str]) -> list[Genotype]:
    """The first ``count`` of the genotypes that differ from one another and from the keys ``seen``."""
    known = set(seen)
    found: list[Genotype] = []
    for genotype in genotypes:
        if len(found) == count:
            break
        if genotype.key() not in known:
            known.add(genotype.key())
            found.append(genotype)
    return found


def distinct(
    draw: Callable[[], Genotype], count: int, seen: Collection[str], first: Iterable[Genotype] = ()
) -> list[Genotype]:
    """Up to ``count`` genotypes that differ from one another and from the keys ``seen``: of ``first`` as many as there
    are, then what is drawn.
    """
    found = untried(first, count, seen)
    known = {*seen, *(genotype.key() for genotype in found)}
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
