"""What live workers can run, as they published it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from skyline.schemas.devices import Device

CatalogKind = Literal["space", "algorithm", "objective", "dataset", "preset", "plugin"]


class CatalogEntry(BaseModel):
    """One thing that a job can name."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: CatalogKind
    name: str
    summary: str
    settings: dict[str, Any]
    """JSON Schema of its settings."""
    facts: dict[str, Any] = {}
    """algorithm: ``spaces`` it fits, ``needs``. objective: ``unit``, ``direction``, ``source`` (data, exact, measured);
    if exact, the ``resource`` (params, macs) it rises with, and ``scale`` where it is a multiple of that; ``predicts``
    (ms, mj) where a device's profile can predict it. dataset:
    ``input`` [C, H, W] and ``classes`` where fixed, ``train`` and ``test`` (counts of images) where known; a registered
    one has ``registered`` (the name of the data set that it is made of), ``dataset`` (that with its settings), and
    takes no settings itself. preset: ``source`` and ``job`` (the fragment). Of all: ``plugin``, where it is a user's
    own."""
    workers: dict[str, dict[str, Any]] = {}
    """energy_mj: by worker, ``counter`` (rapl, nvml or null), ``reason`` (why there is none), ``class``. dataset: by
    worker, ``present`` (bool), ``searched`` (paths), ``hint`` (how to get it), ``files`` and ``faults``
    (by path; npz and imagefolder)."""


class Preset(BaseModel):
    """A named fragment of a job: its fields stand where a job that names it (`preset`) leaves them out."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    summary: str
    source: str
    """Where its values come from."""
    job: dict[str, dict[str, Any]]
    """Fields by part of the job."""


class PluginInfo(BaseModel):
    """A user's own code on a worker."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    adds: list[str]
    """What a job can name because of it, such as ``objective 'carbon'``."""
    error: str | None = None
    """Why it cannot be used; the worker goes on without it."""


class WorkerInfo(BaseModel):
    """A worker and what it has."""

    name: str
    host: str
    device: str
    queues: list[str]
    threads: int
    memory_gb: float
    versions: dict[str, str]
    started_at: datetime
    seen_at: datetime
    live: bool
    plugins: list[PluginInfo] = []


class Catalog(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    spaces: list[CatalogEntry]
    algorithms: list[CatalogEntry]
    objectives: list[CatalogEntry]
    datasets: list[CatalogEntry]
    presets: list[Preset] = []
    devices: list[Device] = []
    """Whose costs can be predicted."""
    workers: list[WorkerInfo]


class Publication(BaseModel):
    """What one worker publishes at its start: its entries, its device and what it runs on."""

    entries: list[CatalogEntry]
    device: str
    threads: int
    memory_gb: float
    versions: dict[str, str]
