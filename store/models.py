"""The tables. State is here and only here: a broker message merely wakes a worker.

SQLite and PostgreSQL alike: text for enumerations, JSON for documents, times in UTC as set by the database's clock
through :func:`store.session.now`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index, MetaData, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Utc(TypeDecorator[datetime]):
    """Aware UTC times on both databases (SQLite drops the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("times are stored with their zone; use datetime.now(UTC)")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {
        str: Text(),
        datetime: Utc(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        list[dict[str, Any]]: JSON(),
    }


class Job(Base):
    """A search job as posted, its status and the counters that order its events."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "status"), Index(None, "created_at", "id"), Index(None, "owner_key", "status"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(default="queued")
    phase: Mapped[str] = mapped_column(default="queued")
    progress: Mapped[float] = mapped_column(default=0.0)
    spec: Mapped[dict[str, Any]]
    """The JobSpec, normalised: defaults filled in, aliases resolved."""
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reason: Mapped[str | None]
    reference_point: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """By objective key; complete before the first evaluation is recorded."""
    cancel_requested_at: Mapped[datetime | None]
    last_seq: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    owner_key: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    """The key it was posted with; None where keys are off."""


class Task(Base):
    """A unit of work that one worker claims: the search, the verification of one candidate, the conclusion."""

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("job_id", "kind", "candidate_id"),
        Index(None, "status", "lease_expires"),
        Index(None, "job_id", "status"),
        Index(None, "candidate_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    """search, verify, conclude."""
    candidate_id: Mapped[UUID | None] = mapped_column(ForeignKey("candidates.id", ondelete="CASCADE"))
    queue: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued")
    """queued, running, done, failed, cancelled."""
    lease_owner: Mapped[str | None]
    lease_expires: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    """Grows with every claim; a writer whose fence is old changes nothing."""
    created_at: Mapped[datetime]


class Attempt(Base):
    """One run of one task in a process of its own."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("task_id", "number"), Index(None, "job_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    worker: Mapped[str]
    device: Mapped[str]
    threads: Mapped[int]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end: Mapped[str | None]
    exit_signal: Mapped[int | None]
    cpu_seconds: Mapped[float | None]
    gpu_seconds: Mapped[float | None]
    peak_memory_mb: Mapped[float | None]
    peak_gpu_memory_mb: Mapped[float | None]


class LogChunk(Base):
    """A piece of what the child of one attempt printed; :mod:`store.logs` bounds how much is kept."""

    __tablename__ = "log_chunks"
    __table_args__ = (UniqueConstraint("task_id", "attempt", "offset"), Index(None, "job_id", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    """Grows within a job in order of commit, because chunks are added under the job's lock."""
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    task_id: Mapped[UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    """The attempt's number, which is its fence."""
    offset: Mapped[int] = mapped_column(BigInteger)
    """Bytes that the attempt had printed before."""
    size: Mapped[int]
    """Bytes as printed; the text may differ where they were not valid."""
    text: Mapped[str]
    at: Mapped[datetime]


class Candidate(Base):
    """An architecture under test within a job."""

    __tablename__ = "candidates"
    __table_args__ = (UniqueConstraint("job_id", "hash"), Index(None, "job_id", "number"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    """Order of arrival within the job, from 1."""
    target: Mapped[int] = mapped_column(default=0)
    """Index of the target skeleton; search values compare only within one."""
    hash: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(default="evaluated")
    failure: Mapped[str | None]
    test: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]


class Evaluation(Base):
    """One objective's value of one candidate, as the search saw it or as it was verified."""

    __tablename__ = "evaluations"
    __table_args__ = (Index(None, "job_id", "stage", "key", "value"),)

    candidate_id: Mapped[UUID] = mapped_column(ForeignKey("candidates.id", ondelete="CASCADE"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    """search or final."""
    key: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    value: Mapped[float]
    document: Mapped[dict[str, Any]]
    """The whole value as on the wire: value, unit, kind and protocol."""


class Front(Base):
    """One of a job's two fronts, maintained on write."""

    __tablename__ = "fronts"
    __table_args__ = (UniqueConstraint("job_id", "kind"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str]
    """search or final."""
    version: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(default=0)
    hypervolume: Mapped[float | None]
    knee: Mapped[UUID | None]


class FrontMember(Base):
    """Membership over versions ``entered <= v < left``, so that old versions need no copies."""

    __tablename__ = "front_members"
    __table_args__ = (Index(None, "front_id", "left_version", "number"), Index(None, "candidate_id"))

    front_id: Mapped[UUID] = mapped_column(ForeignKey("fronts.id", ondelete="CASCADE"), primary_key=True)
    candidate_id: Mapped[UUID] = mapped_column(ForeignKey("candidates.id", ondelete="CASCADE"), primary_key=True)
    entered_version: Mapped[int] = mapped_column(primary_key=True)
    left_version: Mapped[int | None]
    number: Mapped[int]
    """The candidate's, so that a page of members is a stretch of the index."""


class Event(Base):
    """What happened, numbered within its job in order of commit."""

    __tablename__ = "events"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class Artefact(Base):
    """A file of a candidate, or of a job itself, kept where :mod:`store.artefacts` puts it."""

    __tablename__ = "artefacts"
    __table_args__ = (UniqueConstraint("candidate_id", "format"), Index(None, "job_id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    candidate_id: Mapped[UUID | None] = mapped_column(ForeignKey("candidates.id", ondelete="CASCADE"))
    """None: of the job itself, which has one of each format."""
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    format: Mapped[str]
    """safetensors and what is made of it (json is made from the row); masks and inherited, where the search brings
    them; of a job: state."""
    path: Mapped[str]
    """Relative to the artefact folder, or to the artefact store's prefix."""
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    """When somebody asked for it, to some ten minutes; not kept for weights. None: not since it was made."""


class LooseFile(Base):
    """A file without an artefact: on its way in, or on its way out (:mod:`store.loose`)."""

    __tablename__ = "loose_files"
    __table_args__ = (Index(None, "due_at"),)

    path: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
    """When it is to be removed."""


class Outbox(Base):
    """Messages that a committed transaction still owes the broker."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "sent_at", "id"), Index(None, "task_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    queue: Mapped[str]
    created_at: Mapped[datetime]
    """Not sent before."""
    sent_at: Mapped[datetime | None]


class Worker(Base):
    """A worker's inventory and heartbeat."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    device: Mapped[str]
    queues: Mapped[list[str]]
    threads: Mapped[int]
    memory_gb: Mapped[float]
    versions: Mapped[dict[str, Any]]
    draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class CatalogRow(Base):
    """What a worker published it can run; rows outlive workers."""

    __tablename__ = "catalog"

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(primary_key=True)
    entry: Mapped[dict[str, Any]]
    """The CatalogEntry; its ``workers`` holds this worker's own part."""
    published_at: Mapped[datetime]


class RegisteredDataset(Base):
    """A data set of the catalog with settings, under a name of its own. Jobs that named it hold the settings
    themselves.
    """

    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(primary_key=True)
    dataset: Mapped[dict[str, Any]]
    """``name`` in the catalog, and every setting."""
    description: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]


class RegisteredTable(Base):
    """Values by architecture under a name. Jobs that name it hold its SHA-256, and read the rows here."""

    __tablename__ = "tables"

    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    """Of the text that was registered."""
    space: Mapped[dict[str, Any]]
    """``name`` in the catalog, and every setting."""
    skeleton: Mapped[dict[str, Any]]
    """Of the networks that the values are of."""
    key: Mapped[str]
    """The column of the text that names architectures."""
    columns: Mapped[list[dict[str, Any]]]
    """In order: name, unit, direction."""
    ends: Mapped[dict[str, Any]]
    """By column: the least and the largest number."""
    rows: Mapped[int]
    left_out: Mapped[int]
    missing: Mapped[int | None]
    partial: Mapped[bool]
    description: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    hashes: Mapped[bytes] = mapped_column(deferred=True)
    """32 bytes for each row: the architecture's hash."""
    numbers: Mapped[bytes] = mapped_column(deferred=True)
    """(rows, columns), float64, little-endian."""


class DeviceProfileRow(Base):
    """A device profile, by what it says: it never changes, and stays while a job may have noted it."""

    __tablename__ = "device_profiles"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    """Of its canonical JSON, hexadecimal."""
    profile: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Device(Base):
    """A device that jobs can name, and its profile. Jobs that named it hold the profile's SHA-256 themselves."""

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("device_profiles.sha256"))
    created_at: Mapped[datetime]
    """When this profile was uploaded under this name."""


class ApiKey(Base):
    """A key to the API: what it may do and how much of it. The key itself is nowhere, only its digest."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("digest"), Index(None, "prefix"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    prefix: Mapped[str]
    """The key's first characters, by which people tell keys apart; no secret."""
    digest: Mapped[str]
    """SHA-256 of the key, hexadecimal."""
    scope: Mapped[str]
    """read, submit, admin; each holds those before it."""
    requests_per_minute: Mapped[int | None]
    """None: as the settings say; 0: no limit."""
    open_jobs: Mapped[int | None]
    """None: as the settings say; 0: no limit."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To some ten minutes: a request should not be a write."""


class IdempotencyKey(Base):
    """A request that was named by its sender, so that it can be sent twice and done once."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "created_at"), Index(None, "job_id"))

    owner: Mapped[str] = mapped_column(primary_key=True)
    """Id of the API key; empty where keys are off."""
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    """SHA-256 of the body as a document."""
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    """None only within the transaction that makes the job."""
    created_at: Mapped[datetime]
