"""What can go wrong between a client and the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skyline.schemas.answers import Job
    from skyline.schemas.problems import FieldError, Problem


class ClientError(Exception):
    """Base of all errors that the client raises on purpose."""


class ConnectionFailed(ClientError):
    """Nothing answered at the address of the service."""

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(
            f"no Skyline service answers at {url} ({why}); start one with 'skyline serve', "
            "or name another by SKYLINE_URL or --url"
        )


class InvalidUrlError(ClientError):
    """The address of the service cannot be one."""

    def __init__(self, url: str, why: str) -> None:
        self.url, self.why = url, why
        super().__init__(f"'{url}' is no address of a service ({why}); one looks like http://127.0.0.1:8765")


class InvalidApiKeyError(ClientError):
    """The API key cannot be one; the message does not hold it."""

    def __init__(self) -> None:
        super().__init__(
            "the API key (--api-key, SKYLINE_API_KEY) holds characters that no key has; "
            "one is skl_ and 43 letters, digits, - or _"
        )


class InvalidSpecError(ClientError):
    """A job, or a data set, that was refused before it was sent: the file cannot be read, or a field does not hold what
    it should.
    """

    def __init__(self, source: str, why: str, what: str = "job") -> None:
        self.source, self.why = source, why
        super().__init__(f"{source} is no valid {what}: {why}")


class UnknownJobError(ClientError):
    """An abbreviated job id that no job, or more than one, has."""


class WaitTimeoutError(ClientError):
    """A job did not get as far as was waited for."""


class NotSucceededError(ClientError):
    """A job that has not ended, or ended in another way: its front is no result. ``job`` is the job."""

    def __init__(self, job: Job) -> None:
        from skyline.schemas.answers import ENDED

        self.job = job
        if job.status in ENDED:
            text = f"ended as {job.status}" + (f": {job.reason}" if job.reason else "")
        else:
            text = f"is {job.status} ({100 * job.progress:.0f} %), so its front may still change; wait for its end"
        super().__init__(f"job {job.id} {text}")


class InvalidRequirementError(ClientError):
    """A requirement that cannot be held against a front."""

    def __init__(self, text: str, why: str) -> None:
        self.text, self.why = text, why
        super().__init__(f"requirement '{text:.100}': {why}")


class ApiError(ClientError):
    """The service answered with an error; ``problem`` is what it said (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.status = problem, problem.status
        lines = [f"{problem.title} ({problem.status}): {problem.detail}"]
        untold = [error for error in problem.errors if not _told(error, problem.detail)]
        lines += [f"  {_where(error)}: {error.expected} (got {error.got!r})" for error in untold]
        super().__init__("\n".join(lines))


def _told(error: FieldError, detail: str) -> bool:
    """Whether the detail names the place and what would do."""
    named = any(f"{place}: " in detail for place in (_where(error), error.path))
    return named and error.expected in detail


def _where(error: FieldError) -> str:
    """``/objectives/0/name`` as people write it: ``objectives.0.name``."""
    return error.path.strip("/").replace("/", ".") or "body"
