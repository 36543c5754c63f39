"""Jobs that name a preset: its fields stand where the body leaves them out; what the body says wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from api import completing
from api.errors import Fault, ProblemError, echo, pointer, refusal
from api.shapes import shaped
from skyline.schemas import CatalogEntry, Preset
from skyline.schemas.jobs import Name
from store import origins

FIELD = "preset"
PLACE = f"/{FIELD}"


class _Reference(BaseModel):
    model_config = ConfigDict(strict=True)

    preset: Annotated[Name, Field(alias=FIELD)]


@dataclass(frozen=True)
class Chosen:
    """The preset of a posted job."""

    name: str
    job: Mapping[str, Mapping[str, Any]]

    def completed(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The posted job with all that it takes from the preset. Raises ProblemError where it names something else."""
        faults = [fault for part in self.job if (fault := self._other(part, document.get(part))) is not None]
        if faults:
            raise refusal(faults)
        return {**document, **{part: completing.over(document.get(part, {}), own) for part, own in self.job.items()}}

    def _other(self, part: str, given: Any) -> Fault | None:
        """That the body's part is of another plug-in than the preset's settings of it."""
        own = self.job[part].get("name")
        got = given.get("name", own) if isinstance(given, dict) else own
        if own is None or got == own or not isinstance(got, str):  # what is no name, the shape says
            return None
        expected = f"{own!r}, as preset '{self.name}' has"
        detail = f"{part}.name: got {echo(got)!r}; expected {expected}: leave it out, or post the job without '{FIELD}'"
        return Fault("Not of this preset", detail, pointer((part, "name")), got, expected)

    def within(self, document: Mapping[str, Any], error: ProblemError) -> ProblemError:
        """Faults of what was taken from the preset stand at its name."""
        return completing.within(error, document, self.job, PLACE)


def find(document: Mapping[str, Any], known: Mapping[str, CatalogEntry], title: str) -> Chosen | None:
    """The preset that a posted job names, if any. Raises ProblemError."""
    if document.get(FIELD) is None:
        return None
    name = shaped(_Reference, {FIELD: document[FIELD]}, title, "the job").preset
    if document.get(origins.FIELD) is not None:
        expected = f"'{FIELD}' or '{origins.FIELD}', not both"
        detail = (
            f"{FIELD}: got '{name}' in a job that goes on '{origins.FIELD}' another, whose settings it has; expected "
            f"{expected}: name the preset in the job that is gone on from"
        )
        raise refusal([Fault(title, detail, PLACE, name, expected)])
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        detail = f"unknown preset '{name}'; known: {listed}"
        raise refusal([Fault("Unknown preset", detail, PLACE, name, f"one of {listed}")])
    return Chosen(name, described(known[name]).job)


def described(entry: CatalogEntry) -> Preset:
    """An entry of the catalog as a preset."""
    return Preset(name=entry.name, summary=entry.summary, source=entry.facts["source"], job=entry.facts["job"])
