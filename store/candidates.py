"""Candidates of a job and their values, written in bulk and idempotently: a replay after a crash adds nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import UUID, uuid4

from sqlalchemy import Table, bindparam, delete, func, literal, select, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.types import Uuid

from store import cursors, jobs, loose
from store.bulk import insert_rows
from store.clock import now
from store.errors import InvalidCursorError, NotFoundError
from store.models import Artefact, Candidate, Evaluation

Stage = Literal["search", "final"]
Documents = dict[str, dict[str, Any]]
"""Values as on the wire, by objective key."""
CHUNK = 10_000
"""Ids in one statement; both databases allow more."""
CANDIDATES = cast(Table, Candidate.__table__)
EVALUATIONS = cast(Table, Evaluation.__table__)
CANDIDATE_COLUMNS = ("id", "job_id", "number", "target", "hash", "architecture", "status", "failure", "created_at")
EVALUATION_COLUMNS = ("candidate_id", "stage", "key", "job_id", "value", "document")

# Made once: building a statement costs more than running it.
_OF_JOB = Candidate.job_id == bindparam("job_id")
_KNOWN = select(Candidate.hash, Candidate.id).where(_OF_JOB, Candidate.hash.in_(bindparam("hashes", expanding=True)))
_LAST_NUMBER = select(func.max(Candidate.number)).where(_OF_JOB)
_REMOVE = delete(EVALUATIONS).where(
    *(EVALUATIONS.c[name] == bindparam(name) for name in ("candidate_id", "stage", "key"))
)


@dataclass(frozen=True, slots=True)
class NewCandidate:
    """An architecture as the search tried it."""

    hash: str
    architecture: dict[str, Any]
    target: int
    values: Documents
    failure: str | None = None
    scored: bool = True
    """Whether it has a value of every objective; if not, it counts as proposed, not as evaluated."""
    id: UUID | None = None
    """The one it is to have, if it is not there yet; None: any."""


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate with its values of one stage."""

    candidate_id: UUID
    hash: str
    target: int
    status: str
    failure: str | None
    architecture: dict[str, Any]
    values: Documents


def record(
    session: Session, job_id: UUID, stage: Stage, items: Sequence[NewCandidate], *, revise: bool = False
) -> list[tuple[UUID, bool]]:
    """Stores candidates with their values, in order; what is stored already stays as it is.

    Returns for each its id and whether it brought something new (a candidate or a value). A candidate with a value
    that is not finite is stored as failed, without values. With ``revise`` a value that differs from the stored one
    takes its place.
    """
    jobs.ensure_locked(session, job_id)
    at = now(session)
    known = ids_of(session, job_id, list({item.hash for item in items}))
    stored = values(session, list(known.values()), stage) if known else {}
    number = session.execute(_LAST_NUMBER, {"job_id": job_id}).scalar() or 0
    rows: list[tuple[Any, ...]] = []
    fresh: dict[tuple[UUID, str], dict[str, Any]] = {}
    outdated: set[tuple[UUID, str]] = set()
    raised: list[UUID] = []
    results: list[tuple[UUID, bool]] = []
    for item in items:
        failure = item.failure if item.failure is not None else _not_finite(item.values)
        candidate_id = known.get(item.hash)
        new = candidate_id is None
        if candidate_id is None:
            candidate_id = known[item.hash] = item.id or uuid4()
            number += 1
            status = "failed" if failure is not None else _status(stage) if item.scored else "proposed"
            rows.append((candidate_id, job_id, number, item.target, item.hash, item.architecture, status, failure, at))
        if failure is None:
            present = stored.setdefault(candidate_id, {})
            for key, document in item.values.items():
                if key in present and not (revise and present[key] != document):
                    continue
                if key in present and (candidate_id, key) not in fresh:
                    outdated.add((candidate_id, key))
                present[key] = fresh[candidate_id, key] = document
                new = True
            if item.scored:
                raised.append(candidate_id)
        results.append((candidate_id, new))
    for candidate_id, key in outdated:
        session.execute(_REMOVE, {"candidate_id": candidate_id, "stage": stage, "key": key})
    insert_rows(session, CANDIDATES, CANDIDATE_COLUMNS, rows)
    insert_rows(session, EVALUATIONS, EVALUATION_COLUMNS, _rows(job_id, stage, fresh))
    if len(rows) < len(known):  # some were there before
        _evaluated(session, raised, stage)
    return results


def set_final(session: Session, candidate_id: UUID, documents: Documents) -> bool:
    """Stores what verification found, once; False when all of it was there. A value not finite fails the candidate."""
    job_id = _lock(session, candidate_id)
    failure = _not_finite(documents)
    if failure is not None:
        fail(session, candidate_id, failure)
        return True
    present = values(session, [candidate_id], "final")[candidate_id]
    rows = _rows(
        job_id, "final", {(candidate_id, key): value for key, value in documents.items() if key not in present}
    )
    insert_rows(session, EVALUATIONS, EVALUATION_COLUMNS, rows)
    _evaluated(session, [candidate_id], "final")
    return bool(rows)


def fail(session: Session, candidate_id: UUID, failure: str) -> None:
    """Marks a candidate as failed, with the reason."""
    _lock(session, candidate_id)
    _update(session, candidate_id, status="failed", failure=failure)


def restore(session: Session, candidate_id: UUID) -> None:
    """Takes a failure back: the candidate is what its values make it."""
    job = jobs.get(session, _lock(session, candidate_id))
    objectives = {one.get("key") or one["name"] for one in job.spec.get("objectives", [])}
    if values(session, [candidate_id], "final")[candidate_id]:
        status = _status("final")
    else:
        searched = values(session, [candidate_id], "search")[candidate_id]
        status = _status("search") if searched and objectives <= set(searched) else "proposed"
    _update(session, candidate_id, status=status, failure=None)


def set_test(session: Session, candidate_id: UUID, result: Mapping[str, float | None]) -> None:
    """Stores ``{"error", "sd", "n"}`` on the test split; nothing sorts, filters or chooses by it."""
    _lock(session, candidate_id)
    _update(session, candidate_id, test=dict(result))


def get(session: Session, candidate_id: UUID) -> Candidate:
    """One candidate; raises NotFoundError."""
    candidate = session.get(Candidate, candidate_id, populate_existing=True)
    if candidate is None:
        raise NotFoundError("candidate", candidate_id)
    return candidate


def many(session: Session, candidate_ids: Sequence[UUID]) -> list[Candidate]:
    """Candidates in the order of their ids; those that are gone are left out."""
    found: dict[UUID, Candidate] = {}
    for part in _chunks(candidate_ids):
        query = select(Candidate).where(Candidate.id.in_(part)).execution_options(populate_existing=True)
        found.update((candidate.id, candidate) for candidate in session.scalars(query))
    return [found[candidate_id] for candidate_id in candidate_ids if candidate_id in found]


def page(
    session: Session,
    job_id: UUID,
    *,
    sort: str = "number",
    descending: bool = False,
    status: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
    stage: Stage = "search",
) -> tuple[list[Candidate], str | None]:
    """Candidates of a job by number or by an objective's value, and the cursor of the next page.

    Values are those of ``stage``; candidates without one come last, by number.
    """
    if sort == "number":
        return _page_by_number(session, job_id, descending, status, cursor, limit)
    return _page_by_value(session, job_id, sort, stage, descending, status, cursor, limit)


def values(session: Session, candidate_ids: Sequence[UUID], stage: Stage) -> dict[UUID, Documents]:
    """The values of a stage by candidate, for each id given."""
    found: dict[UUID, Documents] = {candidate_id: {} for candidate_id in candidate_ids}
    columns = (Evaluation.candidate_id, Evaluation.key, Evaluation.document)
    for part in _chunks(candidate_ids):
        query = select(*columns).where(Evaluation.candidate_id.in_(part), Evaluation.stage == stage)
        for candidate_id, key, document in session.execute(query):
            found[candidate_id][key] = document
    return found


def all_values(session: Session, job_id: UUID, stage: Stage) -> list[Row]:
    """All candidates of a job by number, with their values of a stage: to resume from and to choose from."""
    documents: dict[UUID, Documents] = {}
    query = select(Evaluation.candidate_id, Evaluation.key, Evaluation.document)
    for candidate_id, key, document in session.execute(
        query.where(Evaluation.job_id == job_id, Evaluation.stage == stage)
    ):
        documents.setdefault(candidate_id, {})[key] = document
    columns = (
        Candidate.id,
        Candidate.hash,
        Candidate.target,
        Candidate.status,
        Candidate.failure,
        Candidate.architecture,
    )
    found = session.execute(select(*columns).where(Candidate.job_id == job_id).order_by(Candidate.number))
    return [
        Row(id, hash, target, status, failure, architecture, documents.get(id, {}))
        for id, hash, target, status, failure, architecture in found
    ]


def artefacts_of(session: Session, candidate_ids: Sequence[UUID]) -> dict[UUID, list[Artefact]]:
    """The files of candidates, for each id given."""
    found: dict[UUID, list[Artefact]] = {candidate_id: [] for candidate_id in candidate_ids}
    for part in _chunks(candidate_ids):
        query = select(Artefact).where(Artefact.candidate_id.in_(part)).order_by(Artefact.format)
        for artefact in session.scalars(query):
            assert artefact.candidate_id is not None, "it was asked for by its candidate"
            found[artefact.candidate_id].append(artefact)
    return found


def ids_of(session: Session, job_id: UUID, hashes: Sequence[str]) -> dict[str, UUID]:
    """Of the candidates of a job that are there, by hash."""
    found = session.execute(_KNOWN, {"job_id": job_id, "hashes": list(hashes)})
    return {hash: candidate_id for hash, candidate_id in found}


def artefact_with(session: Session, format: str, sha256: str) -> Artefact | None:
    """A file of this format with this content, of whatever candidate; None where there is none."""
    query = select(Artefact).where(Artefact.format == format, Artefact.sha256 == sha256)
    return session.scalars(query.order_by(Artefact.created_at, Artefact.id).limit(1)).first()


def add_artefact(
    session: Session, candidate_id: UUID | None, job_id: UUID, format: str, path: str, sha256: str, bytes: int
) -> Artefact:
    """Registers a stored file of a candidate, or of the job itself; one of the same format before it goes, and its file
    is left to :mod:`store.loose`.
    """
    jobs.ensure_locked(session, job_id)
    own = (Artefact.job_id == job_id, Artefact.candidate_id == candidate_id, Artefact.format == format)
    query = select(Artefact).where(*own)
    artefact = session.scalars(query).one_or_none()
    at = now(session)
    if artefact is None:
        artefact = Artefact(id=uuid4(), candidate_id=candidate_id, job_id=job_id, format=format)
        session.add(artefact)
    elif artefact.path != path:
        loose.release(session, [artefact.path])
    artefact.path, artefact.sha256, artefact.bytes, artefact.created_at = path, sha256, bytes, at
    artefact.last_used_at = None
    loose.settle(session, path)
    session.flush()
    return artefact


def _page_by_number(
    session: Session, job_id: UUID, descending: bool, status: str | None, cursor: str | None, limit: int
) -> tuple[list[Candidate], str | None]:
    query = select(Candidate).where(Candidate.job_id == job_id)
    if status is not None:
        query = query.where(Candidate.status == status)
    if cursor is not None:
        (after,) = cursors.unpack(cursor, 1)
        if not cursors.is_number(after):
            raise InvalidCursorError(cursor)
        query = query.where(Candidate.number < after if descending else Candidate.number > after)
    order = Candidate.number.desc() if descending else Candidate.number
    found = list(session.scalars(query.order_by(order).limit(limit + 1)))
    return found[:limit], cursors.pack(found[limit - 1].number) if len(found) > limit else None


def _page_by_value(
    session: Session,
    job_id: UUID,
    key: str,
    stage: Stage,
    descending: bool,
    status: str | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[Candidate], str | None]:
    """First those with a value, in the order of the index; then those without, by number."""
    value, after = cursors.unpack(cursor, 2) if cursor is not None else cursors.START
    in_values = cursor is None or value is not None
    found: list[tuple[Candidate, float | None]] = []
    if in_values:
        place = tuple_(Evaluation.value, Evaluation.candidate_id)
        query = (
            select(Candidate, Evaluation.value)
            .join(Evaluation, Evaluation.candidate_id == Candidate.id)
            .where(Evaluation.job_id == job_id, Evaluation.stage == stage, Evaluation.key == key)
        )
        if status is not None:
            query = query.where(Candidate.status == status)
        if cursor is not None:
            try:
                position = tuple_(literal(float(value)), literal(UUID(after), Uuid()))
            except (TypeError, ValueError, AttributeError, OverflowError) as error:
                raise InvalidCursorError(cursor) from error
            query = query.where(place < position if descending else place > position)
        order = (Evaluation.value, Evaluation.candidate_id)
        query = query.order_by(*(column.desc() if descending else column for column in order)).limit(limit + 1)
        found += [(candidate, number) for candidate, number in session.execute(query)]
    if len(found) <= limit:
        has_value = select(Evaluation.candidate_id).where(
            Evaluation.candidate_id == Candidate.id, Evaluation.stage == stage, Evaluation.key == key
        )
        rest = select(Candidate).where(Candidate.job_id == job_id, ~has_value.exists())
        if status is not None:
            rest = rest.where(Candidate.status == status)
        if not in_values:
            if not cursors.is_number(after):
                raise InvalidCursorError(cursor or "")
            rest = rest.where(Candidate.number > after)
        rest = rest.order_by(Candidate.number).limit(limit + 1 - len(found))
        found += [(candidate, None) for candidate in session.scalars(rest)]
    page = [candidate for candidate, _ in found[:limit]]
    if len(found) <= limit:
        return page, None
    last, last_value = found[limit - 1]
    if last_value is None:
        return page, cursors.pack(None, last.number)
    return page, cursors.pack(last_value, str(last.id))


def _status(stage: Stage) -> str:
    return "verified" if stage == "final" else "evaluated"


def _evaluated(session: Session, candidate_ids: Sequence[UUID], stage: Stage) -> None:
    """A value raises a candidate's status, and never lowers it: failed stays failed, verified stays verified."""
    below = ("proposed",) if stage == "search" else ("proposed", "evaluated")
    if candidate_ids:
        session.execute(
            update(Candidate)
            .where(Candidate.id.in_(candidate_ids), Candidate.status.in_(below))
            .values(status=_status(stage))
            .execution_options(synchronize_session=False)
        )


def _rows(job_id: UUID, stage: Stage, documents: Mapping[tuple[UUID, str], dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (candidate_id, stage, key, job_id, float(document["value"]), document)
        for (candidate_id, key), document in documents.items()
    ]


def _not_finite(documents: Documents) -> str | None:
    """Names the first number that is not finite: JSON has no word for it, and nothing is better or worse than it."""
    for key, document in documents.items():
        for field, number in document.items():
            if isinstance(number, float) and not math.isfinite(number):
                return f"{key}: {field} is {number}, not a finite number"
    return None


def _lock(session: Session, candidate_id: UUID) -> UUID:
    job_id = session.execute(select(Candidate.job_id).where(Candidate.id == candidate_id)).scalar_one_or_none()
    if job_id is None:
        raise NotFoundError("candidate", candidate_id)
    jobs.ensure_locked(session, job_id)
    return job_id


def _update(session: Session, candidate_id: UUID, **columns: Any) -> None:
    statement = update(Candidate).where(Candidate.id == candidate_id).values(columns)
    session.execute(statement.execution_options(synchronize_session=False))


def _chunks(candidate_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(candidate_ids), CHUNK):
        yield candidate_ids[start : start + CHUNK]
