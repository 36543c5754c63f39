"""What a job would be, counted before it is posted. Everything here is exact or a limit; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence

from api.imagesets import Images
from api.lookups import SUPERNETS
from api.ranges import Range, counted, exact_range
from api.stages import most_evaluations
from api.validation import Accepted, costs
from nas_core.architecture import Skeleton
from nas_core.cuts import sizes
from skyline.schemas import (
    Bound,
    CatalogEntry,
    CostRange,
    Estimate,
    Figure,
    ImageCounts,
    JobSpec,
    ObjectiveSpec,
    SearchEstimate,
    Span,
    TargetEstimate,
    VerificationEstimate,
)

LATER = Figure(value=None, reason="not estimated yet")


def estimate(accepted: Accepted, workers: Sequence[str], waiting_for: str | None) -> Estimate:
    """``workers`` and ``waiting_for``: who could take the job, and what is needed where nobody could."""
    spec = JobSpec.model_validate(accepted.stored)
    search = _search(spec, accepted.entries["algorithm",], costs(spec, accepted.entries))
    return Estimate(
        valid=True,
        spec=spec,
        targets=_targets(spec, accepted),
        images=_images(spec, accepted.ground.images),
        search=search,
        verification=_verification(spec, search.candidates),
        workers=list(workers),
        waiting_for=waiting_for,
        memory=LATER,
        time=LATER,
    )


# --- costs ------------------------------------------------------------------------------------------------------------


def _targets(spec: JobSpec, accepted: Accepted) -> list[TargetEstimate]:
    exact = [
        (objective, accepted.entries["objectives", index])
        for index, objective in enumerate(spec.objectives)
        if accepted.entries["objectives", index].facts.get("source") == "exact"
    ]

    def ranges(skeleton: Skeleton | None) -> dict[str, CostRange]:
        return {one.effective_key: _range(spec, accepted, one, entry, skeleton) for one, entry in exact}

    if accepted.ground.space is None:
        widths: Sequence[int | None] = spec.target.widths or [None]
        wanted = spec.target
        return [
            TargetEstimate(cells=wanted.cells, channels=width, stem=wanted.stem, ranges=ranges(None))
            for width in widths
        ]
    return [
        TargetEstimate(
            cells=len(skeleton.cells), channels=skeleton.channels, stem=skeleton.stem, ranges=ranges(skeleton)
        )
        for skeleton in accepted.ground.skeletons
    ]


def _range(
    spec: JobSpec, accepted: Accepted, objective: ObjectiveSpec, entry: CatalogEntry, skeleton: Skeleton | None
) -> CostRange:
    bound = spec.constraints.get(objective.effective_key)
    resource = counted(entry)
    space = accepted.ground.space
    if space is None or skeleton is None:
        reason = f"only workers know space '{spec.space.name}'; its networks are counted there"
    elif resource is None:
        reason = f"the value of objective '{objective.name}' is no multiple of a count; workers say what it is"
    else:
        found = exact_range(space, skeleton, *resource)
        possible = Span(floor=found.floor, ceiling=found.ceiling)
        return CostRange(possible=possible, bound=bound, left=_left(found, bound), reason=None)
    return CostRange(possible=None, bound=bound, left=None, reason=reason)


def _left(possible: Range, bound: Bound | None) -> Span | None:
    floor, ceiling = (possible.floor, possible.ceiling) if bound is None else possible.left(bound)
    return Span(floor=floor, ceiling=ceiling) if floor <= ceiling else None


# --- counts -----------------------------------------------------------------------------------------------------------


def _images(spec: JobSpec, images: Images) -> ImageCounts:
    if spec.dataset is None:
        reason = "the job names no data set: its error comes from a table"
        return ImageCounts(train=None, validation=None, select=None, test=None, reason=reason)
    if images.train is None:
        reason = f"data set '{spec.dataset.name}' does not publish how many images it has"
        return ImageCounts(train=None, validation=None, select=None, test=images.test, reason=reason)
    cut = sizes(images.train, spec.dataset.fraction)
    return ImageCounts(train=cut.train, validation=cut.validation, select=cut.select, test=images.test, reason=None)


def _search(spec: JobSpec, algorithm: CatalogEntry, costs: list[str]) -> SearchEstimate:
    needs_seeds = algorithm.facts.get("needs_seeds")
    evaluations = len(spec.seed_genotypes) if needs_seeds else most_evaluations(spec, algorithm, costs)
    trainings, epochs, reason = _trained(spec, algorithm, evaluations)
    return SearchEstimate(
        evaluations=evaluations,
        candidates=evaluations * len(spec.target.widths or [None]),
        trainings=trainings,
        epochs=epochs,
        reason=reason,
    )


def _trained(spec: JobSpec, algorithm: CatalogEntry, evaluations: int) -> tuple[int | None, int | None, str | None]:
    """(trainings, epochs of all of them, why they are not known). Targets share a genotype's training."""
    if spec.looked_up and algorithm.facts.get("needs") not in SUPERNETS:
        return 0, 0, None
    if spec.origin is not None:
        reason = f"it goes on from job {spec.origin}; what algorithm '{algorithm.name}' trains anew is not published"
        return None, None, reason
    settings = spec.algorithm.settings
    match settings.get("evaluate"):
        case {"supernet_epochs": int(epochs)}:
            return 1, min(epochs, spec.budget.epochs), None
        case {"epochs": int(epochs)}:
            return evaluations, evaluations * epochs, None
        case None if "evaluate" in settings:
            return 0, 0, None
    if algorithm.facts.get("needs") in SUPERNETS:  # it trains a supernet of its own
        return 1, spec.budget.epochs, None
    return None, None, f"what algorithm '{algorithm.name}' trains is not published"


def _verification(spec: JobSpec, candidates: int) -> VerificationEstimate:
    verified = min(spec.verify.top, candidates)
    trainings = 0 if spec.looked_up else verified * spec.verify.seeds
    return VerificationEstimate(candidates=verified, trainings=trainings, epochs=trainings * spec.verify.epochs)
