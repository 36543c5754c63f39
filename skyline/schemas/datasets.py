"""Data sets under names of their own: what is posted to register one, and what is known of it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from skyline.schemas.answers import Answer
from skyline.schemas.jobs import STRICT, Named

NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = "a name of 1 to 100 letters (A to Z, a to z), digits, '-', '_' and '.' that begins with a letter or a digit"


def _named(name: str) -> str:
    if not NAME_FORM.fullmatch(name):
        raise ValueError(NAME_RULE)
    return name


OwnName = Annotated[
    str, AfterValidator(_named), Field(json_schema_extra={"pattern": f"^{NAME_FORM.pattern}$", "maxLength": 100})
]


class DatasetChoice(Named):
    """A data set of the catalog with its settings, such as ``{name: imagefolder, path: leaves, size: 64}``."""


class DatasetRegistration(BaseModel):
    """A name for a data set with its settings."""

    model_config = STRICT

    name: OwnName
    """None that the catalog has. Jobs then say ``dataset: {name: leaves}``."""
    dataset: DatasetChoice
    description: Annotated[str, Field(max_length=1000)] = ""


class DatasetOnWorker(Answer):
    """A registered data set as one worker has it."""

    worker: str
    live: bool
    present: bool
    """Or fetched at its first use (``downloadable``)."""
    downloadable: bool
    input: list[int] | None
    """Channels, height, width of what networks are given."""
    classes: int | None
    images: dict[str, int] | None
    """How many by part, ``train`` and ``test``, where the worker counted them; ``train`` is cut further."""
    note: str
    """Why it cannot be used there, or how to get it."""


class RegisteredDataset(Answer):
    """A data set with its settings under a name of its own, and who has it now."""

    name: str
    dataset: dict[str, Any]
    """``name`` in the catalog, and every setting."""
    description: str
    created_at: datetime
    input: list[int] | None
    """As the first live worker that has it says, and so do ``classes`` and ``images``; null where none has it."""
    classes: int | None
    images: dict[str, int] | None
    workers: list[DatasetOnWorker]
    """All that published the catalog's data set; empty while none has registered."""


class DatasetPage(Answer):
    items: list[RegisteredDataset]
    next: str | None
    """Cursor of the next page."""
