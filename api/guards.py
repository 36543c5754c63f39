"""What every request and answer goes through: a limit to bodies, and headers that browsers obey. Pure ASGI."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ProblemError, answer
from api.headers import DOCS_POLICY, HEADERS
from skyline.schemas import Problem
from store import keys
from store.settings import settings

DRAIN_FACTOR = 4
"""A body that is too large by no more than this is read to its end, see :func:`drain`."""


class TooLargeError(Exception):
    """Raised where the application asks for more of a body than is taken; its answer is replaced."""


OPEN = frozenset({"/healthz", "/readyz"})
"""Paths that ask nobody for a key."""
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})


def scope_of(method: str) -> keys.Scope:
    """What a key needs for a method; one that is not known is taken for a change."""
    if method in LOOKING:
        return "read"
    return "admin" if method == "DELETE" else "submit"


def path_of(scope: Scope) -> str:
    """The path as routes know it: without the prefix that a proxy may put before all of them."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


TABLES = "/v1/tables"
"""What is posted there holds a table, and may be larger."""


def most_bytes(scope: Scope) -> int:
    """How large the body of a request may be."""
    have = settings()
    whole_table = scope["method"] == "POST" and path_of(scope) == TABLES
    return max(have.max_table_bytes, have.max_body_bytes) if whole_table else have.max_body_bytes


def announced_size(scope: Scope) -> int:
    """Bytes that ``Content-Length`` promises; 0 where there is none."""
    value = Headers(scope=scope).get("content-length", "")
    return int(value[:18]) if value.isascii() and value.isdigit() else 0


async def drain(receive: Receive, scope: Scope, most: int | None = None) -> bool:
    """Reads what is left of a body and keeps nothing, at most ``most`` bytes; True when it came to its end.

    A connection closed on a client that still sends would lose the answer that says why.
    """
    left = DRAIN_FACTOR * settings().max_body_bytes if most is None else most
    if announced_size(scope) > left:
        return False
    while left >= 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return True
        left -= len(message.get("body", b""))
    return False


class BodyLimit:
    """413 for bodies beyond the limit, as announced or as they come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = most_bytes(scope)
        most = DRAIN_FACTOR * limit
        request = Request(scope)
        if announced_size(scope) > limit:
            whole = await drain(receive, scope, most)
            await answer(request, *_refusal(limit, close=not whole))(scope, receive, send)
            return

        size, exceeded, whole, started = 0, False, True, False

        async def counted() -> Message:
            nonlocal size, exceeded, whole
            if exceeded:
                raise TooLargeError
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > limit:
                    exceeded = True
                    whole = not message.get("more_body", False) or await drain(receive, scope, most - size)
                    raise TooLargeError
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if exceeded and not started:
                return  # whatever it makes of a body that broke off
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counted, guarded)
        except TooLargeError:
            if started:
                raise
        if exceeded and not started:
            await answer(request, *_refusal(limit, close=not whole))(scope, receive, send)


def _refusal(limit: int, close: bool) -> tuple[Problem, Mapping[str, str]]:
    detail = f"the body is larger than {limit} bytes, the most that this service takes"
    error = ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Body too large", detail)
    return error.problem, {"Connection": "close"} if close else {}


class HeadAsGet:
    """HEAD is answered as GET is, without the content (RFC 9110, section 9.3.2); a stream ends with its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        told = False

        async def heard() -> Message:
            return {"type": "http.disconnect"} if told else await receive()

        async def head_alone(message: Message) -> None:
            nonlocal told
            if not told and message["type"] == "http.response.start":
                told = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        await self._app({**scope, "method": "GET"}, heard, head_alone)


class SecurityHeaders:
    """Adds to every answer what it does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if path_of(scope) == "/docs":
                    headers.setdefault("Content-Security-Policy", DOCS_POLICY)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
