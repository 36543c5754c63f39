"""From what a user types to an id: prefixes, ``last`` and the short ids of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from skyline.errors import ApiError, UnknownJobError
from skyline.specs import load, override

if TYPE_CHECKING:
    from skyline.client import Client
    from skyline.schemas.answers import Job

SHORT = 8
"""Characters of an id in tables."""
RECENT_JOBS = 20
"""Jobs whose fronts are looked through for a short candidate id."""


def find_job(client: Client, text: str) -> UUID:
    """The id of the job that ``text`` means: a full id, a unique prefix of one, or ``last`` for the newest.

    Raises UnknownJobError.
    """
    full = _full(text)
    if full is not None:
        return full
    if text == "last":
        newest = next(client.jobs(limit=1), None)
        if newest is None:
            raise UnknownJobError("there is no job yet; 'skyline submit job.yaml' posts one")
        return newest.id
    return _one("job", text, (job.id for job in client.jobs(limit=100)), "'skyline jobs' lists them")


def job_file(
    client: Client, file: str, settings: list[str] | None, origin: str | None, preset: str | None
) -> dict[str, Any]:
    """The job in a file with ``settings`` applied; ``origin`` is what a user calls the job that it goes on from, if
    any, ``preset`` the name of one. Raises InvalidSpecError, UnknownJobError.
    """
    spec = override(load(file), settings or []) | ({} if preset is None else {"preset": preset})
    return spec if origin is None else {**spec, "from": str(find_job(client, origin))}


def find_candidate(client: Client, text: str, job: str | None) -> UUID:
    """The id of the candidate that ``text`` means: a full id, or a unique prefix of one.

    A prefix is looked for among all candidates of ``job``, or, where none is named, in the fronts of recent jobs.
    Raises UnknownJobError.
    """
    full = _full(text)
    if full is not None:
        return full
    if job is not None:
        ids = (candidate.id for candidate in client.candidates(find_job(client, job), limit=1000))
        return _one("candidate", text, ids, "'skyline candidates JOB' lists them")
    hint = f"looked through the fronts of the newest {RECENT_JOBS} jobs; name the job as well, or give the whole id"
    return _one("candidate", text, _members(client), hint)


def find_task(job: Job, text: str) -> UUID:
    """The id of the task of a job that ``text`` means: a full id, or a unique prefix of one. Raises UnknownJobError."""
    tasks = (attempt.task for attempt in job.attempts)
    return _full(text) or _one("task", text, tasks, "'skyline job' shows those that have begun")


def _members(client: Client) -> Iterator[UUID]:
    for job in islice(client.jobs(limit=RECENT_JOBS), RECENT_JOBS):
        for kind, size in (("final", job.front.final), ("search", job.front.search)):
            if size:
                try:
                    front = client.front(job.id, "final" if kind == "final" else "search")
                except ApiError as error:
                    if error.status != 404:  # deleted while we looked
                        raise
                    continue
                yield from (member.id for member in front.members)


def _full(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _one(what: str, text: str, ids: Iterable[UUID], hint: str) -> UUID:
    wanted = text.lower()
    found = {identifier for identifier in ids if wanted and str(identifier).startswith(wanted)}
    if len(found) == 1:
        return found.pop()
    if found:
        some = ", ".join(sorted(str(identifier)[: len(wanted) + 4] for identifier in found)[:5])
        raise UnknownJobError(f"'{text}' stands for {len(found)} {what}s ({some}); give more characters")
    raise UnknownJobError(f"no {what} has an id that begins with '{text}'; {hint}")
