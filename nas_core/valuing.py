"""Asks objectives for values. One may be a user's own: whatever it raises, or gives instead of a value, becomes an
ObjectiveError that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from nas_core.architecture import Architecture
from nas_core.errors import NasCoreError, ObjectiveError
from nas_core.search import DataObjective, ExactObjective, MeasuredObjective, Objective, TabularObjective
from nas_core.training.room import is_out_of_memory
from nas_core.values import KINDS, Kind, Value

if TYPE_CHECKING:
    import torch

MESSAGE = 500
"""Characters of an error that are kept."""


def data_value(key: str, objective: Objective, error: float, kind: Kind, detail: Mapping[str, Any]) -> Value:
    """What follows from an error on images. Raises ObjectiveError."""
    with _asking(key):
        return _checked(key, objective, cast(DataObjective, objective).value(error, kind, detail))


NONZERO = "nonzero"
"""Of the detail of a value that counts parameters: how many there are without those that weight masks make zero."""


def exact_value(key: str, objective: Objective, architecture: Architecture, removed: int | None = None) -> Value:
    """What follows from the architecture. Where weight masks are known, which take ``removed`` weights away, parameters
    are counted without those, too.

    Raises ObjectiveError, or UnknownNameError for an op without a known cost.
    """
    with _asking(key):
        exact = cast(ExactObjective, objective)
        value = _checked(key, objective, exact.value(architecture))
    scale = getattr(objective, "scale", None)
    if removed is None or exact.resource != "params" or scale is None:
        return value
    return replace(value, detail={NONZERO: int(value.value) - scale * removed, **value.detail})


def tabular_value(key: str, objective: Objective, architecture: Architecture) -> Value:
    """What a table has for the architecture. Raises MissingRowError where it has nothing."""
    with _asking(key):
        return _checked(key, objective, cast(TabularObjective, objective).value(architecture))


def settled_value(
    key: str, objective: Objective, architecture: Architecture, removed: int | None = None
) -> Value | None:
    """What is known without training or measuring: exact and tabular values; None of the others. ``removed``: as of
    ``exact_value``.
    """
    match objective.source:
        case "exact":
            return exact_value(key, objective, architecture, removed)
        case "tabular":
            return tabular_value(key, objective, architecture)
        case _:
            return None


def measured_values(
    key: str, objective: Objective, architectures: Sequence[Architecture], device: torch.device
) -> list[Value]:
    """One for each, taken together. Raises ObjectiveError; DeviceError and want of memory pass as they are."""
    with _asking(key):
        taken = list(cast(MeasuredObjective, objective).measure(architectures, device))
        if len(taken) != len(architectures):
            raise ObjectiveError(f"objective '{key}' gave {len(taken)} values for {len(architectures)} networks")
        return [_checked(key, objective, value) for value in taken]


@contextmanager
def _asking(key: str) -> Iterator[None]:
    try:
        yield
    except NasCoreError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ObjectiveError(f"objective '{key}' raised {type(error).__name__}: {str(error)[:MESSAGE]}") from error


def _checked(key: str, objective: Objective, value: Any) -> Value:
    """As it can be stored; not whether it is finite."""
    if not isinstance(value, Value):
        wanted = f"Value(number, '{objective.unit}', kind)"
        raise ObjectiveError(f"objective '{key}' gave {value!r:.80}; expected a nas_core.values.{wanted}")
    if value.kind not in KINDS:
        raise ObjectiveError(f"objective '{key}' gave a value of kind {value.kind!r:.80}; known: {', '.join(KINDS)}")
    if value.unit != objective.unit:
        raise ObjectiveError(f"objective '{key}' gave a value in {value.unit!r:.80}; its unit is '{objective.unit}'")
    try:
        json.dumps(dict(value.detail))
        if taken := {"value", "unit", "kind"} & set(value.detail):
            raise ValueError(f"it has '{min(taken)}', which is the value's own")
    except (TypeError, ValueError) as error:
        raise ObjectiveError(f"objective '{key}' gave a value whose detail cannot be stored: {error}") from error
    return value if type(value.value) is float else Value(float(value.value), value.unit, value.kind, value.detail)
