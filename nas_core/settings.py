"""Settings of plug-ins: frozen dataclasses whose bounds and field docstrings become the form in the catalog."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nas_core.errors import InvalidSettingsError

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-only dataclass that refuses unknown fields and wrong types."""
    config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)
    cls.__pydantic_config__ = config  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def parse(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """Makes the settings object of ``cls`` out of JSON-like values.

    Raises InvalidSettingsError naming the field, what came and what would do.
    """
    try:
        parsed: T = _adapter(cls).validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise InvalidSettingsError(f"{what}: {field}: {first['msg']} (got {first['input']!r})") from error
    return parsed


def form(cls: type[Any]) -> dict[str, Any]:
    """JSON Schema of the settings, for the catalog. Inherited fields say what they say in the base."""
    schema = _adapter(cls).json_schema()
    for base in cls.__mro__[1:]:
        inherited = form(base).get("properties", {}) if "__pydantic_config__" in vars(base) else {}
        for name, said in inherited.items():
            if "description" in said:
                schema["properties"][name].setdefault("description", said["description"])
    return schema


def dump(value: Any) -> dict[str, Any]:
    """The settings as JSON-like values, defaults included."""
    dumped: dict[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return dumped
