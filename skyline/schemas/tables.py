"""Tables of values by architecture: what is posted to register one, and what is known of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from skyline.schemas.answers import Answer
from skyline.schemas.datasets import OwnName
from skyline.schemas.jobs import STRICT, Name, SpaceSpec

MOST_COLUMNS = 50


class ColumnSpec(BaseModel):
    """What the numbers of a column are."""

    model_config = STRICT

    unit: Annotated[str, Field(min_length=1, max_length=40)]
    """An error or accuracy is taken from a column in `%` or `fraction`."""
    direction: Literal["minimize", "maximize"] = "minimize"
    """A column in `%` or `fraction` that is maximised is an accuracy, one that is minimised an error."""


class TableRegistration(BaseModel):
    """Values by architecture, as CSV with a header line."""

    model_config = STRICT

    name: OwnName
    space: SpaceSpec
    """Space and searched skeleton of the networks that were valued, such as ``{name: nasbench201}``."""
    input: Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=3, max_length=3)]
    """Channels, height, width of their images."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    key: Name = "arch"
    """The column that names the architecture: an arch string of NAS-Bench-201, a genotype as JSON in any form that
    `seed_genotypes` takes, or a candidate's hash."""
    columns: Annotated[dict[Name, ColumnSpec], Field(min_length=1, max_length=MOST_COLUMNS)]
    """Those to keep; each has a finite number in every row. Others of the CSV are not looked at."""
    csv: str
    """The table's text: a header line, then a row for each architecture."""
    partial: bool = False
    """Whether architectures of the space may lack a row; one that does fails as a candidate."""
    description: Annotated[str, Field(max_length=1000)] = ""


class TableColumn(Answer):
    name: str
    unit: str
    direction: Literal["minimize", "maximize"]
    low: float
    """The least number of the column."""
    high: float
    """The largest."""
    says: Literal["error", "accuracy"] | None
    """What jobs can take from it: of a column in `%` or `fraction` the error, or the accuracy where more is better."""


class RegisteredTable(Answer):
    """A table under a name of its own. Jobs say ``{name: error, table: NAME, column: ...}``, or ``name: tabular``."""

    name: str
    sha256: str
    """Of the CSV as it came, in UTF-8."""
    space: dict[str, Any]
    """``name``, and every setting."""
    skeleton: dict[str, Any]
    """Of the networks that were valued."""
    key: str
    columns: list[TableColumn]
    rows: int
    """Architectures with values."""
    left_out: int
    """Rows of cells that the space does not hold, such as disconnected ones of NAS-Bench-201."""
    missing: int | None
    """Architectures of the space without a row; null where the space cannot be counted through."""
    partial: bool
    description: str
    created_at: datetime


class TablePage(Answer):
    items: list[RegisteredTable]
    next: str | None
    """Cursor of the next page."""
