"""Search algorithms: one file = one algorithm, a settings dataclass whose ``search`` is a generator of events."""

from typing import Any

from nas_core.registry import Registry, import_siblings

algorithms: Registry[type[Any]] = Registry("algorithm")

import_siblings(__name__, __path__)
