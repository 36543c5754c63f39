"""Data sets: one file = one data set. A file describes without torch and imports it inside what reads."""

from typing import Any

from nas_core.datasets._presence import Dataset, Presence, Report
from nas_core.registry import Registry, import_siblings

__all__ = ["Dataset", "Presence", "Report", "datasets"]

datasets: Registry[type[Any]] = Registry("data set")

import_siblings(__name__, __path__)
