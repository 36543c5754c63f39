"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError

from api.openapi import Responses, answers, problems
from skyline.schemas import Health, Readiness
from store import catalog, queue
from store.errors import SchemaMismatchError
from store.session import check_schema, reading

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])

_READY = {"status": "ready", "database": "ok", "broker": "ok", "workers": 1}
_UNREADY = {"status": "not ready", "database": "ok", "broker": "does not answer", "workers": 0}
_READINESS: Responses = {
    **answers(_READY),
    500: problems()[500],
    503: {
        "description": "Database or broker cannot be used.",
        "model": Readiness,
        "content": {"application/json": {"example": _UNREADY}},
    },
}


@router.get("/healthz", summary="Whether the process lives", responses={**answers({"status": "ok"}), **problems()})
async def healthz() -> Health:
    """Touches nothing, and no thread either: it answers while every thread waits for a slow database."""
    return Health(status="ok")


@router.get("/readyz", summary="Whether jobs can be taken and run", responses=_READINESS)
def readyz(response: Response) -> Readiness:
    """200 when database (of the right schema) and broker answer, else 503 with the same body.

    `workers` counts those that live and can run jobs. None is no reason for 503: results can be read, and jobs of a
    known kind wait.
    """
    database, workers = _database()
    broker = "ok" if queue.ping() else "does not answer; jobs are kept and sent when it does"
    ready = database == broker == "ok"
    if not ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(status="ready" if ready else "not ready", database=database, broker=broker, workers=workers)


def _database() -> tuple[str, int]:
    """(state, live workers that can run jobs)."""
    try:
        check_schema()
        with reading() as session:
            return "ok", sum(live and worker.queues != [queue.SHORT] for worker, live in catalog.workers(session))
    except SchemaMismatchError as error:
        return str(error), 0
    except SQLAlchemyError as error:  # its text may hold the address with its password
        log.warning("database not ready", exc_info=error)
        return "does not answer", 0
