"""What was posted against its model: every fault with the place, what came and what would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from api.errors import Fault, echo, expectation, pointer, refusal
from skyline.schemas.jobs import NEEDED

Model = TypeVar("Model", bound=BaseModel)


def shaped(model: type[Model], document: Mapping[str, Any], title: str, what: str) -> Model:
    """``document`` as ``model``. Raises ProblemError (422) with ``title``; ``what`` stands for the whole of it."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise refusal(_merged(_faults(error, document, model, title, what)), title) from error


def _faults(
    error: ValidationError, document: Mapping[str, Any], model: type[BaseModel], title: str, what: str
) -> Iterator[Fault]:
    for item in error.errors(include_url=False):
        location = item.get("ctx", {}).get("path", item["loc"])  # rules over several fields name their place
        path, got = _place(location, document, missing=item["type"] in ("missing", NEEDED))
        expected = expectation(item)
        if item["type"] == "extra_forbidden":
            expected = f"one of {', '.join(_fields(model, item['loc'][:-1]))}"
            detail = f"unknown field '{'.'.join(map(str, path))}'; {expected}"
            yield Fault("Unknown field", detail, pointer(path), got, expected)
        elif item["type"] in ("value_error", "rule"):  # in words of their own
            yield Fault(title, expected, pointer(path), got, item.get("ctx", {}).get("expected", expected))
        else:
            where = ".".join(map(str, path)) or what
            detail = f"{where}: got {echo(got)!r}; expected {expected}"
            yield Fault("Invalid field", detail, pointer(path), got, expected)


def _place(location: Sequence[int | str], document: Any, missing: bool) -> tuple[list[int | str], Any]:
    """Where an error lies in what was sent (locations also name the branches of unions), and what is there."""
    path: list[int | str] = []
    for part in location:
        inside = isinstance(document, dict) and part in document
        if inside or (isinstance(document, list) and isinstance(part, int) and part < len(document)):
            document = document[part]
            path.append(part)
    if missing and len(path) < len(location):
        return [*path, location[-1]], None
    return path, document


def _merged(faults: Iterator[Fault]) -> list[Fault]:
    """One fault for each place, the deepest: the branches of a union each report their own."""
    by_path: dict[str, Fault] = {}
    for fault in faults:
        before = by_path.get(fault.path)
        if before is None:
            by_path[fault.path] = fault
        elif fault.expected not in before.expected:
            detail, expected = f"{before.detail} or {fault.expected}", f"{before.expected} or {fault.expected}"
            by_path[fault.path] = Fault(before.title, detail, before.path, before.got, expected)
    return [fault for path, fault in by_path.items() if not any(other.startswith(f"{path}/") for other in by_path)]


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the part of ``model`` at ``location``."""
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        candidates = [annotation, *get_args(annotation)]
        model = next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), model)
    return sorted(field.alias or name for name, field in model.model_fields.items())
