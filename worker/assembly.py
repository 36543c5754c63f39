"""From a job's JSON to the objects that run it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from nas_core import settings as forms
from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture, Genotype, Skeleton
from nas_core.costs import Resource
from nas_core.data import Splits, without_images
from nas_core.datasets import datasets
from nas_core.errors import InvalidGenotypeError, ObjectiveError, TableError
from nas_core.events import Glance, unseen
from nas_core.masks import Masks
from nas_core.objectives import objectives
from nas_core.profiles import DeviceProfile
from nas_core.recipe import Recipe
from nas_core.search import (
    Axes,
    Bound,
    Budget,
    ExactObjective,
    Objective,
    Problem,
    SearchAlgorithm,
    SearchSpace,
)
from nas_core.seeds import read_genotype
from nas_core.spaces import spaces
from nas_core.tables import Table, Tabulated
from nas_core.valuing import data_value, exact_value, measured_values
from skyline.schemas import JobSpec, ObjectiveSpec
from skyline.schemas.jobs import QUALITIES, TABULAR
from worker.profiles import stored_profile

NO_TABLES: Mapping[str, Table] = {}
HEADROOM = 1.1
"""A measured or predicted objective's default reference is the ceiling network's value, worse by this factor."""


def axes_of(
    spec: JobSpec,
    tables: Mapping[str, Table] = NO_TABLES,
    profile_of: Callable[[str], DeviceProfile] = stored_profile,
) -> Axes:
    """Objectives by key with their bounds; ``tables``: those that they are looked up in; ``profile_of``: a device's
    profile by its SHA-256.

    Raises UnknownNameError, InvalidSettingsError, TableError or ProfileError.
    """
    made = {objective.effective_key: _objective(objective, tables, profile_of) for objective in spec.objectives}
    return Axes(made, {key: Bound(bound.min, bound.max) for key, bound in spec.constraints.items()})


def _objective(
    objective: ObjectiveSpec, tables: Mapping[str, Table], profile_of: Callable[[str], DeviceProfile]
) -> Objective:
    what = f"objective '{objective.name}'"
    if not objective.from_table:
        asked = forms.parse(objectives[objective.name], objective.settings, what)
        if hasattr(asked, "predicts"):
            asked = asked.on(None if asked.profile is None else profile_of(asked.profile))
        made: Objective = asked
        return made
    wanted: Any = forms.parse(objectives[TABULAR], objective.settings, what)
    if wanted.table not in tables:
        raise TableError(f"{what}: there is no table '{wanted.table}' here; known: {', '.join(tables) or 'none'}")
    return Tabulated(tables[wanted.table], wanted.column, objective.name if objective.name in QUALITIES else None)


def splits_of(spec: JobSpec, root: Path, tables: Mapping[str, Table] = NO_TABLES) -> Splits:
    """Of a job without a data set parts without images, of the shape that its first table has values for.

    Raises DatasetMissingError or DatasetError.
    """
    if spec.dataset is None:
        skeleton = next(iter(tables.values())).skeleton
        return without_images(skeleton.input, skeleton.classes)
    dataset = forms.parse(datasets[spec.dataset.name], spec.dataset.settings, f"data set '{spec.dataset.name}'")
    splits: Splits = dataset.splits(root, spec.seed, spec.dataset.fraction)
    return splits


def recipe_of(spec: JobSpec) -> Recipe:
    """How the job wants its networks verified."""
    verify = spec.verify
    return Recipe(
        epochs=verify.epochs,
        batch=verify.batch,
        lr=verify.lr,
        weight_decay=verify.weight_decay,
        drop_path=verify.drop_path,
        auxiliary=verify.auxiliary,
        augment=verify.augment,
        cutout=verify.cutout,
        label_smoothing=verify.label_smoothing,
    )


@dataclass(frozen=True)
class Plan:
    """A job made ready to run."""

    problem: Problem[Any]
    algorithm: SearchAlgorithm


def plan_of(
    spec: JobSpec,
    root: Path,
    device: torch.device,
    between_steps: Callable[[], None] = lambda: None,
    glance: Glance = unseen,
    quietly: Callable[[], AbstractContextManager[None]] = nullcontext,
    time_is_up: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda text: None,
    pieces: int = 1,
    tables: Mapping[str, Table] = NO_TABLES,
    inherited: Mapping[str, Any] | None = None,
    masks: Mapping[str, Masks] | None = None,
) -> Plan:
    """Raises a NasCoreError that says what is wrong with the job."""
    space: SearchSpace = forms.parse(spaces[spec.space.name], spec.space.settings, f"space '{spec.space.name}'")
    algorithm: SearchAlgorithm = forms.parse(
        algorithms[spec.algorithm.name], spec.algorithm.settings, f"algorithm '{spec.algorithm.name}'"
    )
    splits = splits_of(spec, root, tables)
    targets = targets_of(spec, space, splits)
    problem = Problem(
        space=space,
        axes=axes_of(spec, tables),
        skeleton=space.skeleton(splits.input, splits.classes),
        targets=targets,
        budget=Budget(spec.budget.evaluations, spec.budget.epochs),
        seed=spec.seed,
        rng=np.random.default_rng(spec.seed),
        device=device,
        splits=splits,
        seeds=seeds_of(spec, space, targets),
        between_steps=between_steps,
        glance=glance,
        time_is_up=time_is_up,
        quietly=quietly,
        warn=warn,
        pieces=pieces,
        inherited=inherited,
        masks=dict(masks or {}),
    )
    return Plan(problem, algorithm)


def seeds_of(spec: JobSpec, space: SearchSpace, targets: Sequence[Skeleton]) -> tuple[Genotype, ...]:
    """Raises InvalidGenotypeError for one that the space does not hold, or that a target has no place for.

    The API has looked at them already where it knows the space.
    """
    found: dict[str, Genotype] = {}
    for index, document in enumerate(spec.seed_genotypes):
        try:
            genotype = read_genotype(document)
            space.check(genotype)
            for target in targets:
                Architecture(genotype, target).check()
        except InvalidGenotypeError as error:
            raise InvalidGenotypeError(f"seed_genotypes[{index}]: {error}") from error
        found.setdefault(genotype.key(), genotype)
    return tuple(found.values())


def targets_of(spec: JobSpec, space: SearchSpace, splits: Splits) -> tuple[Skeleton, ...]:
    """The skeletons of the networks wanted, one for each width."""
    target = spec.target
    widths: list[int | None] = [*target.widths] if target.widths else [None]
    return tuple(
        space.skeleton(splits.input, splits.classes, cells=target.cells, channels=width, stem=target.stem)
        for width in widths
    )


def reference_point(problem: Problem[Any], given: Mapping[str, float]) -> dict[str, float]:
    """Complete, by objective key and in its unit. What is not given: chance, an error of 1 - 1/classes; exact costs the
    ceiling at the target; of a table the worst value of the column; measured ones a tenth worse than the ceiling
    network, measured now. What is maximised may be worst at the floor instead, so there both are looked at.

    Raises ObjectiveError where an objective has no value of these networks.
    """
    return {
        key: given[key] if key in given else _worst(problem, key, objective)
        for key, objective in problem.axes.objectives.items()
    }


def _worst(problem: Problem[Any], key: str, objective: Objective) -> float:
    worst = max if objective.direction == "minimize" else min
    if objective.source == "data":
        chance = 1.0 - 1.0 / problem.splits.classes
        found = data_value(key, objective, chance, "trained", {}).value
    elif objective.source == "exact":
        networks = _extremes(problem, cast(ExactObjective, objective).resource, objective)
        found = worst(exact_value(key, objective, network).value for network in networks)
        if getattr(objective, "roughly", False):
            found = worst(found * HEADROOM, found / HEADROOM)
    elif objective.source == "tabular":
        found = _worst_of_table(problem, cast(Tabulated, objective))
    else:
        with problem.quietly():
            values = measured_values(key, objective, _extremes(problem, "macs", objective), problem.device)
        found = worst(value.value for value in values)
        found = worst(found * HEADROOM, found / HEADROOM)
    if not math.isfinite(found):
        raise ObjectiveError(
            f"objective '{key}' gave {found} for an extreme network; reference_point.{key} may be given"
        )
    return found


def _worst_of_table(problem: Problem[Any], objective: Tabulated) -> float:
    """Chance, of an error or accuracy; else the worst value of the column."""
    if objective.quality is not None:
        chance = 1.0 - 1.0 / problem.splits.classes
        return chance if objective.quality == "error" else 1.0 - chance
    return objective.range.high if objective.direction == "minimize" else objective.range.low


def _extremes(problem: Problem[Any], resource: Resource, objective: Objective) -> list[Architecture]:
    """At each target the dearest network; of an objective that is maximised the cheapest, too."""
    ends = (True,) if objective.direction == "minimize" else (True, False)
    return [Architecture(problem.space.extreme(t, resource, end), t) for end in ends for t in problem.targets]
