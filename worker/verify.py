"""The verification task: trains one candidate on its target skeleton, from scratch or from what it inherits.

Its error is that on ``select``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.data import Splits
from nas_core.exports import Model, exports
from nas_core.masks import Masks
from nas_core.network import Network
from nas_core.recipe import Recipe
from nas_core.search import Axes
from nas_core.training import Training, misclassified, seed_of
from nas_core.values import Value
from nas_core.valuing import data_value, settled_value
from store import candidates, events, jobs, tasks
from store.artefacts import WEIGHTS
from store.session import reading
from store.settings import settings
from worker.assembly import axes_of, recipe_of, splits_of
from worker.attempt import Attempt
from worker.brought import files_of, masks_of, weights_of
from worker.files import stored
from worker.lookup import tables_of
from worker.recorder import SEARCH_SHARE, FrontKeeper, numbers

SUFFIX = ".safetensors"

log = logging.getLogger(__name__)


def run(attempt: Attempt) -> None:
    """Trains, stores the weights and the values; nothing is done twice."""
    assert attempt.candidate_id is not None, "a verification is of a candidate"
    with reading(settings().outage_seconds) as session:
        candidate = candidates.get(session, attempt.candidate_id)
        if candidates.values(session, [candidate.id], "final").get(candidate.id):
            return  # recorded by an attempt that died before it could say so
    architecture = Architecture.from_json(candidate.architecture)
    files = files_of(candidate.id)
    masks, weights = masks_of(attempt, architecture, files), weights_of(attempt, files)
    axes, recipe = axes_of(attempt.spec, tables_of(attempt.spec)), recipe_of(attempt.spec)
    splits = splits_of(attempt.spec, settings().data_root)
    log.info("verifying candidate %s (%s) on %s", candidate.id, architecture.hash[:12], attempt.device)
    errors, network, micro_batch = train(attempt, architecture, recipe, splits, masks, weights)
    start = attempt.spec.verify.start
    values = final_values(axes, architecture, errors, recipe, splits.select.size, micro_batch, masks, start)
    with attempt.scratch() as scratch:
        file = scratch / "weights"
        write_weights(file, architecture, network, splits, masks)
        with stored(attempt, candidate.id, WEIGHTS, SUFFIX, file) as session:
            candidates.set_final(session, candidate.id, {key: value.to_json() for key, value in values.items()})
            told: dict[str, Any] = {"id": str(candidate.id), "hash": candidate.hash, "stage": "final", "failure": None}
            told["values"] = {key: value.value for key, value in values.items()}
            events.append(session, attempt.job_id, [("candidate", told)])
            jobs.set_phase(
                session, attempt.job_id, progress=progress_of(tasks.counts(session, attempt.job_id, "verify"))
            )
            if set(axes.keys) <= set(values):  # nothing is left to be measured
                write_final_front(session, attempt.job_id, axes, attempt.reference_point)


def train(
    attempt: Attempt,
    architecture: Architecture,
    recipe: Recipe,
    splits: Splits,
    masks: Masks | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[list[float], Network, int | None]:
    """Errors on ``select`` of every replicate, the network of the first, and the images of a micro-batch where memory
    did not suffice for whole ones.
    """
    kept = attempt.load()
    errors: list[float] = list(kept["errors"]) if kept else []
    first: Mapping[str, Any] | None = kept["first"] if kept else None
    replicate = len(errors)
    current = kept["training"] if kept else None
    micro_batch: int | None = kept.get("micro_batch") if kept else None
    while replicate < attempt.spec.verify.seeds:
        training = Training(
            architecture,
            recipe,
            splits.train_and_validation,
            splits.augmentation,
            seed_of(attempt.spec.seed, architecture.hash, replicate),
            attempt.device,
            attempt.between_steps,
            attempt.glance,
            masks,
            weights,
        )
        if training.fresh:
            names = ", ".join(training.fresh)
            attempt.warn(f"of the inherited weights {names} do not fit these images, and begin from scratch")
        if current is not None:
            training.resume(current)
            current = None
        while not training.finished:
            trained = training.epoch()
            micro_batch = training.micro_batch or micro_batch
            state = {"errors": errors, "first": first, "training": training.state(), "micro_batch": micro_batch}
            attempt.save(state, now=attempt.flag.set or trained is None)
            if trained is None:
                attempt.warn(str(training.no_room and training.no_room.warning))
                continue
            which = f"training {replicate + 1} of {attempt.spec.verify.seeds}, epoch {training.done} of {recipe.epochs}"
            log.info("%s: loss %.4f", which, trained.loss)
            attempt.flag.check()
        errors = [*errors, misclassified(training.network, splits.select, attempt.device) / splits.select.size]
        log.info("training %d: error %.4f on %d images", replicate + 1, errors[-1], splits.select.size)
        if first is None:
            first = {name: tensor.detach().clone() for name, tensor in training.network.state_dict().items()}
        replicate += 1
        attempt.save({"errors": errors, "first": first, "training": None, "micro_batch": micro_batch})
    network = Network(architecture, auxiliary=recipe.auxiliary > 0)
    network.load_state_dict(dict(first or {}))
    return errors, network, micro_batch


def write_weights(
    file: Path, architecture: Architecture, network: Network, splits: Splits, masks: Masks | None = None
) -> None:
    """Writes the weights without the auxiliary head, in the format ``safetensors`` of exports.

    Its metadata tell the architecture, and the mean and standard deviation (by channel, in the units of the data set's
    images) that images are normalised by; with weight masks, how many parameters these leave.
    """
    nonzero = None if masks is None else count(architecture).params - masks.removed
    model = Model(architecture, network.state_dict(), tuple(splits.mean), tuple(splits.std), nonzero)
    exports[WEIGHTS]().write(model, file)


def final_values(
    axes: Axes,
    architecture: Architecture,
    errors: list[float],
    recipe: Recipe,
    images: int,
    micro_batch: int | None = None,
    masks: Masks | None = None,
    start: str = "scratch",
) -> dict[str, Value]:
    """All but the measured ones: those are taken side by side when every candidate is trained."""
    mean = sum(errors) / len(errors)
    detail: dict[str, Any] = {"epochs": recipe.epochs, "seeds": len(errors), "split": "select", "n": images}
    detail["start"] = start
    if len(errors) > 1:
        detail["by_seed"] = errors
    if micro_batch is not None:
        detail["micro_batch"] = micro_batch
    taken_away = None if masks is None else masks.removed
    values: dict[str, Value] = {}
    for key, objective in axes.objectives.items():
        if objective.source == "data":
            values[key] = data_value(key, objective, mean, "trained", detail)
        elif (value := settled_value(key, objective, architecture, taken_away)) is not None:
            values[key] = value
    return values


def progress_of(verifications: Mapping[str, int]) -> float:
    """Of the whole job, while the task that asks is about to end."""
    over = sum(count for status, count in verifications.items() if status not in ("queued", "running")) + 1
    return SEARCH_SHARE + (1 - SEARCH_SHARE) * over / (sum(verifications.values()) + 1)


def write_final_front(session: Any, job_id: UUID, axes: Axes, reference: Mapping[str, float]) -> FrontKeeper:
    """The front over everything that has all final values by now."""
    keeper = FrontKeeper(job_id, "final", axes, reference)
    for row in candidates.all_values(session, job_id, "final"):
        if row.status != "failed":
            keeper.add(row.candidate_id, row.target, numbers(row.values))
    keeper.write(session)
    return keeper
