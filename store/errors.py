"""What can go wrong in the store. These errors know no HTTP; every message says what came and what next."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

LISTED = 5
"""Jobs that a message names."""


class StoreError(Exception):
    """Base of all errors raised on purpose by the store."""


class NotFoundError(StoreError):
    """Nothing is stored under this id."""

    def __init__(self, what: str, id: UUID | str) -> None:
        self.what, self.id = what, id
        super().__init__(f"no {what} '{id}'")


class IllegalTransitionError(StoreError):
    """A job was asked for something that its status does not allow."""

    def __init__(self, job_id: UUID, status: str, wanted: str) -> None:
        self.job_id, self.status, self.wanted = job_id, status, wanted
        super().__init__(f"job {job_id} is {status} and cannot be {wanted}")


class NotRetriableError(StoreError):
    """A candidate was to be verified again that cannot or need not be."""

    def __init__(self, candidate_id: UUID, why: str) -> None:
        self.candidate_id, self.why = candidate_id, why
        super().__init__(f"candidate {candidate_id} cannot be verified again: {why}")


class LeaseLostError(StoreError):
    """The task has gone to another worker, or is over: the writer must stop, and nothing of it was written."""

    def __init__(self, task_id: UUID, fence: int) -> None:
        self.task_id, self.fence = task_id, fence
        super().__init__(f"task {task_id} is no longer held under fence {fence}; stop quietly")


class SchemaMismatchError(StoreError):
    """The tables are not those that this version of Skyline needs."""

    def __init__(self, found: str | None, wanted: str, url: str, *, newer: bool = False) -> None:
        self.found, self.wanted, self.url = found, wanted, url
        if newer:
            after = "it was made by a newer Skyline: upgrade this installation"
        else:
            after = "run `python -m store.migrate` (`skyline serve` does so by itself)"
        super().__init__(f"database {url} has schema {found or 'none'}, this version needs {wanted}; {after}")


class InvalidCursorError(StoreError):
    """A page cursor that this list did not hand out."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        super().__init__(f"cursor '{cursor}' is not one of this list; pass 'next' of the page before, or none")


class SeveralHostsError(StoreError):
    """SQLite serves the workers of one host only."""

    def __init__(self, host: str, other: str) -> None:
        self.host, self.other = host, other
        super().__init__(
            f"a worker on host '{host}' met live workers on host '{other}', but the database is SQLite, "
            "which serves one host; set SKYLINE_DATABASE_URL to a PostgreSQL database on all hosts"
        )


class DatasetExistsError(StoreError):
    """A name under which another data set is registered."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"a data set '{name}' is registered with other settings or another description; "
            "choose another name, or delete it first: jobs that named it keep their settings"
        )


class TooManyDatasetsError(StoreError):
    """As many data sets are registered as there may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"data sets registered: {limit}, the most there may be; delete one that is not used any more")


class TableExistsError(StoreError):
    """A name under which another table is registered."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"a table '{name}' is registered with another text or other settings; choose another name, or delete it "
            "first"
        )


class TooManyTablesError(StoreError):
    """As many tables are registered as there may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"tables registered: {limit}, the most there may be; delete one that is not used any more")


class TableInUseError(StoreError):
    """A table that was to be deleted while jobs under way look values up in it."""

    def __init__(self, name: str, jobs: Sequence[UUID], more: int) -> None:
        self.name = name
        listed = ", ".join(map(str, jobs)) + (f" and {more} more" if more else "")
        super().__init__(f"table '{name}' is used by jobs under way: {listed}; wait for them to end, or cancel them")


class TableGoneError(StoreError):
    """The table that a job names is not there any more, or has another text."""

    def __init__(self, name: str, wanted: str, found: str | None) -> None:
        self.name = name
        now = "it was deleted" if found is None else f"another one is registered under this name, with SHA-256 {found}"
        super().__init__(
            f"table '{name}' with SHA-256 {wanted} is not there any more: {now}; register it again under this name, "
            "or post a new job"
        )


class JobInUseError(StoreError):
    """A job that was to be deleted while the searches of others are to go on from it."""

    def __init__(self, job_id: UUID, jobs: Sequence[UUID]) -> None:
        self.job_id = job_id
        listed = ", ".join(map(str, jobs[:LISTED])) + (f" and {len(jobs) - LISTED} more" if len(jobs) > LISTED else "")
        super().__init__(
            f"the search of job {job_id} is what jobs under way go on from: {listed}; wait until they have searched, "
            "or cancel them"
        )


class OriginGoneError(StoreError):
    """The job that a search goes on from is not there any more, or has no state of its search."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(
            f"there is no state of a search of job {job_id} to go on from (any more): the job was deleted, or kept "
            "none; post a job without 'from', which searches from scratch"
        )


class BroughtGoneError(StoreError):
    """No candidate has the weight masks or the inherited weights that a job names."""

    def __init__(self, format: str, digest: str) -> None:
        self.format, self.digest = format, digest
        what, where = (
            ("weight masks", "one of seed_genotypes names; give that one without 'masks'")
            if format == "masks"
            else ("inherited weights", "verify.weights names; train from scratch (verify.start)")
        )
        super().__init__(
            f"no candidate here has the {what} with SHA-256 {digest} (any more), which {where}, or run the "
            "search that brings them again"
        )


class InvalidKeyError(StoreError):
    """An API key that opens nothing; the message never holds the key."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the API key {why}; 'skyline keys create NAME' makes one where the service runs")


class TooManyDevicesError(StoreError):
    """There is no room for another device."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{limit} devices have a profile, the most there may be; delete one that is no longer needed")


class TooManyOpenJobsError(StoreError):
    """A key has as many jobs under way as it may have."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"jobs under way with this API key: {limit}, the most it may have; wait for one to end, or cancel one"
        )


class IdempotencyConflictError(StoreError):
    """An Idempotency-Key came again with another body."""

    def __init__(self, key: str, hours: float) -> None:
        self.key = key
        super().__init__(
            f"Idempotency-Key '{key}' came with another body within the last {hours:g} h; "
            "send the same body, or a new key for a new job"
        )


class ArtefactsAwayError(StoreError):
    """The place where artefact files lie does not answer, or refuses; the message holds no address and no key."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the artefact store cannot be used: {why}; nothing was changed, ask again when it is back")


class ArtefactUrlError(StoreError):
    """The setting names no place for artefact files; the message does not repeat it, because it may hold keys."""

    def __init__(self) -> None:
        super().__init__(
            "SKYLINE_ARTEFACT_URL is no address of an artefact store; it takes s3://bucket/prefix, gs://bucket/prefix, "
            "az://container/prefix or file:///folder, and keys in variables of their own (AWS_ACCESS_KEY_ID, ...)"
        )


class MissingArtefactError(StoreError):
    """An artefact's file is not where it was stored."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"the artefact {path} is not there any more; workers on several hosts need one artefact folder that they "
            "share, or SKYLINE_ARTEFACT_URL"
        )


class DamagedArtefactError(StoreError):
    """An artefact's file holds other bytes than were stored."""

    def __init__(self, path: str, wanted: str, found: str) -> None:
        self.path = path
        super().__init__(
            f"the artefact {path} is damaged: it should have SHA-256 {wanted}, and has {found}; restore it from a "
            "backup, or run the job again"
        )


class QuotaExceededError(StoreError):
    """Artefacts take all the room that they may take."""

    def __init__(self, used: int, limit_mb: float) -> None:
        self.used, self.limit_mb = used, limit_mb
        super().__init__(
            f"artefacts take {used / 2**20:,.1f} MB, and {limit_mb:,g} MB is the limit (SKYLINE_ARTEFACT_QUOTA_MB); "
            "delete jobs that are no longer needed ('skyline delete JOB'), or raise the limit"
        )
