"""What a user posts: the job. Unknown fields are refused; the parts that belong to a plug-in carry its settings."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
OPEN = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True)
MOST_LETTERS = 100
Name = Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]
JobName = Annotated[str, Field(max_length=200)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Labels = Annotated[dict[Name, Annotated[str, Field(max_length=200)]], Field(max_length=32)]


def _id(value: Any) -> Any:
    """JSON has no ids: a text that is one stands for it."""
    if isinstance(value, str):
        with suppress(ValueError):
            return UUID(value)
    if isinstance(value, UUID):
        return value
    raise PydanticCustomError("job_id", "{text}", {"text": "the id of a job, as its answer has it"})


JobReference = Annotated[UUID, BeforeValidator(_id, json_schema_input_type=UUID)]

QUALITIES = ("error", "accuracy")
"""Objectives that say how good a network is, as fractions; a job has one of them."""
TABULAR = "tabular"
"""The objective that is a column of a table as it stands; a quality may be taken from one, too."""
NEEDED = "needed"
"""Type of the error of a field that only some jobs may leave out."""
ALIASES = {"latency": "latency_ms", "energy": "energy_mj"}
"""Objective names that are accepted and echoed under their full name."""


class Named(BaseModel):
    """A plug-in by name; every further field is one of its settings (their forms are in the catalog)."""

    model_config = OPEN

    name: Name

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SpaceSpec(Named):
    """The search space and the skeleton that is searched, such as ``{name: darts, cells: 8, channels: 16}``."""


class AlgorithmSpec(Named):
    """The search algorithm, such as ``{name: nsga2, population: 20}``."""


class DatasetSpec(Named):
    """The data set, such as ``{name: npz, path: mine.npz}``, or a registered one, such as ``{name: leaves}``."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training images used, drawn by class."""
    registered: Annotated[Name | None, Field(exclude_if=lambda name: name is None)] = None
    """Noted by the service: the registered data set that was asked for, whose settings stand here."""

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def called(self) -> str:
        """The name that the user gave."""
        return self.registered or self.name


MOST_SEEDS = 1000
"""Of one job."""


class TargetSpec(BaseModel):
    """Skeletons of the networks wanted: they are costed, bounded, verified and exported. Each width counts."""

    model_config = STRICT

    cells: Annotated[int, Field(ge=1, le=100)] | None = None
    """Cells of the network; default: as searched."""
    channels: (
        Annotated[list[Annotated[int, Field(ge=2, le=1024)]], Field(min_length=1, max_length=16)]
        | Annotated[int, Field(ge=2, le=1024)]
        | None
    ) = None
    """Channels of the first cell, one or several widths; default: as searched."""
    stem: Literal["auto", "cifar", "imagenet"] | None = None
    """auto = imagenet from 64 pixels; default: as searched."""

    @property
    def widths(self) -> list[int] | None:
        return [self.channels] if isinstance(self.channels, int) else self.channels


class ObjectiveSpec(Named):
    """An objective, such as ``{name: latency_ms, device: this-worker, batch: 1, key: lat}``; its values may be those
    of a registered table: ``{name: error, table: nb201, column: c10_valid_acc}``, and of whatever the table holds,
    ``{name: tabular, table: nb201, column: raspi4_ms}``.
    """

    key: Name | None = None
    """Its name within this job; default: the objective's name, with ``@device`` where a device is given; of `tabular`
    the column's."""

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def from_table(self) -> bool:
        """Whether its values are looked up."""
        return self.name == TABULAR or (self.name in QUALITIES and self.settings.get("table") is not None)

    @property
    def effective_key(self) -> str:
        if self.key is not None:
            return self.key
        column = self.settings.get("column")
        if self.name == TABULAR and isinstance(column, str) and 0 < len(column) <= MOST_LETTERS:
            return column
        device = self.settings.get("device")
        return f"{self.name}@{device}" if isinstance(device, str) and device != "this-worker" else self.name


def _objective(value: Any) -> Any:
    """``error`` stands for ``{name: error}``; ``latency`` for ``latency_ms``."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        value = {**value, "name": ALIASES.get(value["name"], value["name"])}
    return value


Objectives = Annotated[
    list[Annotated[ObjectiveSpec, BeforeValidator(_objective, json_schema_input_type=str | ObjectiveSpec)]],
    Field(min_length=1, max_length=8),
]


class Bound(BaseModel):
    """Bounds of an objective at the target, in its unit."""

    model_config = STRICT

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_and_in_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a bound needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"a min of at most the max, {self.max:.12g}; {self.min:.12g} lies above it")
        return self


class Budget(BaseModel):
    """The first one reached ends the search; verification follows."""

    model_config = STRICT

    evaluations: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Candidates scored."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Epochs of supernet training, where the algorithm has a supernet."""
    max_seconds: Annotated[float, Field(gt=0, le=604_800)] | None = None
    """Seconds of search, summed over attempts. Honoured, but not repeatable."""


class VerifySpec(BaseModel):
    """How the best of the search front are trained on the target skeleton, from scratch unless `start` says else."""

    model_config = STRICT

    top: Annotated[int, Field(ge=1, le=1000)] = 8
    """Candidates verified, chosen by rank of the search front, then hypervolume contribution."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    seeds: Annotated[int, Field(ge=1, le=20)] = 1
    """Trainings per candidate; values are means."""
    batch: Annotated[int, Field(ge=2, le=65_536)] = 96
    lr: Annotated[float, Field(gt=0, le=10)] = 0.025
    """Initial learning rate of SGD, cosine to 0."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 3e-4
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Final drop-path probability (linear ramp)."""
    auxiliary: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the auxiliary head's loss; 0: no auxiliary head."""
    augment: bool = True
    """Whether training images are varied as the data set says (crops, flips)."""
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side of the square cut out of each training image, pixels; 0: none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    start: Literal["scratch", "inherited"] = "scratch"
    """What a training begins with: fresh weights, as published, or those that the candidate brings from its search
    (`inherited`), which are tuned. The latter needs an algorithm that brings them (`brings_weights` in the catalog), or
    a candidate, to be verified anew, that has brought some."""
    weights: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$", exclude_if=lambda digest: digest is None)] = None
    """Noted by the service, where a candidate is verified anew from them: SHA-256 of its inherited weights."""


class Resources(BaseModel):
    """What a worker must have to take the job."""

    model_config = STRICT

    device: Literal["cpu", "cuda"] = "cpu"
    min_memory_gb: Annotated[float, Field(ge=0, le=10_000)] = 0.0


class JobSpec(BaseModel):
    """A search job. One that goes on `from` another takes `space`, `dataset`, `algorithm` and `seed` from that; they
    may be given, and must be the same. `target`, `budget`, `verify` and `resources` may be others; what is not given
    of each is as there. One that names a `preset` takes what it leaves out of `space`, `target`, `dataset`,
    `algorithm`, `budget` and `verify` from that, field by field. Answers have all of them.
    """

    model_config = ConfigDict(
        **STRICT,
        serialize_by_alias=True,
        json_schema_extra={
            "required": ["objectives"],
            "anyOf": [{"required": ["space", "algorithm"]}, {"required": ["from"]}, {"required": ["preset"]}],
            "examples": [
                {
                    "name": "digits-edge",
                    "space": {"name": "darts", "cells": 5, "channels": 8},
                    "dataset": {"name": "digits"},
                    "objectives": ["error", "params", "latency_ms"],
                    "constraints": {"params": {"max": 60000}},
                    "algorithm": {"name": "nsga2", "population": 16},
                    "budget": {"evaluations": 48},
                    "verify": {"top": 6, "epochs": 20},
                }
            ],
        },
    )

    name: JobName = ""
    origin: Annotated[JobReference | None, Field(alias="from", exclude_if=lambda job: job is None)] = None
    """Id of a job whose search this one goes on from, for other objectives, bounds or targets. Its algorithm has to be
    one that can (`hands_on` in the catalog); settings that this names there (`redone`) may be others."""
    preset: Annotated[Name | None, Field(exclude_if=lambda name: name is None)] = None
    """Settings by name, such as those of a paper (`presets` of the catalog); what this job says itself goes before. Its
    space and algorithm are the preset's. Not together with `from`."""
    space: SpaceSpec
    target: TargetSpec = TargetSpec()
    dataset: DatasetSpec | None = None
    """Not needed where the error or accuracy comes from a table and nothing is trained."""
    objectives: Objectives
    constraints: dict[Name, Bound] = Field(default_factory=dict)
    """By objective key."""
    reference_point: dict[Name, float] = Field(default_factory=dict)
    """By objective key; what is not given gets a default that is fixed before the first evaluation."""
    algorithm: AlgorithmSpec
    seed_genotypes: Annotated[list[dict[str, Any]], Field(max_length=MOST_SEEDS)] = Field(default_factory=list)
    """Known architectures that the search evaluates besides what it finds: genotypes as in a candidate's
    `architecture`, whole architectures, of which the genotype is taken, the form of DARTS, `{"normal":
    [["sep_conv_3x3", 0], ...], "normal_concat": [...], "reduce": ..., "reduce_concat": ...}`, or of NAS-Bench-201,
    `{"arch": "|nor_conv_3x3~0|+..."}`. They are stored as genotypes; of equal ones the first is kept."""
    budget: Budget = Budget()
    verify: VerifySpec = VerifySpec()
    resources: Resources = Resources()
    seed: Seed = 0
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _aliases(cls, document: Any) -> Any:
        """``constraints: {latency: ...}`` means the objective written as ``latency``."""
        if not isinstance(document, dict) or not isinstance(document.get("objectives"), list):
            return document
        objectives = [each for each in document["objectives"] if isinstance(each, dict)]
        own = [key for key in (each.get("key") for each in objectives) if isinstance(key, str)]
        resolved = dict(document)
        for part in ("constraints", "reference_point"):
            given = document.get(part)
            if isinstance(given, dict):
                renamed = {old: new for old, new in ALIASES.items() if old not in own and new not in given}
                resolved[part] = {renamed.get(key, key): value for key, value in given.items()}
        return resolved

    @model_validator(mode="after")
    def _keys(self) -> Self:
        keys = self.keys
        for index, key in enumerate(keys):
            if key in keys[:index]:
                text = f"objective keys must differ; '{key}' stands twice: give one of them a 'key'"
                raise _rule(text, f"a 'key' other than {', '.join(keys[:index])}", "objectives", index)
        for part, named in (("constraints", self.constraints), ("reference_point", self.reference_point)):
            for name in sorted(set(named) - set(keys)):
                text = f"{part} names '{name}', which is no objective of this job: {', '.join(keys)}"
                raise _rule(text, f"one of {', '.join(keys)}, or {name} among the objectives", part, name)
        if not any(objective.name in QUALITIES for objective in self.objectives):
            text = "objectives need 'error' or 'accuracy', the quality that costs are weighed against"
            raise _rule(text, "error or accuracy among them", "objectives")
        if self.dataset is None and not self.looked_up:
            text = "a value: it is required, unless error or accuracy come from a table"
            raise PydanticCustomError(NEEDED, "{text}", {"text": text, "path": ("dataset",)})
        return self

    @property
    def looked_up(self) -> bool:
        """Whether the quality of networks comes from a table, so that none is trained for it."""
        return all(objective.from_table for objective in self.objectives if objective.name in QUALITIES)

    @property
    def keys(self) -> list[str]:
        return [objective.effective_key for objective in self.objectives]


class TransferSpec(BaseModel):
    """How a candidate is to be verified anew: what is not given is as in the candidate's own job, its network being the
    target. In `target`, `verify`, `resources` and, unless it has another name, `dataset`, that holds for each field.
    """

    model_config = ConfigDict(
        **STRICT,
        json_schema_extra={
            "examples": [
                {
                    "dataset": {"name": "npz", "path": "mine/birds.npz"},
                    "target": {"cells": 14, "channels": [16, 24]},
                    "verify": {"epochs": 100},
                }
            ]
        },
    )

    dataset: DatasetSpec | None = None
    target: TargetSpec | None = None
    """Of several widths, each becomes a network."""
    verify: VerifySpec | None = None
    """`top` is the number of widths, unless it is given."""
    objectives: Objectives | None = None
    constraints: dict[Name, Bound] | None = None
    """By default those of the job whose objectives are still there."""
    resources: Resources | None = None
    seed: Seed | None = None
    name: JobName | None = None
    labels: Labels | None = None


def _rule(text: str, expected: str, *path: str | int) -> PydanticCustomError:
    """The breach of a rule over several fields, what would do, and the place that it is reported at."""
    return PydanticCustomError("rule", "{text}", {"text": text, "expected": expected, "path": path})
