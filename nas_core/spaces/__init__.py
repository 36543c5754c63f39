"""Search spaces: one file = one space. A file describes without torch and imports it inside what runs."""

from typing import Any

from nas_core.registry import Registry, import_siblings

spaces: Registry[type[Any]] = Registry("space")

import_siblings(__name__, __path__)
