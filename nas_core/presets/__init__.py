"""Presets: named fragments of jobs, such as the settings that a paper published. Plain data; one file = one source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from nas_core.registry import Registry, import_siblings

PARTS = ("space", "target", "dataset", "algorithm", "budget", "verify")
"""Parts of a job that a preset may fill in; of each any of its fields."""


class Preset(Protocol):
    """A fragment of a job. The first paragraph of its docstring is what users read."""

    source: ClassVar[str]
    """Where its values come from."""
    job: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Fields by part, as JSON has them. A part without a ``name`` goes with any."""


presets: Registry[type[Preset]] = Registry("preset")

import_siblings(__name__, __path__)
