"""Job files: JSON or YAML in, with single fields set from the command line."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skyline.errors import InvalidSpecError

BEGINNINGS = {"job": "'space: ...'", "profile": "'name: ...', 'device: ...', 'parts: ...'"}
"""What a file of each kind holds, for messages."""


def load(source: str | Path, what: str = "job") -> dict[str, Any]:
    """The ``what`` in a file, ``-`` for standard input; JSON is YAML too. Raises InvalidSpecError."""
    name = "standard input" if str(source) == "-" else str(source)
    try:
        text = sys.stdin.read() if str(source) == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSpecError(name, f"it cannot be read: {error.strerror or error}", what) from error
    except UnicodeDecodeError as error:
        raise InvalidSpecError(name, "it is not UTF-8 text", what) from error
    return parse(text, name, what)


def parse(text: str, name: str, what: str = "job") -> dict[str, Any]:
    """The ``what`` in a text; ``name`` stands for it in messages. Raises InvalidSpecError."""
    document = _yaml(text, name, what)
    if not isinstance(document, dict):
        holds = "it is empty" if document is None else f"it holds a {type(document).__name__}"
        raise InvalidSpecError(name, f"{holds}; a mapping such as {BEGINNINGS[what]} is needed", what)
    return {str(key): value for key, value in document.items()}


def override(spec: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The spec with ``path.to.field=value`` applied in turn; values are YAML. Raises InvalidSpecError."""
    spec = copy.deepcopy(spec)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise InvalidSpecError(f"--set {setting}", "write it as field.of.the.job=value")
        *parents, last = path.split(".")
        place: Any = spec
        for depth, part in enumerate(parents):
            place = _step(place, part, setting, ".".join(parents[:depth]), {})
        value = _yaml(text, f"--set {setting}")
        if isinstance(place, list):
            _step(place, last, setting, ".".join(parents), None)  # says so when there is no such place
            place[int(last)] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            raise InvalidSpecError(f"--set {setting}", f"'{'.'.join(parents)}' is {place!r}, which has no fields")
    return spec


def _step(place: Any, part: str, setting: str, where: str, default: Any) -> Any:
    """One level down, made where it is missing."""
    if isinstance(place, list):
        if not part.isdigit() or int(part) >= len(place):
            raise InvalidSpecError(f"--set {setting}", f"'{where}' is a list of {len(place)}; '{part}' is none of them")
        return place[int(part)]
    if not isinstance(place, dict):
        raise InvalidSpecError(f"--set {setting}", f"'{where}' is {place!r}, which has no fields")
    return place.setdefault(part, default)


def _yaml(text: str, name: str, what: str = "job") -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise InvalidSpecError(name, f"{line}{getattr(error, 'problem', None) or error}", what) from error


def _loader() -> Any:
    """PyYAML's safe loader, but ``1e-3`` is a number, ``2026-01-31`` is text, as JSON would have them, and a key that
    stands twice is an error.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                    problem = f"'{key.value}' stands twice; keep one of the two"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                if isinstance(key, yaml.ScalarNode):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = re.compile(r"^[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
