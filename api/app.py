"""The application: routers, problem details, the OpenAPI document. Where it listens is for whoever serves it."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from api import (
    candidates,
    catalog,
    datasets,
    devices,
    errors,
    events,
    fronts,
    health,
    jobs,
    logs,
    metrics,
    openapi,
    table,
    tables,
)
from api import version as about
from api.guards import BodyLimit, HeadAsGet, SecurityHeaders
from api.keys import KeyGuard
from api.metrics import RequestMetrics
from api.startup import SchemaGuard


def create_app() -> FastAPI:
    app = FastAPI(
        title="Skyline",
        version=version("skyline-nas"),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=openapi.operation_id,
        separate_input_output_schemas=False,  # one JobSpec: posted and echoed
        redirect_slashes=False,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    # The last one added is the outermost.
    for middleware in (HeadAsGet, BodyLimit, KeyGuard, RequestMetrics, SecurityHeaders, SchemaGuard):
        app.add_middleware(middleware)
    errors.install(app)
    openapi.install(app)
    modules = (
        jobs,
        fronts,
        candidates,
        table,
        events,
        logs,
        catalog,
        datasets,
        tables,
        devices,
        about,
        health,
        metrics,
    )
    for module in modules:
        app.include_router(module.router)
    return app


app = create_app()
