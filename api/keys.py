"""Who asks, and whether they may: a guard around the whole application, so that no route can forget it.

A route needs the scope of its method (``read`` to look, ``submit`` to change, ``admin`` to delete); one that needs more
says so by ``dependencies=[Depends(needs("admin"))]``. Liveness and readiness are open. ``docs/decisions/0015-keys.md``
says why it is so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from anyio import to_thread
from fastapi import Depends, Request
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import ASGIApp, Receive, Scope, Send

from api import errors, limits
from api.errors import ProblemError
from api.guards import LOOKING, OPEN, drain, path_of, scope_of
from api.hosts import host_of, is_loopback
from store import keys
from store.errors import InvalidKeyError
from store.session import reading, unit_of_work
from store.settings import settings

REALM = 'Bearer realm="skyline"'
HOW = "send 'Authorization: Bearer skl_...'; the skyline command takes --api-key or SKYLINE_API_KEY"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key a request came with."""

    id: UUID
    scope: keys.Scope

    def may(self, scope: keys.Scope) -> bool:
        return keys.SCOPES.index(self.scope) >= keys.SCOPES.index(scope)


def caller(request: Request) -> Caller | None:
    """Who asks; None where keys are off. A request that did not pass the guard has no caller at all: it fails."""
    found: Caller | None = request.state.caller
    return found


CallerDep = Annotated[Caller | None, Depends(caller)]


def needs(scope: keys.Scope) -> Callable[[Request], None]:
    """A dependency for routes that need more than their method says."""

    def check(request: Request) -> None:
        _check_scope(caller(request), scope)

    return check


class KeyGuard:
    """Lets through who may, with ``request.state.caller`` set; answers the others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there is none; should one come, it will not be open to everybody
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            scope.setdefault("state", {})["caller"] = await _admit(request)
        except ProblemError as error:
            await drain(receive, scope)
            await errors.answer(request, error.problem, error.headers)(scope, receive, send)
            return
        except (OperationalError, PoolTimeoutError) as error:
            await errors.database_away(request, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _admit(request: Request) -> Caller | None:
    """Raises ProblemError for whom it does not let in."""
    if path_of(request.scope) in OPEN:
        return None
    if settings().keys == "off":
        _check_local(request)
        return None
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise _unauthorized("this service asks for an API key, and none came", REALM)
    return await to_thread.run_sync(partial(_look_up, secret.strip(), scope_of(request.method)))


def _look_up(secret: str, needed: keys.Scope) -> Caller:
    try:
        with reading() as session:
            row = keys.verify(session, secret)
            stale = keys.stale(session, row)
    except InvalidKeyError as error:
        raise _unauthorized(str(error), f'{REALM}, error="invalid_token"') from None
    limits.admit(row.id, settings().requests_per_minute if row.requests_per_minute is None else row.requests_per_minute)
    found = Caller(row.id, next(scope for scope in keys.SCOPES if scope == row.scope))
    _check_scope(found, needed)
    if stale:
        try:
            with unit_of_work() as session:
                keys.note_use(session, row.id)
        except SQLAlchemyError as error:  # a note, no reason to refuse
            log.warning("the use of a key is not noted: %s", type(error).__name__)
    return found


def _check_scope(who: Caller | None, needed: keys.Scope) -> None:
    if who is not None and not who.may(needed):
        challenge = f'{REALM}, error="insufficient_scope", scope="{needed}"'
        detail = f"this API key may {who.scope}, and this needs a key with scope {needed}"
        raise ProblemError(HTTPStatus.FORBIDDEN, "Scope", detail, headers={"WWW-Authenticate": challenge})


def _check_local(request: Request) -> None:
    """Where keys are off, only who asks this machine by its own name is let in.

    A page in this machine's browser must not reach the service under a name of its own (DNS rebinding) or by a form,
    and a service that was opened to a network by mistake refuses its clients.
    """
    asked = host_of(request.headers.get("host", ""))
    if not is_loopback(asked):
        detail = (
            f"API keys are off, so this service is for its own machine alone, but it was asked as '{asked}'; "
            "set SKYLINE_KEYS=required and make a key with 'skyline keys create NAME' to open it to others"
        )
        raise ProblemError(HTTPStatus.FORBIDDEN, "For this machine alone", detail)
    origin = request.headers.get("origin")
    if origin is not None and request.method not in LOOKING and not is_loopback(host_of(origin)):
        detail = f"API keys are off, so pages of other sites may change nothing; this came from '{origin}'"
        raise ProblemError(HTTPStatus.FORBIDDEN, "For this machine alone", detail)


def _unauthorized(why: str, challenge: str) -> ProblemError:
    headers = {"WWW-Authenticate": challenge}
    return ProblemError(HTTPStatus.UNAUTHORIZED, "API key", f"{why}; {HOW}", headers=headers)
