"""A candidate verified anew: what was asked for, and the rest as in its own job, make a job of the algorithm given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from api import names
from api.catalog import known
from api.errors import Fault, ProblemError, refusal
from api.posting import Spec
from api.shapes import shaped
from api.validation import Known, accept
from nas_core.architecture import Architecture
from nas_core.costs import sites
from nas_core.errors import InvalidGenotypeError, InvalidSettingsError
from nas_core.search import SearchSpace
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas import JobSpec, Problem, TransferSpec
from skyline.schemas.jobs import QUALITIES
from store import candidates, jobs
from store.artefacts import INHERITED

LABEL = "verifies"
"""Of the new job, where no labels are given: the candidate that it is of."""
MOST_LABELS = 32
PLACES = [[name] for name in TransferSpec.model_fields]
"""What a path into the body begins with."""


def prepare(candidate_id: UUID, document: Mapping[str, Any], session: Session) -> Callable[[], Spec]:
    """Reads the candidate, its job and the catalog; raises NotFoundError."""
    candidate = candidates.get(session, candidate_id)
    own = JobSpec.model_validate(jobs.get(session, candidate.job_id).spec)
    architecture = Architecture.from_json(candidate.architecture)
    files = candidates.artefacts_of(session, [candidate_id])[candidate_id]
    weights = next((file.sha256 for file in files if file.format == INHERITED), None)
    return partial(accepted, document, candidate_id, architecture, own, known(session), weights)


def accepted(
    document: Mapping[str, Any],
    candidate_id: UUID,
    architecture: Architecture,
    own: JobSpec,
    catalog: Known,
    weights: str | None = None,
) -> Spec:
    """The new job as it is stored; ``weights``: SHA-256 of those that the candidate brought from its search.

    Raises ProblemError, with places in ``document``.
    """
    wanted = shaped(TransferSpec, document, "Invalid verification", "the body")
    job = _composed(document, wanted, architecture, own)
    if job["dataset"] is not None and names.stale(job["dataset"], catalog.registered):
        del job["dataset"]["registered"]
    if wanted.labels is None and (LABEL in own.labels or len(own.labels) < MOST_LABELS):
        job["labels"] = {**own.labels, LABEL: str(candidate_id)}
    _note_weights(job["verify"], weights, candidate_id)
    _check_size(architecture, own, job["target"])
    try:
        return accept(job, catalog).stored
    except ProblemError as error:
        raise _within(error.problem, error.headers) from error


def _composed(
    document: Mapping[str, Any], wanted: TransferSpec, architecture: Architecture, own: JobSpec
) -> dict[str, Any]:
    given = {name: value for name, value in document.items() if value is not None}
    before = own.model_dump(mode="json")
    here = architecture.skeleton
    target = {"cells": len(here.cells), "channels": here.channels, "stem": here.stem, **given.get("target", {})}
    dataset = given.get("dataset", {})
    if own.dataset is None:
        dataset = dataset or None
    elif dataset.get("name", own.dataset.name) == own.dataset.name:
        dataset = {**before["dataset"], **dataset}
    before["objectives"] = [_to_be_learnt(objective) for objective in before["objectives"]]
    constraints = before["constraints"]
    if wanted.objectives is not None:
        keys = {objective.effective_key for objective in wanted.objectives}
        constraints = {key: bound for key, bound in constraints.items() if key in keys}
    channels = target["channels"]
    top = len(channels) if isinstance(channels, list) else 1
    return {
        "space": before["space"],
        "algorithm": {"name": "given", "evaluate": None},
        "seed_genotypes": [architecture.to_json()["genotype"]],
        "budget": {"evaluations": 1},
        "constraints": constraints,
        **{name: before[name] for name in ("name", "objectives", "seed", "labels")},
        **given,
        "target": target,
        "dataset": dataset,
        "verify": {**before["verify"], "top": top, **given.get("verify", {})},
        "resources": {**before["resources"], **given.get("resources", {})},
    }


def _to_be_learnt(objective: dict[str, Any]) -> dict[str, Any]:
    """An error or accuracy that was looked up is now trained for; any other objective as it is."""
    return {"name": objective["name"], "key": objective["key"]} if objective["name"] in QUALITIES else objective


def _note_weights(verify: dict[str, Any], weights: str | None, candidate_id: UUID) -> None:
    """Which weights the training begins with. Raises ProblemError where the candidate has none."""
    verify.pop("weights", None)
    if verify.get("start") != "inherited":
        return
    if weights is None:
        detail = (
            f"verify.start: 'inherited' wants weights that candidate {candidate_id} brought from its search, and it "
            "brought none; expected scratch"
        )
        raise refusal([Fault("Nothing to begin with", detail, "/verify/start", "inherited", "scratch")])
    verify["weights"] = weights


def _check_size(architecture: Architecture, own: JobSpec, target: Mapping[str, Any]) -> None:
    """Raises ProblemError where the network cannot be made so deep, or, with weight masks, not so wide; of a space that
    only workers know, they say so.
    """
    if own.space.name not in spaces:
        return
    try:
        space = parse(spaces[own.space.name], own.space.settings, f"space '{own.space.name}'")
        _check_depth(architecture, space, target["cells"])
        if architecture.genotype.masks is not None:
            _check_widths(architecture, space, target)
    except InvalidSettingsError:
        return  # no skeleton for anybody, as accept() says


def _check_depth(architecture: Architecture, space: SearchSpace, cells: int | None) -> None:
    here = architecture.skeleton
    if cells in (None, len(here.cells)):
        return
    try:
        architecture.on(space.skeleton(here.input, here.classes, cells=cells))
    except InvalidGenotypeError as error:
        expected = f"{len(here.cells)}, as the network has"
        raise refusal([Fault("Depth cannot be changed", str(error), "/target/cells", cells, expected)]) from error


def _check_widths(architecture: Architecture, space: SearchSpace, target: Mapping[str, Any]) -> None:
    here, types = architecture.skeleton, architecture.genotype.types
    own = [site.channels for site in sites(types, here)]
    given = target["channels"]
    for channels in given if isinstance(given, list) else [given]:
        if not isinstance(channels, int) or channels == here.channels:
            continue
        wider = replace(here, channels=space.skeleton(here.input, here.classes, channels=channels).channels)
        if [site.channels for site in sites(types, wider)] != own:
            detail = (
                f"target.channels: got {channels}; the network has weight masks, which stay with the widths that they "
                f"were found at ({here.channels}); its genotype without 'masks' may be made wider, as a seed of a job"
            )
            expected = f"{here.channels}, as the network has"
            raise refusal([Fault("Width cannot be changed", detail, "/target/channels", given, expected)])


def _within(problem: Problem, headers: Mapping[str, str]) -> ProblemError:
    """Faults of what the job was completed by have no place in the body."""
    errors = [
        fault if fault.path.split("/")[1:2] in PLACES else fault.model_copy(update={"path": ""})
        for fault in problem.errors
    ]
    return ProblemError(HTTPStatus(problem.status), problem.title, problem.detail, errors, headers)
