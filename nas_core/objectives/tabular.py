"""A column of a registered table, as it stands there."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import MaxLen, MinLen

from nas_core.objectives import objectives
from nas_core.settings import settings

Named = Annotated[str, MinLen(1), MaxLen(100)]


@objectives.register("tabular")
@settings
class Tabular:
    """A value that a registered table has for the architecture; ``error`` and ``accuracy`` take the same settings.

    Values are given by ``nas_core.tables.Tabulated``, which has the table.
    """

    source: ClassVar[Literal["data", "exact", "measured", "tabular"]] = "tabular"

    table: Named
    """Name of the table."""
    column: Named
    """Column of it; also the objective's key, unless it has one."""
    test: Named | None = None
    """Of an error or accuracy: the column shown as the test error of the final front, by which nothing is chosen."""
    sha256: Named | None = None
    """Noted by the service: of the table's text. A table that came under the name later is refused."""
    unit: Annotated[str, MaxLen(100)] | None = None
    """Noted by the service: the column's."""
    direction: Literal["minimize", "maximize"] | None = None
    """Noted by the service: the column's."""
