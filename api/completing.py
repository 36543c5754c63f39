"""Posted jobs that leave fields out, to be taken from elsewhere: how they are completed, and where faults of what was
taken stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from api.errors import ProblemError


def over(given: Any, own: Mapping[str, Any]) -> Any:
    """``given`` with the fields of ``own`` that it leaves out; as it is where it has no fields."""
    return {**own, **given} if isinstance(given, dict) else given


def within(error: ProblemError, document: Mapping[str, Any], own: Mapping[str, Any], place: str) -> ProblemError:
    """The same error; faults of what ``document`` left out and was taken from ``own`` stand at ``place``."""
    problem = error.problem
    errors = [
        fault.model_copy(update={"path": place}) if _taken(fault.path.split("/")[1:], document, own) else fault
        for fault in problem.errors
    ]
    return ProblemError(HTTPStatus(problem.status), problem.title, problem.detail, errors, error.headers)


def _taken(path: Sequence[str], document: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    part = path[0] if path else ""
    if own.get(part) is None:
        return False
    if part not in document:
        return True
    given = document[part]
    inside = isinstance(own[part], Mapping) and isinstance(given, dict) and len(path) > 1
    return inside and path[1] in own[part] and path[1] not in given
