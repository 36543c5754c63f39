"""Settings of plug-ins against the forms (JSON Schema) that workers published."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from api.errors import Fault, echo, pointer

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

Form = Mapping[str, Any]


def faults(settings: Mapping[str, Any], form: Form, what: str, path: tuple[object, ...]) -> list[Fault]:
    """All that is wrong with ``settings`` of ``what`` ("algorithm 'nsga2'"), which stand at ``path`` of the request."""
    found: list[Fault] = []
    for error in sorted(_validator()(form).iter_errors(settings), key=lambda item: [str(part) for part in item.path]):
        found += _explain(error, what, path)
    return found


def filled(settings: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """The settings with every default of the form filled in, so that a job means the same after an upgrade."""
    return _filled(settings, form, form)


def _filled(settings: Mapping[str, Any], form: Form, root: Form) -> dict[str, Any]:
    complete = dict(settings)
    for name, part in form.get("properties", {}).items():
        if name not in complete:
            if "default" in part:
                complete[name] = copy.deepcopy(part["default"])
        elif isinstance(complete[name], dict):
            complete[name] = _filled(complete[name], _branch(complete[name], part, root), root)
    return complete


def _branch(value: Any, part: Form, root: Form) -> Form:
    """The form that a value fills: of several, the first that takes it."""
    branches = [_resolve(branch, root) for branch in part.get("anyOf") or part.get("oneOf") or [part]]
    return next((one for one in branches if _validator()({**one, "$defs": root.get("$defs", {})}).is_valid(value)), {})


def _resolve(part: Form, root: Form) -> Form:
    reference = part.get("$ref", "")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        target: Form = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return target
    return part


@cache
def _validator() -> type[Validator]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # JSON Schema takes 3.0 for an integer; the settings of a worker do not.
    types = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    strict: type[Validator] = extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    return strict


def _explain(error: ValidationError, what: str, path: tuple[object, ...]) -> Iterator[Fault]:
    branch = _best_branch(error)
    if branch:
        for inner in branch:
            yield from _explain(inner, what, path)
        return
    where = (*path, *error.absolute_path)
    within = ".".join(str(part) for part in error.absolute_path)
    got: Any = error.instance
    if error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
        known = sorted(error.schema.get("properties", {}))
        listed = ", ".join(known) or "none"
        for name in sorted(set(got) - set(known)):
            full = f"{within}.{name}" if within else name
            detail = f"unknown setting '{full}' of {what}; known: {listed}"
            yield Fault("Unknown setting", detail, pointer((*where, name)), got[name], f"one of {listed}")
    elif error.validator == "required" and isinstance(error.validator_value, list):
        for name in sorted(set(error.validator_value) - set(got)):
            full = f"{within}.{name}" if within else name
            detail = f"{what} needs the setting '{full}'"
            yield Fault("Missing setting", detail, pointer((*where, name)), None, "a value: it is required")
    else:
        expected = _expected(error)
        detail = f"setting '{within}' of {what}: got {echo(got)!r}; expected {expected}"
        yield Fault("Invalid setting", detail, pointer(where), got, expected)


def _best_branch(error: ValidationError) -> list[ValidationError]:
    """Of the forms that a mapping could have filled, the faults in the one it comes nearest to."""
    if error.validator not in ("anyOf", "oneOf") or not isinstance(error.instance, dict):
        return []
    branches: dict[object, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    fitting = [
        branch for branch in branches.values() if all(inner.validator != "type" or inner.path for inner in branch)
    ]
    return min(fitting, key=_misfits, default=[])


def _misfits(branch: list[ValidationError]) -> tuple[int, int]:
    """How many fields of a mapping are unknown or missing, and how many wrong."""
    foreign = 0
    for error in branch:
        schema, got = error.schema, error.instance
        if error.validator == "additionalProperties" and isinstance(schema, Mapping) and isinstance(got, dict):
            foreign += len(set(got) - set(schema.get("properties", {})))
        elif error.validator == "required":
            foreign += 1
    return foreign, len(branch)


def _expected(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    phrases = {
        "minimum": f"at least {wanted}",
        "maximum": f"at most {wanted}",
        "exclusiveMinimum": f"more than {wanted}",
        "exclusiveMaximum": f"less than {wanted}",
        "minItems": f"at least {wanted} items",
        "maxItems": f"at most {wanted} items",
        "minLength": f"at least {wanted} characters",
        "maxLength": f"at most {wanted} characters",
        "uniqueItems": "items that differ",
        "pattern": f"text like {wanted}",
        "const": f"{wanted!r}",
    }
    match error.validator:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return " or ".join(map(_called, kinds))
        case "enum":
            return f"one of {', '.join(map(str, wanted))}"
        case "anyOf" | "oneOf":
            return " or ".join(dict.fromkeys(_expected(inner) for inner in error.context or ())) or "another value"
        case _:
            return phrases.get(str(error.validator), error.message[:200])


def _called(kind: str) -> str:
    """A type of JSON as users call it."""
    return {"null": "null", "object": "a mapping", "array": "a list", "integer": "an integer"}.get(kind, f"a {kind}")
