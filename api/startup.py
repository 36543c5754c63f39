"""The API does not start on tables that are not those of this version, nor with settings that are none.

A database or an artefact store that is away is no reason: it may come back.
"""

from __future__ import annotations

import logging

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store import artefacts
from store.errors import ArtefactUrlError, SchemaMismatchError
from store.session import check_schema
from store.settings import SettingsError

log = logging.getLogger(__name__)


class SchemaGuard:
    """Answers the server's start-up event with a refusal: one sentence in its log, where a raise is a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await self._app(scope, receive, send)
        first = await receive()
        wrong = await to_thread.run_sync(mismatch)
        if wrong is not None:
            return await send({"type": "lifespan.startup.failed", "message": wrong})
        pending: list[Message] = [first]

        async def again() -> Message:
            return pending.pop() if pending else await receive()

        return await self._app(scope, again, send)


def mismatch() -> str | None:
    """What is wrong with the settings or the tables; None where they are right or cannot be looked at."""
    try:
        artefacts.files()
        check_schema()
    except (ArtefactUrlError, SchemaMismatchError, SettingsError) as error:
        return str(error)
    except SQLAlchemyError as error:  # its text may hold the address with its password
        log.warning("the database does not answer yet: %s", type(error).__name__)
    return None
