"""Every error leaves as ``application/problem+json`` (RFC 9457): what came, what would do and what next.

Our own sixty lines rather than a package: ``docs/decisions/0003-problem-details.md`` says why.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.headers import HEADERS
from skyline.schemas import FieldError, Problem
from store import errors as store_errors
from store.errors import StoreError

PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 2
"""What a client is told to wait before it asks again, seconds."""
ECHO_CHARACTERS = 200
"""How much of a refused value is sent back."""
SECRET = re.compile(r"(skl_[A-Za-z0-9_-]{8})[A-Za-z0-9_-]+")
"""An API key, which may have come in the wrong place; its first characters are no secret."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

log = logging.getLogger(__name__)

STATUSES: Mapping[type[StoreError], tuple[HTTPStatus, str]] = {
    store_errors.NotFoundError: (HTTPStatus.NOT_FOUND, "Not found"),
    store_errors.IllegalTransitionError: (HTTPStatus.CONFLICT, "Not possible in this state"),
    store_errors.NotRetriableError: (HTTPStatus.CONFLICT, "Not possible in this state"),
    store_errors.LeaseLostError: (HTTPStatus.CONFLICT, "Lease lost"),
    store_errors.InvalidCursorError: (HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid cursor"),
    store_errors.SeveralHostsError: (HTTPStatus.CONFLICT, "SQLite serves one host"),
    store_errors.DatasetExistsError: (HTTPStatus.CONFLICT, "Name in use"),
    store_errors.TooManyDatasetsError: (HTTPStatus.CONFLICT, "Too many data sets"),
    store_errors.TableExistsError: (HTTPStatus.CONFLICT, "Name in use"),
    store_errors.TooManyTablesError: (HTTPStatus.CONFLICT, "Too many tables"),
    store_errors.TableInUseError: (HTTPStatus.CONFLICT, "Table in use"),
    store_errors.TableGoneError: (HTTPStatus.CONFLICT, "Table gone"),
    store_errors.JobInUseError: (HTTPStatus.CONFLICT, "Job in use"),
    store_errors.OriginGoneError: (HTTPStatus.CONFLICT, "Nothing to go on from"),
    store_errors.BroughtGoneError: (HTTPStatus.CONFLICT, "File of a candidate gone"),
    store_errors.TooManyDevicesError: (HTTPStatus.CONFLICT, "Too many devices"),
    store_errors.InvalidKeyError: (HTTPStatus.UNAUTHORIZED, "API key"),
    store_errors.TooManyOpenJobsError: (HTTPStatus.CONFLICT, "Too many jobs under way"),
    store_errors.IdempotencyConflictError: (HTTPStatus.CONFLICT, "Idempotency-Key in use"),
    store_errors.SchemaMismatchError: (HTTPStatus.SERVICE_UNAVAILABLE, "Database schema does not match"),
    store_errors.ArtefactsAwayError: (HTTPStatus.SERVICE_UNAVAILABLE, "Artefact store unavailable"),
    store_errors.ArtefactUrlError: (HTTPStatus.SERVICE_UNAVAILABLE, "Artefact store not set up"),
    store_errors.MissingArtefactError: (HTTPStatus.NOT_FOUND, "File missing"),
    store_errors.DamagedArtefactError: (HTTPStatus.INTERNAL_SERVER_ERROR, "File damaged"),
    store_errors.QuotaExceededError: (HTTPStatus.INSUFFICIENT_STORAGE, "Quota exceeded"),
}
"""Status and title of each error of the store; a test finds every subclass here."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request."""

    title: str
    detail: str
    path: str
    """JSON pointer into the request."""
    got: Any
    expected: str

    def field(self) -> FieldError:
        return FieldError(path=self.path, got=echo(self.got), expected=self.expected)


class ProblemError(Exception):
    """Raised by the API itself where no error of a lower room says it."""

    def __init__(
        self,
        status: HTTPStatus,
        title: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail, errors=list(errors))
        self.headers = dict(headers or {})


def refusal(faults: Sequence[Fault], title: str = "Invalid request") -> ProblemError:
    """422 for all that is wrong with a request, not just the first thing; a single fault gives its own title."""
    if len({fault.title for fault in faults}) == 1:
        title = faults[0].title
    detail = "; ".join(dict.fromkeys(fault.detail for fault in faults))
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, title, detail, [fault.field() for fault in faults])


def unavailable(title: str, detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, title, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def pointer(parts: Iterable[object]) -> str:
    """RFC 6901: ``("objectives", 0)`` -> ``/objectives/0``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def echo(value: Any) -> Any:
    """A refused value fit to be sent back: JSON has no NaN, and nobody wants their megabyte returned."""
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int | float):
        finite = not isinstance(value, float) or math.isfinite(value)
        return value if finite and abs(value) < 2**63 else str(value)[:ECHO_CHARACTERS]
    if isinstance(value, str):
        text = value.encode("utf-8", "backslashreplace").decode()
        return text if len(text) <= ECHO_CHARACTERS else text[:ECHO_CHARACTERS] + "..."
    text = repr(value) if isinstance(value, dict | list | tuple) else type(value).__name__
    return text if len(text) <= ECHO_CHARACTERS else text[:ECHO_CHARACTERS] + "..."


def answer(request: Request, problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    located = problem.model_copy(update={"instance": request.url.path})
    return Response(SECRET.sub(r"\1...", located.model_dump_json()), problem.status, dict(headers or {}), PROBLEM_JSON)


def _own(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return answer(request, error.problem, error.headers)


def _store(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    status, title = STATUSES[type(error)]
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return answer(request, Problem(title=title, status=status, detail=str(error)), headers)


def _http(request: Request, error: Exception) -> Response:
    """Unknown routes and wrong methods, as the framework raises them."""
    assert isinstance(error, HTTPException)
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    detail = str(error.detail)
    if status == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path}; /docs lists what there is"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request)
        detail = f"{request.method} is not possible at {request.url.path}; it takes {headers['Allow']}"
    return answer(request, Problem(title=status.phrase, status=status, detail=detail), headers)


def _allowed(request: Request) -> str:
    """Every method that something at this path takes: the framework names those of the first route alone."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)

    return ", ".join(method for method in METHODS if taken(method))


def _parameters(request: Request, error: Exception) -> Response:
    """Path, query and header parameters that do not fit (bodies are read by api.bodies)."""
    assert isinstance(error, RequestValidationError)
    faults: dict[str, Fault] = {}
    for item in error.errors():
        place, name = item["loc"][0], str(item["loc"][1]) if len(item["loc"]) > 1 else ""
        path = pointer(item["loc"][:2])  # what follows names a branch of a union
        wanted = expectation(item)
        detail = f"{place} parameter '{name}': got {echo(item.get('input'))!r}; expected {wanted}"
        faults.setdefault(path, Fault("Invalid parameter", detail, path, item.get("input"), wanted))
    refused = refusal(list(faults.values()), "Invalid parameters")
    return answer(request, refused.problem)


def expectation(item: Mapping[str, Any]) -> str:
    """What would do, out of one pydantic error."""
    kind, message = str(item["type"]), str(item["msg"])
    if kind == "missing":
        return "a value: it is required"
    if kind == "extra_forbidden":
        return "nothing: there is no such field"
    for opening in ("Input should be ", "Value error, ", "Assertion failed, "):
        message = message.removeprefix(opening)
    return message


def database_away(request: Request, error: Exception) -> Response:
    """503; the cause goes to the log."""
    log.error("database unavailable at %s", request.url.path, exc_info=error)
    detail = "the database did not answer in time; nothing was changed, ask again"
    refused = unavailable("Database unavailable", detail)
    return answer(request, refused.problem, refused.headers)


def _internal(request: Request, error: Exception) -> Response:
    """The cause goes to the log (the server writes it): its text may hold paths, queries or secrets."""
    detail = "the service failed on this request; its log has the cause"
    problem = Problem(title="Internal error", status=HTTPStatus.INTERNAL_SERVER_ERROR, detail=detail)
    # The server closes the connection after an error; a client that was not told would lose its next request.
    # This answer is made outside of all else that adds headers.
    return answer(request, problem, {**HEADERS, "Connection": "close"})


def install(app: FastAPI) -> None:
    app.add_exception_handler(ProblemError, _own)
    app.add_exception_handler(StoreError, _store)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(OperationalError, database_away)
    app.add_exception_handler(PoolTimeoutError, database_away)
    app.add_exception_handler(Exception, _internal)
