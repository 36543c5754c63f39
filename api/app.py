"""The application: routers, problem details, the OpenAPI document. Where it listens is for whoever serves it."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from api import candidates, catalog, errors, events, fronts, health, jobs, logs, openapi
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
    )
    app.add_middleware(SchemaGuard)
    errors.install(app)
    openapi.install(app)
    for module in (jobs, fronts, candidates, events, logs, catalog, health):
        app.include_router(module.router)
    return app


app = create_app()
