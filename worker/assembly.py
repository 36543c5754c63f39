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
from nas_core.data import Splits
from nas_core.datasets import datasets
from nas_core.errors import InvalidGenotypeError, ObjectiveError
from nas_core.events import Glance, unseen
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
from nas_core.valuing import data_value, exact_value, measured_values
from skyline.schemas import JobSpec
from worker.profiles import stored_profile

HEADROOM = 1.1
"""A measured or predicted objective's default reference is the ceiling network's value, worse by this factor."""


def axes_of(spec: JobSpec, profile_of: Callable[[str], DeviceProfile] = stored_profile) -> Axes:
    """Objectives by key with their bounds. ``profile_of``: a device's profile by its SHA-256.

    Raises UnknownNameError, InvalidSettingsError or ProfileError.
    """
    made = {}
    for objective in spec.objectives:
        asked = forms.parse(objectives[objective.name], objective.settings, f"objective '{objective.name}'")
        if hasattr(asked, "predicts"):
            asked = asked.on(None if asked.profile is None else profile_of(asked.profile))
        made[objective.effective_key] = asked
    return Axes(made, {key: Bound(bound.min, bound.max) for key, bound in spec.constraints.items()})


def splits_of(spec: JobSpec, root: Path) -> Splits:
    """Raises DatasetMissingError or DatasetError."""
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
) -> Plan:
    """Raises a NasCoreError that says what is wrong with the job."""
    space: SearchSpace = forms.parse(spaces[spec.space.name], spec.space.settings, f"space '{spec.space.name}'")
    algorithm: SearchAlgorithm = forms.parse(
        algorithms[spec.algorithm.name], spec.algorithm.settings, f"algorithm '{spec.algorithm.name}'"
    )
    splits = splits_of(spec, root)
    targets = targets_of(spec, space, splits)
    problem = Problem(
        space=space,
        axes=axes_of(spec),
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
    ceiling at the target; measured ones a tenth worse than the ceiling network, measured now. What is maximised may be
    worst at the floor instead, so there both are looked at.

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


def _extremes(problem: Problem[Any], resource: Resource, objective: Objective) -> list[Architecture]:
    """At each target the dearest network; of an objective that is maximised the cheapest, too."""
    ends = (True,) if objective.direction == "minimize" else (True, False)
    return [Architecture(problem.space.extreme(t, resource, end), t) for end in ends for t in problem.targets]
