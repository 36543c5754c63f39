"""Objectives: one file = one objective. A file describes without torch and imports it inside what measures."""

from typing import Any

from nas_core.registry import Registry, import_siblings

objectives: Registry[type[Any]] = Registry("objective")

import_siblings(__name__, __path__)
