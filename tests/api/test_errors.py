"""Whatever goes wrong, the answer is a problem document, and it gives nothing away."""

from __future__ import annotations

import importlib
import pkgutil
import socket
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

import store
from api import bodies, errors
from api.app import app
from api.guards import DRAIN_FACTOR
from store import jobs
from store.errors import StoreError
from store.settings import settings
from tests.api import results
from tests.api.problems import problem

JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}


def subclasses(cls: type[Any]) -> set[type[Any]]:
    direct = set(cls.__subclasses__())
    return direct.union(*map(subclasses, direct))


def test_every_error_of_the_store_has_a_status() -> None:
    for module in pkgutil.iter_modules(store.__path__):
        importlib.import_module(f"store.{module.name}")
    assert subclasses(StoreError) == set(errors.STATUSES)


def test_unknown_routes_and_wrong_methods(shared: httpx.Client) -> None:
    assert "/v1/models" in problem(shared.get("/v1/models"), 404).detail
    problem(shared.get("/v1/jobs/"), 404)
    response = shared.put("/v1/jobs", json={})
    assert "PUT" in problem(response, 405).detail
    assert response.headers["allow"] == "GET, HEAD, POST", "all of them"
    assert shared.get(f"/v1/jobs/{uuid4()}/cancel").headers["allow"] == "POST"
    assert shared.post(f"/v1/jobs/{uuid4()}").headers["allow"] == "GET, HEAD, DELETE"


def test_head_is_get_without_the_content(shared: httpx.Client) -> None:
    for path in ("/v1/jobs", "/v1/catalog", "/healthz", "/openapi.json", f"/v1/jobs/{uuid4()}"):
        looked, read = shared.head(path), shared.get(path)
        assert (looked.status_code, looked.content) == (read.status_code, b"")
        for name in ("content-type", "content-length", "etag", "x-content-type-options"):
            assert looked.headers.get(name) == read.headers.get(name), f"{name} of {path}"
    refused = shared.head(f"/v1/jobs/{uuid4()}/cancel")
    assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "POST", b"")


OPERATIONS = [
    (method, path, operation) for path, item in app.openapi()["paths"].items() for method, operation in item.items()
]
ASKING = [path for _, path, operation in OPERATIONS if any(p["in"] == "query" for p in operation.get("parameters", ()))]


@pytest.mark.parametrize("path", ASKING)
def test_an_unknown_parameter_is_refused_where_there_are_others(shared: httpx.Client, path: str) -> None:
    (candidate_id,) = results.record(job_id := results.job(), 1)
    place = path.format(job_id=job_id, candidate_id=candidate_id)
    assert shared.get(place).status_code == 200
    found = problem(shared.get(place, params={"fromat": "onnx"}), 422)
    assert [error.path for error in found.errors] == ["/query/fromat"]


CHANGING = [
    (method, path)
    for method, path, operation in OPERATIONS
    if method in ("post", "delete") and not any(p["in"] == "query" for p in operation.get("parameters", ()))
]


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_what_changes_something_takes_no_parameter_that_it_does_not_know(
    shared: httpx.Client, method: str, path: str
) -> None:
    names = {"dataset_name": "leaves", "table_name": "nb201", "device_name": "pi"}
    place = path.format(job_id=uuid4(), candidate_id=uuid4(), **names)
    found = problem(shared.request(method, place, params={"dry_run": "true"}), 422)
    assert [error.path for error in found.errors] == ["/query/dry_run"]


def test_there_are_such_routes() -> None:
    assert len(ASKING) == 12


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "line 1"),
        (b"[]", "a list"),
        (b"null", "empty"),
        (b'"x"', "text"),
        (b'{"a": NaN}', "finite"),
        (b'{"budget": {"max_seconds": Infinity}}', "/budget/max_seconds"),
        (b'{"a": [1, -Infinity]}', "/a/1"),
        (b'{"a": 1e999}', "finite"),
        (b'{"a": 123456789012345678901234567890}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b'{"\\ud800": 1}', "half a character"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b'{"a": [' + b"1," * 20_000 + b"1]}", "too many values"),
    ],
)
def test_bodies_that_are_not_json_as_we_take_it(shared: httpx.Client, content: bytes, says: str) -> None:
    found = problem(shared.post("/v1/jobs", content=content, headers=JSON), 422)
    assert found.title == "Malformed body"
    assert says in found.detail


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [", "line 1"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("1: 2", "name of a field"),
        ("[x]: 2", "name of a field"),
        ("a: .nan", "finite"),
        ("a: .inf", "finite"),
        ("a: !!binary aGFsbG8=", "bytes"),
        ("a: !!set {x}", "set"),
        ("a: !!python/object/apply:os.system [ls]", "not YAML"),
        ("a: &x [*x]", "nested too deeply"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(f"{n}b: &{n}b [{','.join(['*a'] * 9)}]\n" for n in range(200)),
            "many",
        ),
        ("a: \a", "forbidden character"),
        ("--- 1\n--- 2", "not YAML"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_bodies_that_are_not_yaml_as_we_take_it(shared: httpx.Client, content: str, says: str) -> None:
    found = problem(shared.post("/v1/jobs", content=content.encode(), headers=YAML), 422)
    assert says in found.detail


def test_a_bomb_of_aliases_is_refused_before_it_is_unfolded(shared: httpx.Client) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    response = shared.post("/v1/jobs", content="\n".join(lines).encode(), headers=YAML)
    assert "too many values" in problem(response, 422).detail


def test_merge_keys_are_no_keys(shared: httpx.Client) -> None:
    response = shared.post("/v1/jobs", content=b"base: &b {x: 1}\nspace:\n  <<: *b\n", headers=YAML)
    assert any(error.path == "/space/name" for error in problem(response, 422).errors)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "", "nonsense"])
def test_other_media_types_are_not_taken(shared: httpx.Client, media: str) -> None:
    response = shared.post("/v1/jobs", content=b"{}", headers={"Content-Type": media})
    assert "application/yaml" in problem(response, 415).detail


def test_a_large_body_is_refused(shared: httpx.Client) -> None:
    large = b'{"a": "' + b"x" * settings().max_body_bytes + b'"}'
    for content in (large, iter([large])):  # announced, and chunk by chunk
        response = shared.post("/v1/jobs", content=content, headers=JSON)
        assert str(settings().max_body_bytes) in problem(response, 413).detail
    yaml = b"a: " + b"x" * bodies.MAX_YAML_BYTES
    assert "YAML" in problem(shared.post("/v1/jobs", content=yaml, headers=YAML), 413).detail


def answer_to(shared: httpx.Client, *parts: bytes) -> bytes:
    """Head of the answer to a request that is never finished."""
    with socket.create_connection((shared.base_url.host, shared.base_url.port), timeout=20) as connection:
        for part in (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n", *parts):
            connection.sendall(part)
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = connection.recv(65536)
            assert received, "closed without an answer"
            answer += received
    return answer.lower()


def test_a_very_large_body_is_not_read_to_its_end(shared: httpx.Client) -> None:
    announced = answer_to(shared, f"Content-Length: {DRAIN_FACTOR * settings().max_body_bytes + 1}\r\n\r\n".encode())
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = b"Transfer-Encoding: chunked\r\n\r\n"
    endless = answer_to(shared, head, *[chunk] * (DRAIN_FACTOR * settings().max_body_bytes // 0x10000), b"1\r\nx\r\n")
    for answer in (announced, endless):
        assert answer.startswith(b"http/1.1 413")
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer


def test_what_failed_inside_is_not_told(shared: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("postgresql://user:secret@host")

    monkeypatch.setattr(jobs, "page", broken)
    response = shared.get("/v1/jobs")
    problem(response, 500)
    assert response.headers["connection"] == "close"
    assert "secret" not in response.text


def test_a_database_that_does_not_answer(shared: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any, **__: Any) -> Any:
        raise OperationalError("SELECT secret", {}, Exception("database is locked"))

    monkeypatch.setattr(jobs, "page", locked)
    response = shared.get("/v1/jobs")
    problem(response, 503)
    assert response.headers["retry-after"]
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (2**70, str(2**70)),
        ("x" * 1000, "x" * 200 + "..."),
        ("\ud800", "\\ud800"),
        ([1, 2], "[1, 2]"),
        (object(), "object"),
        (True, True),
        (None, None),
    ],
)
def test_what_came_is_shown_as_far_as_it_can_be(value: Any, shown: Any) -> None:
    assert errors.echo(value) == shown


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
NAMES = st.sampled_from(["name", "space", "key", "darts", "error", "cells", "channels", "max", "objectives"]) | st.text(
    max_size=5
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
FIELDS = ["name", "space", "target", "dataset", "objectives", "constraints", "reference_point", "algorithm", "budget"]


@hypothesis_settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from([*FIELDS, "verify", "resources", "seed", "labels"]), VALUES, max_size=3))
def test_any_document_is_taken_or_refused_as_a_problem(
    shared: httpx.Client, spec: dict[str, Any], changes: dict[str, Any]
) -> None:
    import json

    content = json.dumps({**spec, **changes})
    response = shared.post("/v1/jobs", content=content.encode(), headers=JSON)
    if response.status_code != 201:
        found = problem(response, 422)
        assert all(error.path == "" or error.path.startswith("/") for error in found.errors)


@hypothesis_settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=60) | st.text(alphabet='{}[]:,"-&*!#|>%@` \nab0.~<', max_size=60).map(str.encode))
def test_any_bytes_are_taken_or_refused_as_a_problem(shared: httpx.Client, content: bytes) -> None:
    for headers in (JSON, YAML):
        problem(shared.post("/v1/jobs", content=content, headers=headers), 422)
