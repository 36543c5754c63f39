"""Known genotypes in a posted job: read in all their forms, held against the algorithm, the budget and the space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.errors import Fault, pointer
from nas_core.architecture import Architecture, Genotype, Skeleton, genotype_to_json
from nas_core.errors import InvalidGenotypeError
from nas_core.search import SearchSpace
from nas_core.seeds import FORMS, read_genotype
from skyline.schemas import CatalogEntry, JobSpec

FIELD = "seed_genotypes"
TOLD = 20
"""How many seeds an answer finds fault with; a wrong list is often wrong all along."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One of them, and where it stands in what was posted."""

    index: int
    genotype: Genotype

    @property
    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return genotype_to_json(self.genotype)


def read(spec: JobSpec) -> tuple[list[Seed], list[Fault]]:
    """The seeds, of equal ones the first, and those that are no genotypes."""
    found: dict[str, Seed] = {}
    faults: list[Fault] = []
    for index, document in enumerate(spec.seed_genotypes):
        try:
            genotype = read_genotype(document)
        except InvalidGenotypeError as error:
            faults.append(_fault(index, document, str(error), FORMS))
        else:
            found.setdefault(genotype.key(), Seed(index, genotype))
    return list(found.values()), faults[:TOLD]


def fit(spec: JobSpec, seeds: Sequence[Seed], algorithm: CatalogEntry) -> list[Fault]:
    """Whether the algorithm has the seeds that it needs, the budget holds them, and all are verified that nothing else
    is to be learnt of.
    """
    faults = []
    if algorithm.facts.get("needs_seeds") and not seeds:
        detail = f"algorithm '{algorithm.name}' evaluates {FIELD} and nothing else, and the job has none"
        faults.append(Fault("Missing field", detail, f"/{FIELD}", None, "at least one genotype"))
    budget = spec.budget.evaluations
    if len(seeds) > budget:
        expected = f"at least {len(seeds)}: each of the {FIELD} is an evaluation"
        detail = f"budget.evaluations: got {budget}; expected {expected}"
        faults.append(Fault("Budget too small", detail, "/budget/evaluations", budget, expected))
    candidates = len(seeds) * len(spec.target.widths or [None])
    settings = spec.algorithm.settings
    unscored = "evaluate" in settings and settings["evaluate"] is None and not spec.looked_up
    if unscored and candidates > spec.verify.top:
        expected = f"at least {candidates}: with algorithm.evaluate null every candidate is verified"
        detail = f"verify.top: got {spec.verify.top}; expected {expected}"
        faults.append(Fault("Too few verifications", detail, "/verify/top", spec.verify.top, expected))
    return faults


def misfits(seeds: Sequence[Seed], name: str, space: SearchSpace, skeletons: Sequence[Skeleton]) -> list[Fault]:
    """Seeds that lie outside the space, or cannot stand on the skeletons wanted."""
    faults = []
    for seed in seeds:
        try:
            space.check(seed.genotype)
            for skeleton in skeletons:
                Architecture(seed.genotype, skeleton).check()
        except InvalidGenotypeError as error:
            faults.append(_fault(seed.index, seed.document, str(error), f"a genotype of space '{name}' as it is set"))
    return faults[:TOLD]


def _fault(index: int, got: Any, why: str, expected: str) -> Fault:
    return Fault("Invalid genotype", f"{FIELD}[{index}]: {why}", pointer((FIELD, index)), got, expected)
