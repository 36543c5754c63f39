"""What the OpenAPI document says beyond the signatures: problems, bodies, examples."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.errors import PROBLEM_JSON
from api.guards import OPEN, scope_of
from skyline.schemas import DatasetRegistration, DeviceProfile, Problem, TableRegistration, TransferSpec

DESCRIPTION = """
Neural-architecture search as a service: post a job, get a Pareto front of networks that were really trained and
really measured.

Errors are problem details (RFC 9457) with `errors: [{path, got, expected}]`; `path` is a JSON pointer into the
request. Lists are paged by `cursor` and `limit`. Live workers publish what can be asked for at `/v1/catalog`.

Every call but `/healthz` and `/readyz` needs an API key, unless keys are off (a service for its own machine alone):
`Authorization: Bearer skl_...`. `skyline keys create` makes one.
"""

TAGS = [
    {"name": "jobs", "description": "Search jobs: check, post, list, stop, retry, delete."},
    {"name": "results", "description": "Fronts, candidates and the networks themselves."},
    {"name": "events", "description": "What happens in a job, live or as pages, and what its processes print."},
    {
        "name": "catalog",
        "description": "What live workers can run; data sets, tables and devices under names of your own.",
    },
    {"name": "health", "description": "Liveness and readiness."},
]

PROBLEMS: dict[int, tuple[str, dict[str, Any]]] = {
    401: (
        "No API key came, or one that opens nothing.",
        {"title": "API key", "detail": "this service asks for an API key, and none came"},
    ),
    403: (
        "The API key may do less than this; or keys are off and the request did not come from this machine.",
        {"title": "Scope", "detail": "this API key may read, and this needs a key with scope submit"},
    ),
    404: (
        "There is no such thing.",
        {"title": "Not found", "detail": "no job '0b0e4c4e-7f0c-4b53-9f0c-5c4c2f6f2d11'"},
    ),
    409: (
        "Not possible in this state.",
        {
            "title": "Not possible in this state",
            "detail": "job 0b0e4c4e-7f0c-4b53-9f0c-5c4c2f6f2d11 is succeeded and cannot be cancelled",
        },
    ),
    413: (
        "The body is too large.",
        {"title": "Body too large", "detail": "the body is larger than 262144 bytes, the most that is taken"},
    ),
    415: (
        "The body is neither JSON nor YAML.",
        {
            "title": "Unsupported media type",
            "detail": "got content type 'text/plain'; send application/json or application/yaml",
        },
    ),
    416: (
        "`Range` lies outside the file.",
        {
            "title": "Range outside the file",
            "detail": "range 'bytes=4096-' lies outside the file, which has 2048 bytes",
        },
    ),
    429: (
        "The API key asks too often; ask again after `Retry-After` seconds.",
        {"title": "Too many requests", "detail": "this API key may ask 600 times a minute; ask again in 7 s"},
    ),
    422: (
        "Something asked for does not fit; `errors` says what came and what would do.",
        {
            "title": "Unknown algorithm",
            "detail": "unknown algorithm 'nsga3'; known: darts, nsga2, random",
            "errors": [{"path": "/algorithm/name", "got": "nsga3", "expected": "one of darts, nsga2, random"}],
        },
    ),
    500: (
        "The service failed; its log has the cause.",
        {"title": "Internal error", "detail": "the service failed on this request; its log has the cause"},
    ),
    507: (
        "Artefacts take all the room that they may take; delete jobs, or raise the limit.",
        {
            "title": "Quota exceeded",
            "detail": "artefacts take 2,051.3 MB, and 2,000 MB is the limit (SKYLINE_ARTEFACT_QUOTA_MB); "
            "delete jobs that are no longer needed ('skyline delete JOB'), or raise the limit",
        },
    ),
    503: (
        "Something the service needs is away; ask again after `Retry-After` seconds.",
        {"title": "No worker", "detail": "no worker has registered; start one with 'skyline worker' and ask again"},
    ),
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """Documents the errors of an operation; 500 and 503 can always happen."""
    documented: Responses = {}
    for status in sorted({*statuses, 500, 503}):
        description, example = PROBLEMS[status]
        body = {"type": "about:blank", "status": status, "instance": "/v1/jobs", "errors": [], **example}
        content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": body}}
        documented[status] = {"description": description, "content": content}
    return documented


REGISTERING = problems(
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""Of whatever keeps a document under a name."""


def answers(example: Any, status: HTTPStatus = HTTPStatus.OK) -> Responses:
    """Documents an operation's answer by an example."""
    return {int(status): {"content": {"application/json": {"example": example}}}}


def document_body(model: type[BaseModel], example: Any, required: bool = True) -> dict[str, Any]:
    """A body in either language (api.bodies reads it, so the framework cannot know)."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    media = {"application/json": {"schema": schema, "example": example}, "application/yaml": {"schema": schema}}
    return {"requestBody": {"required": required, "content": media}}


def operation_id(route: APIRoute) -> str:
    return route.name


def _secure(operation: dict[str, Any], method: str) -> None:
    """What the guards in front of every route may answer."""
    scope = scope_of(method)
    operation["security"] = [{"key": [scope]}]
    statuses = (401, 403, 429) if scope == "read" else (401, 403, 413, 429)
    made = {str(status): answer for status, answer in problems(*statuses).items()}
    operation["responses"] = dict(sorted({**made, **operation["responses"]}.items()))


def install(app: FastAPI) -> None:
    """Adds what the framework cannot know to the document that it makes: the shape of problems and of bodies that we
    read ourselves, and keys with what they may end in.
    """
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document["components"]["schemas"]
        for model in (Problem, TransferSpec, DatasetRegistration, TableRegistration, DeviceProfile):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, part in schema.pop("$defs").items():
                schemas.setdefault(name, part)
            schemas[model.__name__] = schema
        described = (
            "An API key; 'skyline keys create' makes one. Each scope holds those before it: read, submit, admin."
        )
        scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "skl_...", "description": described}
        document["components"]["securitySchemes"] = {"key": scheme}
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if path not in OPEN:
                    _secure(operation, method.upper())
        return document

    app.openapi = openapi  # type: ignore[method-assign]
