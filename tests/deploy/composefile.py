"""docker-compose.yml as Compose reads it: variables filled in, anchors and merges resolved. No engine is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<rest>[^{}]*))?\})")
PASSWORDS = {"POSTGRES_PASSWORD": "0" * 48, "BROKER_PASSWORD": "1" * 48}


class MissingVariableError(Exception):
    """A variable that must be set is not."""


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Compose's interpolation, as far as our file uses it."""

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        name, how, rest = found["name"], found["how"] or "", found["rest"] or ""
        if name in variables and (variables[name] or not how.startswith(":")):
            return variables[name]
        if how.endswith("?"):
            raise MissingVariableError(f"{name}: {rest}")
        return rest if how else ""

    assert "$" not in VARIABLE.sub("", text), f"not understood here: {text}"
    return VARIABLE.sub(value, text)


def variables_of(text: str) -> set[str]:
    """Names of all variables that a text asks for."""
    return {found["name"] for found in VARIABLE.finditer(text) if found["name"]}


def load(**variables: str) -> dict[str, Any]:
    """The file with these variables set and no others. Raises MissingVariableError."""
    filled: dict[str, Any] = _filled(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")), variables)
    return filled


def _filled(part: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(part, str):
        return substitute(part, variables)
    if isinstance(part, Mapping):
        return {key: _filled(value, variables) for key, value in part.items()}
    return [_filled(value, variables) for value in part] if isinstance(part, list) else part


def seconds(duration: str) -> float:
    """``60s``."""
    assert duration.endswith("s"), duration
    return float(duration[:-1])


@dataclass(frozen=True)
class Stage:
    """A stage of a Dockerfile: its instructions in order, continued lines joined."""

    name: str
    parent: str
    instructions: list[tuple[str, str]]

    def of(self, word: str) -> list[str]:
        return [rest for instruction, rest in self.instructions if instruction == word]


def stages(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name; what precedes the first one is stage ``""``."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = {"": Stage("", "", [])}
    current = found[""]
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            current = found.setdefault(name, Stage(name, parent, []))
        else:
            current.instructions.append((word, rest.strip()))
    return found
