"""Nobody comes in without a key, or further than the key goes, on any route; and no key is ever repeated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import URL

from api import startup
from api.app import app
from api.guards import OPEN, scope_of
from store import jobs, keys
from store.errors import SchemaMismatchError
from store.models import ApiKey, Base, Job
from store.session import check_schema, now, reading, unit_of_work
from tests.api.problems import problem

DOCUMENT = app.openapi()
ROUTES = [(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item if path not in OPEN]
PAGES = [("GET", "/docs"), ("GET", "/openapi.json")]
CLOSED = [*ROUTES, *PAGES]
WRITES = [(method, path) for method, path in ROUTES if method != "GET"]
WRONG = "skl_" + "W" * 43
Ask = Callable[..., httpx.Response]


def concrete(path: str) -> str:
    for name in ("job_id", "candidate_id", "dataset_name", "table_name", "device_name"):
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


def routes(found: Iterable[Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """Paths and methods of an application's routes, whichever routers hold them."""
    for route in found:
        if hasattr(route, "path"):
            yield route.path, frozenset(route.methods)
        else:
            yield from routes(route.original_router.routes)


def test_the_walk_meets_every_route_of_the_application() -> None:
    """What the document does not tell of, nobody would have looked at."""
    served = {(method, path) for path, methods in routes(app.routes) for method in methods - {"HEAD"}}
    assert served == {*CLOSED, *(("GET", path) for path in OPEN)}


METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"]
PATHS = sorted({path for _, path in CLOSED})


@pytest.mark.parametrize("method", METHODS)
def test_without_a_key_no_method_opens_anything(guarded: httpx.Client, method: str) -> None:
    for path in [*PATHS, "/", "/nothing", "/v1/jobs/", "//v1/jobs", "/healthz/../v1/jobs", "/v1/jobs%2f"]:
        response = guarded.request(method, concrete(path))
        assert response.status_code == 401, f"{method} {path}"
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", METHODS)
def test_with_a_read_key_every_method_that_is_no_look_is_closed(guarded: httpx.Client, method: str) -> None:
    headers = bearer(new_key("read"))
    looking = method in ("GET", "HEAD", "OPTIONS")
    for path in PATHS:
        response = guarded.request(method, concrete(path), headers=headers)
        assert response.status_code in ((200, 404, 405) if looking else (403,)), f"{method} {path}"
        assert response.status_code == 200 or response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("state", ["expired", "revoked", "in the query", "in a cookie", "in the name of a user"])
def test_a_key_that_does_not_count_opens_no_route(guarded: httpx.Client, state: str) -> None:
    secret = new_key(lifetime=timedelta(days=1))
    how: dict[str, Any] = {"headers": bearer(secret)}
    with unit_of_work() as session:
        if state == "expired":
            session.execute(update(ApiKey).values(expires_at=now(session) - timedelta(seconds=1)))
        elif state == "revoked":
            keys.revoke(session, secret[:12])
    if state == "in the query":
        how = {"params": dict.fromkeys(("api_key", "key", "token", "access_token", "authorization"), secret)}
    elif state == "in a cookie":
        how = {"headers": {"Cookie": f"authorization=Bearer {secret}; api_key={secret}"}}
    elif state == "in the name of a user":
        how = {"auth": (secret, secret)}
    for method, path in CLOSED:
        response = guarded.request(method, concrete(path), **how)
        problem(response, 401)
        assert secret[12:] not in response.text + str(response.headers), f"{method} {path}"


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
    guarded: httpx.Client,
    folder: Path,
    spec: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
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
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert secret[:12].encode() in kept, "the database's files are among them"
    for key in (secret, WRONG):
        assert key[12:].encode() not in kept
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


@pytest.mark.parametrize(
    "database",
    ["postgresql://user:hidden@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?user=me&password=hidden&connect_timeout=1"],
)
@pytest.mark.parametrize(
    "broker",
    [
        "redis://:concealed@127.0.0.1:1/0",
        "redis://user:concealed@127.0.0.1:1/0?password=concealed",
        "redis://:conce/aled@127.0.0.1:1/0",
        "redis://:conce#aled@127.0.0.1:1/0",
        "redis://:conce?aled@127.0.0.1:1/0",
        "amqp://user:concealed@127.0.0.1:1/",
    ],
)
def test_addresses_with_passwords_are_not_told(
    guarded: httpx.Client,
    database: str,
    broker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SKYLINE_DATABASE_URL", database)
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker)
    caplog.set_level(logging.DEBUG)
    answers = [guarded.request(method, concrete(path), headers=bearer(WRONG)) for method, path in CLOSED]
    for response in answers:
        problem(response, 503)
    ready = guarded.get("/readyz")
    assert ready.status_code == 503
    monkeypatch.setenv("SKYLINE_KEYS", "off")
    answers += [ready, guarded.get("/metrics"), guarded.get("/v1/jobs")]
    told = "".join(response.text + str(response.headers) for response in answers) + caplog.text
    assert "the database did not answer in time" in told and "database unavailable at /v1/jobs" in told
    for part in ("hidden", "conce", "aled"):
        assert part not in told


@pytest.mark.parametrize("broker", ["redis://:concealed@127.0.0.1:1/0", "redis://:conce/aled@127.0.0.1:1/0"])
def test_a_broker_that_takes_no_message_is_told_without_its_password(
    guarded: httpx.Client,
    spec: dict[str, Any],
    broker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker)
    caplog.set_level(logging.DEBUG)
    response = guarded.post("/v1/jobs", json=spec, headers=bearer(new_key()))
    assert response.status_code == 201, "the message waits"
    told = response.text + guarded.get("/readyz").text + caplog.text
    assert "the broker at redis://127.0.0.1:1/0 does not answer" in caplog.text
    for part in ("conce", "aled"):
        assert part not in told


def test_tables_of_another_version_are_told_without_a_password(
    guarded: httpx.Client, postgresql_server: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database ``postgres`` has none. This server lets anybody in, whatever password comes."""
    address = postgresql_server.set(password=None).update_query_dict({"password": "hidden"})
    monkeypatch.setenv("SKYLINE_DATABASE_URL", address.render_as_string(hide_password=False))
    said = guarded.get("/readyz").json()["database"]
    assert "has schema none" in said and "python -m store.migrate" in said
    with pytest.raises(SchemaMismatchError) as caught:
        check_schema()
    assert "hidden" not in said + str(caught.value) + str(startup.mismatch()) + caplog.text


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
