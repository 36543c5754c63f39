"""Jobs that go on from the search of another: completed by what that job says, and held against it.

The space, the data set, the algorithm and the seed are those of that job, because the state that its search ended with
is of no use to others. What is searched for may be another thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from api import completing, forms, names, stages
from api.errors import Fault, ProblemError, echo, pointer, refusal
from api.lookups import WHOLE_FRONT
from api.shapes import shaped
from skyline.schemas import CatalogEntry, JobSpec
from skyline.schemas.jobs import JobReference
from store import jobs, origins
from store.errors import NotFoundError

FIELD = origins.FIELD
PLACE = f"/{FIELD}"
SAME = ("space", "dataset", "algorithm", "seed")
"""Fields that say what is searched and how: they are those of the job gone on from."""
PARTS = ("target", "budget", "verify", "resources")
"""Fields that are as there where they are not given, each of their own fields by itself."""

Catalog = Mapping[str, Mapping[str, CatalogEntry]]
"""Entries by kind and name."""


class _Reference(BaseModel):
    model_config = ConfigDict(strict=True)

    job: Annotated[JobReference, Field(alias=FIELD)]


@dataclass(frozen=True)
class Origin:
    """The job that a posted one goes on from."""

    id: UUID
    status: str
    spec: Mapping[str, Any]
    """As it is stored, whole."""
    kept: bool
    """Whether the state of its search is there."""

    def completed(self, document: Mapping[str, Any], catalog: Catalog, registered: names.Registered) -> dict[str, Any]:
        """The posted job with all that it takes from this one."""
        given = _given(document)
        whole: dict[str, Any] = {**{name: self.spec[name] for name in SAME}, **given}
        for part in ("space", "algorithm"):
            own = self._settings(part, catalog)
            if part == "algorithm":
                own = stages.taken_over(own, self.spec["objectives"], given.get("objectives"), catalog["objective"])
            whole[part] = _over(given.get(part, {}), own, self._redone(catalog) if part == "algorithm" else ())
        whole["dataset"] = self._dataset(given.get("dataset"), registered)
        for part in PARTS:
            whole[part] = completing.over(given.get(part, {}), self._left(part))
        return whole

    def _settings(self, part: str, catalog: Catalog) -> dict[str, Any]:
        """A part with the defaults of settings that came since."""
        own = dict(self.spec[part])
        entry = catalog[part].get(own["name"])
        return own if entry is None else forms.filled(own, entry.settings)

    def _redone(self, catalog: Catalog) -> Sequence[str]:
        entry = catalog["algorithm"].get(self.spec["algorithm"]["name"])
        return () if entry is None else entry.facts.get("redone", ())

    def _dataset(self, given: Any, registered: names.Registered) -> Any:
        own = self.spec["dataset"]
        if own is None:
            return given
        if given is None:
            return {key: own[key] for key in own if key != "registered" or not names.stale(own, registered)}
        if not isinstance(given, dict):
            return given
        if given.get("name", own["name"]) == own["name"]:
            return {**{key: own[key] for key in own if key != "registered"}, **given}
        asked = given["name"]
        return {"fraction": own["fraction"], **given} if isinstance(asked, str) and asked in registered else given

    def _left(self, part: str) -> dict[str, Any]:
        """A part as it is taken over; how many are verified, only where nobody chose the whole of a looked-up front."""
        own = dict(self.spec[part])
        if part == "verify" and own["top"] == WHOLE_FRONT and JobSpec.model_validate(self.spec).looked_up:
            del own["top"]
        return own

    def faults(self, spec: JobSpec, catalog: Catalog) -> list[Fault]:
        """What keeps the completed job from going on from this one."""
        found: list[Fault] = []
        for part in ("space", "algorithm"):
            named = spec.space if part == "space" else spec.algorithm
            own, redone = self._settings(part, catalog), self._redone(catalog) if part == "algorithm" else ()
            found += self._other((part,), {"name": named.name, **named.settings}, own, redone)
        before = self.spec["dataset"]
        if before is None:
            found += self._other((), {"dataset": spec.dataset and spec.dataset.called}, {"dataset": None})
        elif spec.dataset is not None:
            now = {"name": spec.dataset.name, "fraction": spec.dataset.fraction, **spec.dataset.settings}
            found += self._other(("dataset",), now, {key: before[key] for key in before if key != "registered"})
        found += self._other((), {"seed": spec.seed}, {"seed": self.spec["seed"]})
        return found or self._nothing(catalog)

    def _other(
        self, place: tuple[str, ...], got: Mapping[str, Any], own: Mapping[str, Any], redone: Sequence[str] = ()
    ) -> list[Fault]:
        """Settings that are others than this job's; of another plug-in its name alone. Unknown ones are the form's."""
        keys = ["name"] if "name" in own and got["name"] != own["name"] else [key for key in own if key not in redone]
        found = []
        for key in keys:
            if key in got and not _same(got[key], own[key]):
                path = (*place, key)
                expected = f"{_shown(own[key])}, as job {self.id} has"
                detail = (
                    f"{'.'.join(path)}: got {_shown(got[key])}; expected {expected}, whose search this one goes on "
                    f"from: leave it out, or post a job without '{FIELD}'"
                )
                found.append(Fault("Another search", detail, pointer(path), got[key], expected))
        return found

    def _nothing(self, catalog: Catalog) -> list[Fault]:
        """That there is nothing to go on from, in words."""
        entry = catalog["algorithm"].get(self.spec["algorithm"]["name"])
        if entry is None:
            return []  # another fault says so
        if not entry.facts.get("hands_on"):
            able = ", ".join(sorted(name for name, each in catalog["algorithm"].items() if each.facts.get("hands_on")))
            why = f"job {self.id} was searched by '{entry.name}', which cannot go on from a search"
            return [self._fault("Algorithm goes on from nothing", why, f"a job of one of: {able or 'none here'}")]
        if self.kept:
            return []
        if self.status in origins.SEARCHES:
            why = f"job {self.id} is {self.status}, and the state of its search is kept when that is over"
            return [self._fault("Search not over", f"{why}; wait for it", "a job whose search is over")]
        why = f"job {self.id} is {self.status} and has kept no state of its search"
        return [self._fault("Nothing to go on from", why, f"a job whose search came to its end, or no '{FIELD}'")]

    def _fault(self, title: str, why: str, expected: str) -> Fault:
        return Fault(title, f"{FIELD}: {why}; expected {expected}", PLACE, str(self.id), expected)

    def within(self, document: Mapping[str, Any], error: ProblemError) -> ProblemError:
        """Faults of what was taken from this job stand at its name."""
        return completing.within(error, _given(document), {part: self.spec[part] for part in (*SAME, *PARTS)}, PLACE)


def find(session: Session, document: Mapping[str, Any], title: str) -> Origin | None:
    """The job that a posted one goes on from, if any. Raises ProblemError where there is no such job."""
    if document.get(FIELD) is None:
        return None
    job_id = shaped(_Reference, {FIELD: document[FIELD]}, title, "the job").job
    try:
        row = jobs.get(session, job_id)
    except NotFoundError as error:
        expected = "the id of a job that is there"
        detail = f"{FIELD}: unknown job '{job_id}'; expected {expected} ('skyline jobs' lists them)"
        raise refusal([Fault("Unknown job", detail, PLACE, str(job_id), expected)]) from error
    spec = JobSpec.model_validate(row.spec).model_dump(mode="json")
    return Origin(row.id, row.status, spec, origins.state(session, job_id) is not None)


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a posted job says; no data set is none that it says."""
    return {name: value for name, value in document.items() if value is not None or name != "dataset"}


def _over(given: Any, own: dict[str, Any], redone: Sequence[str]) -> Any:
    """``given`` with what it leaves out of ``own``; as it is where it names something else."""
    if not isinstance(given, dict) or given.get("name", own["name"]) != own["name"]:
        return given
    inside = {key: value if key in redone else _filled(value, own.get(key)) for key, value in given.items()}
    return completing.over(inside, own)


def _filled(given: Any, own: Any) -> Any:
    if not isinstance(given, dict) or not isinstance(own, dict):
        return given
    return completing.over({key: _filled(value, own.get(key)) for key, value in given.items()}, own)


def _same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{echo(value)!r}"
