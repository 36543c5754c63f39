"""What live workers can run, as they published it."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api import examples, lookups, presets, profiles, registrations, views
from api.deps import Reading
from api.errors import unavailable
from api.openapi import answers, problems
from api.validation import Known
from skyline.schemas import Catalog, CatalogEntry
from skyline.schemas.catalog import CatalogKind
from store import catalog, datasets, devices, tables

router = APIRouter(prefix="/v1", tags=["catalog"])


@router.get(
    "/catalog",
    summary="Spaces, algorithms, objectives, data sets, presets, devices and workers",
    responses={**answers(examples.CATALOG), **problems()},
)
def read_catalog(session: Reading) -> Catalog:
    """Each entry has the JSON Schema of its settings. Entries outlive their workers; `live` says which work now.
    `plugins` of a worker are users' own code; one that cannot be used says why.

    Registered data sets (`POST /v1/datasets`) are among the data sets, with `registered` in their `facts`.

    503 while no worker has ever registered.
    """
    there = known(session)
    if not there.entries:
        raise unavailable("No worker", "no worker has registered; start one with 'skyline worker' and ask again")
    workers = [views.worker(row, live, there.entries) for row, live in catalog.workers(session)]
    own = [registrations.described(row, there) for row in datasets.listed(session)]

    def of(kind: CatalogKind) -> list[CatalogEntry]:
        return list(there.of(kind).values())

    return Catalog(
        spaces=of("space"),
        algorithms=of("algorithm"),
        objectives=of("objective"),
        # one that a worker brought under the same name later goes before
        datasets=of("dataset") + [registrations.as_entry(each) for each in own if each.name not in there.of("dataset")],
        presets=[presets.described(entry) for entry in of("preset")],
        devices=[profiles.described(*each) for each in devices.page(session, limit=devices.MOST)[0]],
        workers=workers,
    )


def known(session: Session) -> Known:
    """What a job can ask for now."""
    entries = [CatalogEntry.model_validate(entry) for entry in catalog.entries(session)]
    live = frozenset(row.name for row, alive in catalog.workers(session) if alive)
    own = {row.name: row.dataset for row in datasets.listed(session)}
    tabulated = {row.name: lookups.about(row) for row in tables.listed(session)}
    return Known(entries, live, own, tabulated, profiles.known(devices.listed(session)))
