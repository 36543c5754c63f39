"""Writes docs/reference/{api,jobs,plug-ins,settings,commands}.md out of the code: ``python scripts/make_reference.py``.

With ``--check`` it writes nothing, and ends with 1 when a page is not what the code says.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from api.app import app
from api.guards import OPEN
from nas_core.algorithms import algorithms
from nas_core.datasets import datasets
from nas_core.exports import exports
from nas_core.objectives import objectives
from nas_core.presets import presets
from nas_core.settings import form
from nas_core.spaces import spaces
from skyline.cli import build
from skyline.schemas import JobSpec
from store.settings import Settings
from worker.identity import Identity

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Made from the code by scripts/make_reference.py; edit the docstrings there instead. -->"
WORDS = {"null": "null", "object": "mapping", "array": "list", "integer": "integer", "number": "number"}
DATA_DIR = "~/.local/share/skyline"
"""What stands for the data folder in defaults, whoever makes the pages."""

Schema = Mapping[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | list[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").strip().replace("``", "`")


def first(text: str | None) -> str:
    """First paragraph, in one line."""
    return _cell((text or "").strip().split("\n\n")[0])


# --- forms --------------------------------------------------------------------------------------------------------


def resolved(part: Schema, root: Schema) -> Schema:
    name = str(part.get("$ref", ""))
    return (
        {**root["$defs"][name.rpartition("/")[2]], **{k: v for k, v in part.items() if k != "$ref"}} if name else part
    )


def kind_of(part: Schema, root: Schema) -> str:
    """A type with its limits, in words."""
    branches = part.get("anyOf") or part.get("oneOf")
    if branches:
        return " or ".join(dict.fromkeys(kind_of(branch, root) for branch in branches))
    if "$ref" in part:
        name = str(part["$ref"]).rpartition("/")[2]
        return kind_of(resolved(part, root), root) if "properties" not in resolved(part, root) else f"`{name}`"
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    kind = str(part.get("type", "any"))
    if kind == "array":
        return f"list of {kind_of(part.get('items', {}), root)}"
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{word} {part[name]}" for name, word in limits.items() if name in part]
    return f"{WORDS.get(kind, kind)}{', ' if said else ''}{', '.join(said)}"


def default_of(name: str, part: Schema, schema: Schema) -> str:
    if name in schema.get("required", ()):
        return "needed"
    for either in schema.get("anyOf", ())[:1]:  # the others say without what
        if name in either.get("required", ()):
            others = [f"`{other}`" for branch in schema["anyOf"][1:] for other in branch["required"]]
            return f"needed without {' or '.join(others)}"
    value = part.get("default")
    if value is None or value in ("", {}, []):
        return ""
    return f"`{yaml_like(value)}`"


def yaml_like(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_like(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(yaml_like, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def fields(schema: Schema, root: Schema) -> str:
    rows = [
        (
            f"`{name}`",
            kind_of(part, root),
            default_of(name, part, schema),
            str(resolved(part, root).get("description", "")),
        )
        for name, part in schema.get("properties", {}).items()
    ]
    return table(("field", "type", "default", "means"), rows) if rows else "No settings."


def described(schema: Schema) -> Iterator[str]:
    """A form with the forms that its fields are made of."""
    yield fields(schema, schema)
    for name, part in schema.get("$defs", {}).items():
        if "properties" in part:
            yield f"`{name}`: {first(part.get('description'))}"
            yield fields(part, schema)


# --- pages --------------------------------------------------------------------------------------------------------


def api() -> Iterator[str]:
    document = app.openapi()
    yield "# HTTP API"
    yield (
        "Every operation of the service; shapes of bodies and answers, with examples, are in `/openapi.json` of a "
        "service that runs. Errors are problem details (RFC 9457). Every operation can also answer 500 and 503."
    )
    for tag in document["tags"]:
        yield f"## {tag['name'].capitalize()}"
        yield tag["description"]
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item and item[method]["tags"] == [tag["name"]]:
                    yield from _operation(method, path, item[method])


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    scope = "none" if path in OPEN else operation["security"][0]["key"][0]
    statuses = ", ".join(code for code in operation["responses"] if code not in ("500", "503"))
    text = str(operation.get("description", "")).strip()
    yield f"**{operation['summary']}.** Scope of the key: {scope}. Answers: {statuses}." + (
        f"\n\n{text}" if text else ""
    )
    rows = [
        (
            f"`{given['name']}`",
            given["in"],
            kind_of(given["schema"], {"$defs": app.openapi()["components"]["schemas"]}),
            default_of(given["name"], given["schema"], {"required": [given["name"]] if given.get("required") else []}),
            given.get("description") or given["schema"].get("description", ""),
        )
        for given in operation.get("parameters", [])
    ]
    if rows:
        yield table(("parameter", "in", "type", "default", "means"), rows)


def jobs() -> Iterator[str]:
    schema = JobSpec.model_json_schema()
    yield "# The job"
    yield (
        "What `POST /v1/jobs` and `skyline submit` take, as JSON or YAML. Unknown fields are refused. `space`, "
        "`algorithm`, `dataset` and each objective take the settings of the plug-in they name besides, see "
        "[plug-ins](plug-ins.md)."
    )
    yield re.sub(r"\s+", " ", str(schema["description"]))
    yield fields(schema, schema)
    for name, part in schema["$defs"].items():
        yield f"## `{name}`"
        yield _cell(str(part.get("description", "")))
        yield fields(part, schema)


def plug_ins() -> Iterator[str]:
    yield "# Spaces, algorithms, objectives, data sets, presets, formats"
    yield "What Skyline brings. A worker's own are in its catalog (`skyline catalog`) with the same forms."
    for title, registry in (
        ("Spaces", spaces),
        ("Algorithms", algorithms),
        ("Objectives", objectives),
        ("Data sets", datasets),
    ):
        yield f"## {title}"
        for name, cls in sorted(registry.items()):
            yield f"### `{name}`"
            yield first(cls.__doc__)
            if title == "Objectives":
                yield f"Source: {cls.source}. Direction: {cls.direction}. Unit: {cls.unit or 'none'}."
            yield from described(form(cls))
    yield "## Presets"
    yield "What a job that names one need not say, see [presets](../howto/presets.md)."
    for name, preset in presets.items():
        yield f"### `{name}`"
        yield first(preset.__doc__)
        yield f"Source: {preset.source}."
        rows = [
            (f"`{part}.{key}`", f"`{yaml_like(value)}`")
            for part in preset.job
            for key, value in preset.job[part].items()
        ]
        yield table(("field", "value"), rows)
    yield "## Formats"
    yield "Of `GET /v1/candidates/{id}/model?format=` and `skyline pull --format`."
    rows = [(f"`{name}`", item.suffix, item.media_type, first(item.__doc__)) for name, item in exports.items()]
    yield table(("format", "ending", "media type", "is"), rows)


def settings() -> Iterator[str]:
    yield "# Settings"
    yield "Environment variables. The service's:"
    yield _variables(Settings, "SKYLINE_")
    yield "A worker's own (`skyline worker` takes them as options, too):"
    yield _variables(Identity, "SKYLINE_WORKER_")
    yield "A client's:"
    rows = [
        ("`SKYLINE_URL`", "`http://127.0.0.1:8765`", "the service that is asked"),
        ("`SKYLINE_API_KEY`", "", "the key that is shown to it"),
    ]
    yield table(("variable", "default", "means"), rows)


def _variables(model: Any, prefix: str) -> str:
    schema = model.model_json_schema()
    rows = []
    for name, part in schema["properties"].items():
        made = model.model_fields[name]
        value = yaml_like(part["default"]) if part.get("default") not in (None, "") else ""
        if not value and made.default_factory is not None and prefix == "SKYLINE_":
            value = str(made.default_factory({"data_dir": DATA_DIR}))
        if name == "threads":  # of this machine
            value = ""
        rows.append((f"`{prefix}{name.upper()}`", f"`{value}`" if value else "", str(part.get("description", ""))))
    return table(("variable", "default", "means"), rows)


def commands() -> Iterator[str]:
    yield "# Commands"
    yield (
        "`skyline COMMAND --help` says the same. Exit codes: 0 done, 1 the job failed, 2 usage, 3 no service, 4 no "
        "point meets the bound, 130 Ctrl-C."
    )
    root = typer.main.get_command(build())
    yield from _commands(root, "skyline")


def _commands(group: Any, name: str) -> Iterator[str]:
    for called, command in sorted(group.commands.items()):
        whole = f"{name} {called}"
        if hasattr(command, "commands"):
            yield from _commands(command, whole)
            continue
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        shown = " ".join(_argument(one) for one in arguments)
        yield f"## `{whole}{' ' if shown else ''}{shown}`"
        yield re.sub(r"\n(?!\n)", " ", (command.help or "").strip()).replace("\n ", "\n\n")
        rows = [_option(one) for one in command.params if one.param_type_name == "option" and not one.hidden]
        if rows:
            yield table(("option", "default", "means"), rows)


def _argument(one: Any) -> str:
    name = (one.metavar or one.name or "").upper().strip("[]")
    return name if one.required else f"[{name}]"


def _option(one: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts])
    shown = one.show_default
    value = shown if isinstance(shown, str) else one.default
    plain = (
        value is not None and not callable(value) and not isinstance(value, bool) and str(value) != "" and value != ()
    )
    default = "" if not plain or "Sentinel" in type(value).__name__ else f"`{value}`"
    return names, default.replace(str(Path.home()), "~"), str(one.help or "")


PAGES = {"api": api, "jobs": jobs, "plug-ins": plug_ins, "settings": settings, "commands": commands}


def main() -> int:
    parser = argparse.ArgumentParser(description="Reference pages out of the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path = FOLDER / f"{name}.md"
        text = "\n\n".join(part for part in (NOTE, *page()) if part) + "\n"
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
