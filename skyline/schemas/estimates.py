"""What a job would be: the answer to a job that is checked and not posted."""

from __future__ import annotations

from typing import Literal

from skyline.schemas.answers import Answer
from skyline.schemas.jobs import Bound, JobSpec


class Span(Answer):
    """From the least to the most, both included."""

    floor: int
    ceiling: int


class CostRange(Answer):
    """What networks of the space cost on one skeleton in one exact objective."""

    possible: Span | None
    """The least and the most that any network has, exactly; null where that is not known, see `reason`."""
    bound: Bound | None
    """As the job gives it."""
    left: Span | None
    """What the bound leaves of `possible`; null where it leaves nothing, so that this skeleton can have no network on
    the front."""
    reason: str | None
    """Why `possible` is null."""


class TargetEstimate(Answer):
    """One skeleton of the networks wanted; null where only workers know the space."""

    cells: int | None
    channels: int | None
    stem: str | None
    ranges: dict[str, CostRange]
    """By key, of the job's exact objectives."""


class ImageCounts(Answer):
    """Images of each part, after the job's `fraction`; null where the data set does not publish them, see `reason`."""

    train: int | None
    validation: int | None
    select: int | None
    test: int | None
    reason: str | None


class SearchEstimate(Answer):
    """At most: a small space or a budget of seconds may end the search before."""

    evaluations: int
    """Genotypes scored."""
    candidates: int
    """Each genotype on each target."""
    trainings: int | None
    """Short trainings, or 1 for a supernet; null where only workers know, see `reason`."""
    epochs: int | None
    """Of all these trainings together."""
    reason: str | None


class VerificationEstimate(Answer):
    """At most: of candidates that hold all bounds."""

    candidates: int
    """Trained from scratch; of what is looked up in a table, shown."""
    trainings: int
    """Each candidate with each of its seeds."""
    epochs: int
    """Of all these trainings together."""


class Figure(Answer):
    """A number that may not be known; then `reason` says why."""

    value: float | None
    reason: str | None


class Estimate(Answer):
    """What a job would be. A job that is not valid has none: it is refused with 422."""

    valid: Literal[True]
    spec: JobSpec
    """The job as it would be stored: defaults filled in, names resolved, keys explicit."""
    targets: list[TargetEstimate]
    images: ImageCounts
    search: SearchEstimate
    verification: VerificationEstimate
    workers: list[str]
    """Live workers that could take the search now: queue and memory."""
    waiting_for: str | None
    """What a worker would need, where there is none."""
    memory: Figure
    """MB."""
    time: Figure
    """Seconds."""
