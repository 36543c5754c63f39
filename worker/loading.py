"""What a job names and this process lacks is loaded from the worker's plug-ins, once the order has come: as the files
are then, whenever the process was made. An attempt that needs nothing of a user's loads nothing.
"""

from __future__ import annotations

import logging

from nas_core import plugins
from nas_core.algorithms import algorithms
from nas_core.datasets import datasets
from nas_core.objectives import objectives
from nas_core.spaces import spaces
from skyline.schemas import JobSpec
from store import catalog, fitting
from store.catalog import Part
from store.session import reading
from store.settings import settings
from worker.attempt import Attempt
from worker.identity import Identity
from worker.plugins import wanted

log = logging.getLogger(__name__)

REGISTRIES = {"space": spaces, "algorithm": algorithms, "objective": objectives, "dataset": datasets}


def provide(attempt: Attempt, kind: str) -> bool:
    """Whether all that a task of this kind needs is here now.

    Where it is not, the catalog no longer says so of this worker, and the job is told why: another worker may have it.
    Raises LeaseLostError.
    """
    if not lacking(attempt.spec, kind):
        return True
    errors = load(attempt.spec, kind)
    missing = lacking(attempt.spec, kind)
    if not missing:
        return True
    why = "; ".join(errors) or "none of its plug-ins adds it"
    attempt.warn(f"worker {Identity().name} leaves this to others: it has no {fitting.words(missing)} ({why})")
    with attempt.recording() as session:
        catalog.withdraw(session, Identity().name, missing)
    return False


def lacking(spec: JobSpec, kind: str) -> list[Part]:
    """What a task of this kind needs and no registry of this process has."""
    needed = fitting.needed(spec.model_dump(mode="json"), kind)
    return [(what, name) for what, name in needed if name not in REGISTRIES[what]]


def load(spec: JobSpec, kind: str) -> list[str]:
    """Loads plug-ins until nothing is missing, first those that the catalog names; why some cannot be used.

    One that was of no use when the worker looked, in a process that could be killed, is not run here: it may hang.
    """
    sources = plugins.sources(wanted())
    with reading(settings().outage_seconds) as session:
        entries = catalog.published(session, Identity().name, lacking(spec, kind))
        reports = catalog.published(session, Identity().name, [("plugin", source.name) for source in sources])
    named = {entry["facts"].get("plugin") for entry in entries}
    useless = {
        entry["name"]: part["error"] for entry in reports for part in entry["workers"].values() if not part["adds"]
    }
    errors = []
    for source in sorted(sources, key=lambda source: source.name not in named):
        if source.name in useless and source.name not in named:
            if useless[source.name] is not None:
                errors.append(f"plug-in '{source.name}' cannot be used: {useless[source.name]}")
            continue
        plugin = plugins.load(source)
        if plugin.error is not None:
            errors.append(f"plug-in '{plugin.name}' cannot be used: {plugin.error}")
        log.info("plug-in '%s' adds %s", plugin.name, ", ".join(f"{what} '{name}'" for what, name in plugin.adds))
        if not lacking(spec, kind):
            break
    return errors
