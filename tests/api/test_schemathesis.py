"""Every operation of the OpenAPI document, driven by schemathesis: no 500, no answer that the document does not name.

All its checks are on. Requests are made from the document; half of the ids in them are those of real jobs and
candidates, so that more than 404 is seen. `make fuzz` tries more than a run of the suite does, on both databases;
here it is PostgreSQL, the stricter one (test_forged asks both).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest
import schemathesis
from hypothesis import given
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NotSet
from schemathesis.generation.meta import TestPhase

from api.app import app
from api.guards import OPEN
from nas_core.exports import exports
from tests.api import jobspecs, results
from tests.api.conftest import populated_on
from tests.api.populated import Service, ended
from tests.api.test_jobspecs import CATALOG
from tests.fuzz import EXAMPLES, THOROUGH, fuzzed

pytestmark = pytest.mark.slow

STREAM = "text/event-stream"
LONGEST_WAIT = 0.02
"""Seconds that a request is held for a job that never moves on."""
MOST_WAIT = 60
"""Seconds of waiting that the service takes."""
LONGEST_FORMAT = 50
"""Characters that the name of a format may have."""
CHOOSY = {
    "create_job": "names, settings and bounds have to fit the catalog, which the document does not hold",
    "list_jobs": "a cursor has to be one that was handed out",
    "list_candidates": "so has it here, and 'sort' has to name an objective of the job",
    "read_table": "so has it here",
    "list_datasets": "a cursor has to be one that was handed out",
    "list_devices": "so has it here",
    "register_dataset": "names and settings have to fit the catalog, and the images have to be there",
    "list_tables": "a cursor has to be one that was handed out",
    "register_table": "the space has to be known, and the text has to be a table of it",
    "upload_profile": "rows have to be of parts that there are, each of them once",
    "verify_candidate": "what comes has to fit the candidate's job and the catalog",
    "read_front": "so has a bound",
    "read_model": "the formats are those that are installed",
}
"""Operations that refuse (422) some of what their schema allows, and why the schema cannot say so."""
CONFIG = {
    # Headers that nobody asked for come with every request; for unknown parameters see tests/api/test_errors.py
    "generation": {
        "max-examples": EXAMPLES,
        "deterministic": True,
        "database": "none",
        "allow-extra-parameters": False,
    },
    "checks": {
        # A job that has ended is not cancelled, a candidate without weights has no file: 409 is their right answer.
        "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "409"]},
    },
    "operations": [
        {
            "include-operation-id": name,
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "409", "422"]}},
        }
        for name in CHOOSY
    ],
}


def read(config: dict[str, Any]) -> Any:
    """The document; nothing is asked yet."""
    made = schemathesis.openapi.from_dict(app.openapi(), config=SchemathesisConfig.from_dict(config))
    made.app = app  # as from_asgi does, which would need a database now
    return made


schema = read(CONFIG)
at_random = read({**CONFIG, "phases": {"coverage": {"enabled": False}}})
"""Without going through all forms of a body one by one, which says nothing where no body is read."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if THOROUGH else ["postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    yield from populated_on(request, tmp_path_factory)


@schema.parametrize()
@fuzzed()
def test_every_answer_is_one_that_the_document_names(case: Case, service: Service) -> None:
    if left_to_fuzzing(case):
        return
    settle(case, service)
    case.call_and_validate(headers=service.headers)


@at_random.parametrize()
@fuzzed(0.2)
def test_without_a_key_nothing_is_answered_but_that(case: Case, service: Service) -> None:
    settle(case, service)
    response = case.call(headers={"Authorization": ""})
    if case.operation.path not in OPEN:
        assert response.status_code == 401, response.text
        assert response.headers["content-type"] == ["application/problem+json"]


@fuzzed(4)
@given(spec=jobspecs.valid(CATALOG))
def test_a_job_from_the_catalog_is_answered_as_documented(service: Service, spec: dict[str, Any]) -> None:
    case = schema["/v1/jobs"]["POST"].Case(body=spec, media_type="application/json")
    response = case.call_and_validate(headers=service.headers)
    assert response.status_code == 201
    path = {"job_id": response.json()["id"]}
    schema["/v1/jobs/{job_id}"]["GET"].Case(path_parameters=path).call_and_validate(headers=service.headers)


FRESH: dict[str, Callable[[], UUID]] = {
    "cancel_job": results.job,
    "retry_job": lambda: ended("failed"),
    "delete_job": ended,
}
"""What these do to a job is done once."""
NUMBERS = count()


def left_to_fuzzing(case: Case) -> bool:
    """Of the forms of a body that are gone through one by one, hundreds of some, a run of the suite asks a fourth, the
    same each time; `make fuzz` asks all.
    """
    if THOROUGH or isinstance(case.body, NotSet) or case.meta is None:
        return False
    if case.meta.phase.name is not TestPhase.COVERAGE:
        return False
    return bool(crc32(repr(case.body).encode()) % 4)


def settle(case: Case, service: Service) -> None:
    """Real ids and formats for half of the made ones; no waiting for what never comes."""
    name = case.operation.definition.raw["operationId"]
    headers, query, path = case.headers or {}, case.query or {}, case.path_parameters or {}
    for parameter, known in (("job_id", service.jobs), ("candidate_id", service.candidates)):
        made = uuid_of(path.get(parameter))
        if made is not None and made.int % 2:
            path[parameter] = str(FRESH[name]() if name in FRESH else known[made.int // 2 % len(known)])
    if name == "read_events" and STREAM in str(headers.get("accept", "")).lower():
        headers["accept"] = "application/json"  # streams of living jobs have no end: tests/api/test_events.py
    if name == "read_job" and longer(query.get("wait")):
        query["wait"] = LONGEST_WAIT
    elif name == "read_job" and isinstance(query.get("wait"), list):
        query["wait"] = "soon"  # a list of one number would be written, and read, as that number
    asked = query.get("format")
    if name == "read_model" and isinstance(asked, str) and len(asked) < LONGEST_FORMAT and next(NUMBERS) % 2:
        query["format"] = list(exports)[next(NUMBERS) // 2 % len(exports)]
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and key.isascii() and key.isalnum() and next(NUMBERS) % 4:
        headers["Idempotency-Key"] = f"{key[:200]}{next(NUMBERS)}"  # most keys are new, whatever the body


def longer(wait: object) -> bool:
    """Whether the service would wait that long; what is beyond its limit it has to refuse."""
    try:
        return LONGEST_WAIT < float(str(wait)) <= MOST_WAIT
    except ValueError:
        return False


def uuid_of(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None
