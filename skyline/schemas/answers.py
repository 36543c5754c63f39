"""What the service answers: jobs, fronts, candidates, events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from skyline.schemas.jobs import JobSpec

JobStatus = Literal["queued", "searching", "verifying", "cancelling", "succeeded", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
FrontKind = Literal["search", "final"]


class Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Attempt(Answer):
    """One run of one task in a process of its own."""

    task: UUID
    kind: str
    """Of its task: search, verify, conclude, or export.FORMAT."""
    number: int
    worker: str
    device: str
    threads: int
    started_at: datetime
    ended_at: datetime | None
    end: str | None
    """done, failed, died, cancelled, lease-lost; null while it runs."""
    exit_signal: int | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    """How long the attempt had its GPU to itself; null on a CPU."""
    peak_memory_mb: float | None
    """Of the host's memory."""
    peak_gpu_memory_mb: float | None = None
    """Null on a CPU, and where it cannot be known."""


class FrontCounts(Answer):
    """Members of each front now."""

    search: int
    final: int


class Value(BaseModel):
    """A number that knows where it comes from."""

    model_config = ConfigDict(extra="allow")

    value: float
    unit: str
    kind: Literal["exact", "supernet", "trained", "predicted", "measured", "tabular"]


class Near(Answer):
    """A candidate that comes nearest to the job's bounds."""

    id: UUID
    violation: float
    """Sum over the bounds of how far its value lies beyond, as a share of the bound (of 1, where that is 0)."""
    values: dict[str, Value]
    """By objective key, of the stage that is told of."""


class Move(Answer):
    """By how much a bound would have to move for a candidate."""

    min: float | None
    max: float | None
    """The bound as the job has it."""
    nearest: float
    """The candidate's value: where the side would have to be."""
    side: Literal["min", "max"]
    by: float
    """How far that is, in the objective's unit."""
    share: float | None
    """How far that is as a share of the bound; null where the bound is 0."""
    candidate: UUID


class Infeasible(Answer):
    """Why a front is empty: no candidate holds all of the job's bounds."""

    stage: FrontKind
    """Whose values are held against the bounds. Of a final front it is `search` where nothing was verified, because
    the search found nothing that could hold all bounds."""
    nearest: list[Near]
    """A few, the nearest first."""
    violations: dict[str, Move]
    """The bounds that the nearest candidate breaks; all of them would have to move for it. By objective key."""
    alone: dict[str, Move]
    """Bounds of which one would do: where it alone moves that far, a candidate holds all of them. By objective key."""


class Job(Answer):
    id: UUID
    name: str
    status: JobStatus
    phase: str
    progress: float
    """0 to 1 over search and verification."""
    spec: JobSpec
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    reason: str | None
    """Why it failed or was cancelled."""
    waiting_for: str | None
    """What keeps a queued job from running."""
    attempts: list[Attempt]
    front: FrontCounts
    infeasible: Infeasible | None = None
    """Of a job that succeeded with an empty final front: what comes nearest to its bounds."""
    labels: dict[str, str]


class JobPage(Answer):
    items: list[Job]
    next: str | None
    """Cursor of the next page."""


class TestResult(Answer):
    """Computed once for members of the final front; nothing sorts, filters or chooses by it."""

    __test__ = False  # not a pytest class

    error: float
    sd: float | None
    """Binomial standard deviation of the error; null where the error is from a table, which says nothing of it."""
    n: int | None
    """Images; null where the error is from a table."""


class Candidate(Answer):
    id: UUID
    job: UUID
    hash: str
    architecture: dict[str, Any]
    values: dict[str, Value]
    """By objective key; the verified ones where there are any."""
    search_values: dict[str, Value]
    """What the search saw."""
    test: TestResult | None
    status: Literal["proposed", "evaluated", "verified", "failed"]
    failure: str | None
    artefacts: list[str]
    """Formats that can be downloaded now."""
    created_at: datetime


class CandidatePage(Answer):
    items: list[Candidate]
    next: str | None


class FrontObjective(Answer):
    key: str
    unit: str
    direction: Literal["minimize", "maximize"]
    kind: str | None


class Front(Answer):
    job: UUID
    kind: FrontKind
    version: int
    objectives: list[FrontObjective]
    reference_point: dict[str, float]
    hypervolume: float | None
    knee: UUID | None
    members: list[Candidate]
    next: str | None
    infeasible: Infeasible | None
    """Of a front that the job's bounds leave empty: what comes nearest to them."""


class Event(Answer):
    seq: int
    at: datetime
    type: Literal["progress", "candidate", "front", "phase", "attempt", "warning"]
    data: dict[str, Any]


class ExportState(Answer):
    """A file that is being made."""

    format: str
    status: Literal["queued", "running"]
    task: UUID
    """As in the job's attempts and log."""
    waiting_for: str | None
    """What a worker would need that no live one has."""


class EventPage(Answer):
    items: list[Event]
    next: int
    """Pass as ``after`` to go on."""


class LogChunk(Answer):
    """A piece of what the process of one attempt printed."""

    id: int
    """Grows in the order in which pieces came."""
    task: UUID
    kind: str
    """Of its task: search, verify, conclude, or export.FORMAT."""
    candidate: UUID | None
    """What a verification is of."""
    attempt: int
    """The attempt's number."""
    offset: int
    """Bytes that the attempt had printed before."""
    at: datetime
    text: str
    """Begins with a note where something before it was dropped: of a long log the beginning and the end are kept."""


class LogPage(Answer):
    items: list[LogChunk]
    next: int
    """Pass as ``after`` to go on."""


class Health(Answer):
    status: Literal["ok"]


class Version(Answer):
    version: str
    tables: str
    """Revision of the database's tables that this version works on."""


class Readiness(Answer):
    status: Literal["ready", "not ready"]
    database: str
    broker: str
    workers: int
