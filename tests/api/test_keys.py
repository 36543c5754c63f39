"""Nobody comes in without a key, or further than the key goes, on any route; and no key is ever repeated."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select, update

from api.app import app
from api.guards import OPEN, scope_of
from store import jobs, keys
from store.models import ApiKey, Base, Job
from store.session import now, reading, unit_of_work
from tests.api.problems import problem

DOCUMENT = app.openapi()
ROUTES = [(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item if path not in OPEN]
PAGES = [("GET", "/docs"), ("GET", "/openapi.json")]
CLOSED = [*ROUTES, *PAGES]
WRITES = [(method, path) for method, path in ROUTES if method != "GET"]
WRONG = "skl_" + "W" * 43
Ask = Callable[..., httpx.Response]


def concrete(path: str) -> str:
    for name in ("job_id", "candidate_id", "dataset_name"):
        path = path.replace(f"{{{name}}}", str(uuid4()))
    assert "{" not in path
    return path


def new_key(scope: keys.Scope = "admin", **options: Any) -> str:
    with unit_of_work() as session:
        return keys.create(session, f"{scope} key", scope, **options)[1]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def guarded(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> httpx.Client:
    """A service that asks for keys, as it does where nothing is set."""
    monkeypatch.delenv("SKYLINE_KEYS")
    return client


# --- every route ------------------------------------------------------------------------------------------------------


def test_the_walk_meets_every_kind_of_route() -> None:
    assert ("GET", "/v1/jobs/{job_id}/events") in ROUTES and ("GET", "/v1/jobs/{job_id}/log") in ROUTES
    assert ("GET", "/metrics") in ROUTES and ("GET", "/v1/version") in ROUTES
    assert {scope_of(method) for method, _ in WRITES} == {"submit", "admin"}
    assert set(DOCUMENT["paths"]) - {path for _, path in ROUTES} == OPEN


def test_without_a_key_every_route_is_closed(guarded: httpx.Client) -> None:
    for method, path in CLOSED:
        response = guarded.request(method, concrete(path))
        assert "SKYLINE_API_KEY" in problem(response, 401).detail, f"{method} {path}"
        assert response.headers["www-authenticate"] == 'Bearer realm="skyline"'


@pytest.mark.parametrize(
    "header", [f"Bearer {WRONG}", "Bearer nonsense", "Bearer", "Basic dXNlcjpza2w=", WRONG, "bearer"]
)
def test_with_a_wrong_key_every_route_is_closed(guarded: httpx.Client, header: str) -> None:
    new_key()
    for method, path in CLOSED:
        response = guarded.request(method, concrete(path), headers={"Authorization": header})
        problem(response, 401)
        assert WRONG not in response.text + str(response.headers)


def test_with_a_read_key_every_write_is_closed(guarded: httpx.Client) -> None:
    headers = bearer(new_key("read"))
    for method, path in WRITES:
        response = guarded.request(method, concrete(path), headers=headers)
        needed = scope_of(method)
        assert needed in problem(response, 403).detail, f"{method} {path}"
        assert f'error="insufficient_scope", scope="{needed}"' in response.headers["www-authenticate"]


def test_with_a_read_key_every_look_is_open(guarded: httpx.Client) -> None:
    headers = bearer(new_key("read"))
    for method, path in CLOSED:
        if method == "GET":
            response = guarded.get(concrete(path), headers=headers)
            assert response.status_code in (200, 404), f"{path}: {response.text}"


def test_with_an_admin_key_every_route_is_open(guarded: httpx.Client) -> None:
    headers = bearer(new_key("admin"))
    for method, path in CLOSED:
        response = guarded.request(method, concrete(path), headers=headers)
        assert response.status_code not in (401, 403), f"{method} {path}"


def test_a_submit_key_posts_and_stops_but_does_not_delete(guarded: httpx.Client, spec: dict[str, Any]) -> None:
    secret = new_key("submit")
    headers = bearer(secret)
    made = guarded.post("/v1/jobs", json=spec, headers=headers)
    assert made.status_code == 201
    location = made.headers["location"]
    with reading() as session:
        owner = session.scalars(select(ApiKey)).one().id
        assert session.get_one(Job, UUID(made.json()["id"])).owner_key == owner
    assert guarded.post(f"{location}/cancel", headers=headers).json()["status"] == "cancelled"
    assert "scope admin" in problem(guarded.delete(location, headers=headers), 403).detail
    assert guarded.delete(location, headers=bearer(new_key("admin"))).status_code == 204


def test_health_is_open(guarded: httpx.Client) -> None:
    assert guarded.get("/healthz").json() == {"status": "ok"}
    assert guarded.get("/readyz").json()["database"] == "ok"
    for path in ("/healthz/", "/readyz/x", "/v1/healthz"):
        problem(guarded.get(path), 401)


def test_what_does_not_exist_is_not_told_to_strangers(guarded: httpx.Client) -> None:
    problem(guarded.get("/v1/secrets"), 401)
    problem(guarded.get("/v1/secrets", headers=bearer(new_key())), 404)
    problem(guarded.request("PROPFIND", "/v1/jobs", headers=bearer(new_key("read"))), 403)


def test_the_document_says_what_each_route_needs() -> None:
    assert DOCUMENT["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if path in OPEN:
                assert "security" not in operation
                continue
            assert operation["security"] == [{"key": [scope_of(method.upper())]}]
            assert {"401", "403", "429"} <= set(operation["responses"])


# --- keys that end ----------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_at_once(guarded: httpx.Client) -> None:
    secret = new_key()
    assert guarded.get("/v1/jobs", headers=bearer(secret)).status_code == 200
    with unit_of_work() as session:
        keys.revoke(session, secret[:12])
    response = guarded.get("/v1/jobs", headers=bearer(secret))
    assert "was revoked" in problem(response, 401).detail
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


def test_an_expired_key_is_refused(guarded: httpx.Client) -> None:
    secret = new_key(lifetime=timedelta(days=1))
    assert guarded.get("/v1/jobs", headers=bearer(secret)).status_code == 200
    with unit_of_work() as session:
        session.execute(update(ApiKey).values(expires_at=now(session) - timedelta(seconds=1)))
    assert "expired at" in problem(guarded.get("/v1/jobs", headers=bearer(secret)), 401).detail


def test_use_is_noted(guarded: httpx.Client) -> None:
    secret = new_key("read")
    guarded.get("/v1/jobs", headers={"authorization": f"bEaReR   {secret}"})
    with reading() as session:
        first = keys.verify(session, secret).last_used_at
    assert first is not None
    guarded.get("/v1/jobs", headers=bearer(secret))
    with reading() as session:
        assert keys.verify(session, secret).last_used_at == first


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_key_is_in_a_log_a_row_or_an_answer(
    guarded: httpx.Client, spec: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = new_key()
    said = ""
    for key in (secret, WRONG):
        for method, path in CLOSED:
            response = guarded.request(method, concrete(path), headers=bearer(key))
            said += response.text + str(response.headers)
        made = guarded.post("/v1/jobs", json=spec, headers={**bearer(key), "Idempotency-Key": f"once-{key[-3:]}"})
        said += made.text

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("postgresql://user:hidden@host")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "page", broken)
        response = guarded.get("/v1/jobs", headers=bearer(secret))
        said += problem(response, 500).model_dump_json()
        assert response.headers["x-content-type-options"] == "nosniff"
    logged = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpcore"))
    with reading() as session:
        rows = "".join(str(session.execute(select(table)).all()) for table in Base.metadata.sorted_tables)
    for key in (secret, WRONG):
        assert key[12:] not in said
        assert key[12:] not in logged
        assert key[12:] not in rows
    assert "hidden" not in said


def test_a_key_in_the_wrong_place_is_not_repeated(guarded: httpx.Client) -> None:
    secret = new_key()
    for response in (
        guarded.get("/v1/jobs", params={"api_key": secret}, headers=bearer(secret)),
        guarded.get(f"/v1/jobs/{secret}", headers=bearer(secret)),
        guarded.post("/v1/jobs", json={"name": secret}, headers=bearer(secret)),
        guarded.get("/v1/jobs", params={"api_key": secret}),
    ):
        assert response.status_code in (401, 422)
        assert secret[12:] not in response.text


def test_addresses_with_passwords_are_not_told(
    guarded: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", "postgresql://user:hidden@127.0.0.1:1/x")
    monkeypatch.setenv("SKYLINE_BROKER_URL", "redis://:concealed@127.0.0.1:1/0")
    answers = [guarded.get(path, headers=bearer(WRONG)) for path in ("/v1/jobs", "/readyz")]
    problem(answers[0], 503)
    assert answers[1].status_code == 503
    told = "".join(response.text for response in answers) + caplog.text
    assert "hidden" not in told and "concealed" not in told


# --- off --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8765", "127.0.0.1:1", "127.3.2.1", "[::1]:8765"])
def test_where_keys_are_off_this_machine_needs_none(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.5:8765", "localhost.evil.example", "0.0.0.0", "a:b:c", "[x"])
def test_where_keys_are_off_a_foreign_name_is_refused(client: httpx.Client, host: str) -> None:
    for method, path in CLOSED:
        response = client.request(method, concrete(path), headers={"Host": host})
        assert "SKYLINE_KEYS=required" in problem(response, 403).detail, f"{method} {path}"
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example:8765"])
def test_where_keys_are_off_pages_of_others_change_nothing(client: httpx.Client, origin: str) -> None:
    for method, path in WRITES:
        response = client.request(method, concrete(path), headers={"Origin": origin})
        assert "pages of other sites" in problem(response, 403).detail
    assert client.get("/v1/jobs", headers={"Origin": origin}).status_code == 200
    own = {"Origin": "http://127.0.0.1:8765"}
    problem(client.post(f"/v1/jobs/{uuid4()}/cancel", headers=own), 404)
