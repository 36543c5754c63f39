"""``/metrics`` for Prometheus: the service's state, read from the database when asked, and this process's requests.

State is the same whichever API process is asked. Requests are counted by each process for itself, and are gone when it
ends; a sum over several processes is the scraper's, who asks each by its own address.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.openapi import problems
from store import counts, quota
from store.session import reading
from store.settings import settings

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted as one: whoever asks could make up any number of them."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
EXAMPLE = '# HELP skyline_jobs Jobs by status.\n# TYPE skyline_jobs gauge\nskyline_jobs{status="succeeded"} 12.0\n'

registry = CollectorRegistry()
requests = Counter("skyline_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry)
seconds = Histogram(
    "skyline_http_seconds",
    "Seconds until an answer begins; a held request (wait) is long on purpose.",
    ["method", "route"],
    buckets=BUCKETS,
    registry=registry,
)


class RequestMetrics:
    """Counts answers by the route's pattern: paths hold ids, and what is not a route is anybody's invention."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and not status:
                status = message["status"]
                _count(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            if not status:
                _count(scope, 500, time.perf_counter() - began)  # answered further out
            raise


def _count(scope: Scope, status: int, taken: float) -> None:
    method = scope["method"] if scope["method"] in METHODS else "other"
    route = getattr(scope.get("route"), "path", "none")
    requests.labels(method, route, str(status)).inc()
    seconds.labels(method, route).observe(taken)


class State(Collector):
    """What the database says now."""

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("skyline_database_up", "Whether the database answers.")
        try:
            with reading() as session:
                found = counts.take(session)
        except SQLAlchemyError as error:  # its text may hold the address with its password
            log.warning("no state for metrics: %s", type(error).__name__)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield _gauge("skyline_jobs", "Jobs by status.", ["status"], {(key,): n for key, n in found.jobs.items()})
        yield _gauge("skyline_tasks", "Open tasks by queue and status.", ["queue", "status"], found.tasks)
        yield _gauge("skyline_workers", "Workers by device; gone: silent.", ["device", "state"], found.workers)
        yield _gauge("skyline_unsent_messages", "Messages that wait for the broker.", [], {(): found.unsent})
        stored = found.artefacts.items()
        sizes, files = ({(key,): getattr(one, what) for key, one in stored} for what in ("bytes", "files"))
        yield _gauge("skyline_artefact_bytes", "Bytes of artefacts by format.", ["format"], sizes)
        yield _gauge("skyline_artefact_files", "Artefacts by format.", ["format"], files)
        limit = int(settings().artefact_quota_mb * quota.MB)
        yield _gauge("skyline_artefact_quota_bytes", "Bytes that artefacts may take; 0: no limit.", [], {(): limit})
        yield _gauge("skyline_loose_files", "Files being stored or to be removed.", [], {(): found.loose})


def _gauge(name: str, about: str, labels: list[str], values: dict[Any, int]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, number in sorted(values.items()):
        family.add_metric(list(key), number)
    return family


_state = CollectorRegistry()
_state.register(State())


@router.get(
    "/metrics",
    summary="State and requests, for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}}},
        **problems(),
    },
)
def read_metrics() -> Response:
    """Jobs, tasks, workers, artefacts and unsent messages from the database, and the requests of this process."""
    return Response(generate_latest(_state) + generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
