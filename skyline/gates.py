"""A front held against requirements such as ``error<=10%``: who passes, who is best, or how far off the nearest is.

The best is that of the objective which the first requirement names; equal ones go by the next requirement, then by the
job's other objectives in their order. Test values decide nothing, here as anywhere.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal
from uuid import UUID

from skyline.errors import InvalidRequirementError
from skyline.schemas.answers import Answer, Candidate, Front, FrontKind, FrontObjective
from skyline.schemas.jobs import QUALITIES, JobSpec

FORM = re.compile(r"\s*(?P<key>.*?[^\s<>=])\s*(?P<sign><=|>=|<|>)\s*(?P<number>[^\s<>=%]+)\s*(?P<percent>%?)\s*")
WANTED = "write it as KEY<=NUMBER, with <=, <, >= or >, such as error<=0.1 or error<=10%"
TEST = "test"

Sign = Literal["<=", "<", ">=", ">"]
GREATEST: Sign = "<="
LEAST: Sign = ">="
SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


class Requirement(Answer):
    """What one objective has to hold."""

    key: str
    sign: Sign
    bound: float
    """In the objective's unit."""
    text: str
    """As it was written."""

    def holds(self, value: float) -> bool:
        return SIGNS[self.sign](value, self.bound)


class Miss(Answer):
    """A requirement that the nearest candidate does not hold."""

    requirement: Requirement
    value: float | None
    """What the candidate has; null where it was not valued."""
    by: float | None
    """Distance from the bound, in the objective's unit; 0 for the bound itself where that does not count."""
    share: float | None
    """That distance as a share of the bound; null where there is none, or the bound is 0."""


class Gate(Answer):
    """A front's verdict."""

    job: UUID
    kind: FrontKind
    version: int
    requirements: list[Requirement]
    members: int
    """Of the whole front."""
    passed: bool
    passing: list[Candidate]
    """Members that hold every requirement, the best one first."""
    best: UUID | None
    rule: str
    """By which it is the best, such as `least error`."""
    nearest: Candidate | None
    """Where none passes: the candidate that misses least, as shares of the bounds; not of the front where that is
    empty because of the job's own bounds."""
    misses: list[Miss]
    """By how much it misses."""


def parse(require: str | Iterable[str], front: Front, spec: JobSpec) -> list[Requirement]:
    """Requirements as text, with commas between or one by one. Raises InvalidRequirementError."""
    texts = require.split(",") if isinstance(require, str) else list(require)
    fractions = {objective.effective_key for objective in spec.objectives if objective.name in QUALITIES}
    objectives = {objective.key: objective for objective in front.objectives}
    found = [_parsed(text.strip(), objectives, fractions) for text in texts]
    if not found:
        raise InvalidRequirementError("", f"there is none; {WANTED}")
    return found


def _parsed(text: str, objectives: Mapping[str, FrontObjective], fractions: set[str]) -> Requirement:
    form = FORM.fullmatch(text)
    if form is None:
        raise InvalidRequirementError(text, WANTED)
    key, number = form["key"], _number(form["number"])
    if key not in objectives:
        if key == TEST or key.startswith(f"{TEST}."):
            instead = " or ".join(f"'{name}'" for name in objectives if name in fractions)
            why = f"test values decide nothing, or they would be no test any more; require {instead}"
            raise InvalidRequirementError(text, why)
        raise InvalidRequirementError(text, f"'{key}' is no objective of this job: {', '.join(objectives)}")
    if number is None:
        raise InvalidRequirementError(text, f"'{form['number']}' is no number; {WANTED}")
    if form["percent"]:
        if key not in fractions:
            unit = f" ({objectives[key].unit})" if objectives[key].unit else ""
            raise InvalidRequirementError(text, f"'{key}' is no fraction, so % means nothing; give a number{unit}")
        number /= 100
    return Requirement.model_validate({"key": key, "sign": form["sign"], "bound": number, "text": text})


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def own_bounds(spec: JobSpec) -> list[Requirement]:
    """What the job itself requires of every network."""
    return [
        Requirement(key=key, sign=sign, bound=side, text=f"{key}{sign}{side:.12g} (the job's own bound)")
        for key, bound in spec.constraints.items()
        for sign, side in ((GREATEST, bound.max), (LEAST, bound.min))
        if side is not None
    ]


def decide(
    front: Front,
    requirements: Sequence[Requirement],
    others: Sequence[Candidate] = (),
    bounds: Sequence[Requirement] = (),
) -> Gate:
    """The verdict. Where the front is empty the nearest is looked for among ``others``, of which the job's own
    ``bounds`` are required as well.
    """
    direction = {objective.key: objective.direction for objective in front.objectives}
    keys = list(dict.fromkeys([*(requirement.key for requirement in requirements), *direction]))

    def order(candidate: Candidate) -> list[float]:
        values = [_value(candidate, key) for key in keys]
        return [
            math.inf if value is None else value if direction[key] == "minimize" else -value
            for key, value in zip(keys, values, strict=True)
        ]

    passing = sorted((member for member in front.members if not _misses(member, requirements)), key=order)
    asked = [*requirements, *(() if front.members else bounds)]
    nearest = None
    if not passing:
        found = front.members or others
        nearest = min(found, key=lambda candidate: (_distance(candidate, asked), order(candidate)), default=None)
    return Gate(
        job=front.job,
        kind=front.kind,
        version=front.version,
        requirements=list(requirements),
        members=len(front.members),
        passed=bool(passing),
        passing=passing,
        best=passing[0].id if passing else None,
        rule=f"{'least' if direction[keys[0]] == 'minimize' else 'greatest'} {keys[0]}",
        nearest=nearest,
        misses=_misses(nearest, asked) if nearest is not None else [],
    )


def _misses(candidate: Candidate, requirements: Sequence[Requirement]) -> list[Miss]:
    found = []
    for requirement in requirements:
        value = _value(candidate, requirement.key)
        if value is None or not requirement.holds(value):
            by = None if value is None else abs(value - requirement.bound)
            share = None if by is None or not requirement.bound else by / abs(requirement.bound)
            found.append(Miss(requirement=requirement, value=value, by=by, share=share))
    return found


def _distance(candidate: Candidate, requirements: Sequence[Requirement]) -> float:
    """Sum over requirements of how far the value lies beyond its bound, as a share of the bound; as the service has
    it.
    """
    return sum(
        math.inf if miss.by is None else miss.by / (abs(miss.requirement.bound) or 1.0)
        for miss in _misses(candidate, requirements)
    )


def _value(candidate: Candidate, key: str) -> float | None:
    return candidate.values[key].value if key in candidate.values else None
