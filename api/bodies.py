"""Request bodies: JSON or YAML in, one checked document out.

Stricter than the parsers: numbers are finite, keys stand once, text is valid Unicode without NUL (PostgreSQL takes
none), and a small file cannot grow into a large document (YAML aliases).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any

import yaml
from fastapi import Depends, Request

from api.errors import Fault, ProblemError, pointer, refusal

MAX_YAML_BYTES = 32_768
"""YAML is read by a slow parser on purpose: the fast one can be made to overflow its stack."""
MAX_VALUES = 10_000
"""Of all fields but SEEDS."""
SEEDS = "seed_genotypes"
MAX_SEED_VALUES = 200_000
MAX_DEPTH = 32

JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


async def body(request: Request) -> bytes:
    """The body as it arrives; how large one may be is looked after by api.guards."""
    return await request.body()


def document(request: Request, content: Annotated[bytes, Depends(body)]) -> dict[str, Any]:
    """The body as a mapping (runs in a thread: YAML is slow)."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media in YAML_TYPES:
        if len(content) > MAX_YAML_BYTES:
            raise _too_large(MAX_YAML_BYTES, "as YAML; JSON may be larger")
        parsed = _parse(content, "YAML")
    elif media in JSON_TYPES or (media.startswith("application/") and media.endswith("+json")):
        parsed = _parse(content, "JSON")
    else:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Unsupported media type",
            f"got content type '{media or 'none'}'; send application/json or application/yaml",
        )
    check(parsed)
    if not isinstance(parsed, dict):
        raise _malformed("", parsed, "a mapping of fields, such as {...}", f"the body is {_name(parsed)}")
    return parsed


def document_if_any(request: Request, content: Annotated[bytes, Depends(body)]) -> dict[str, Any]:
    """As :func:`document`; no body at all is an empty mapping."""
    return document(request, content) if content.strip() else {}


Document = Annotated[dict[str, Any], Depends(document)]
DocumentIfAny = Annotated[dict[str, Any], Depends(document_if_any)]


def _too_large(limit: int, how: str) -> ProblemError:
    detail = f"the body is larger than {limit} bytes, the most that is taken {how}"
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Body too large", detail)


def _malformed(path: str, got: Any, expected: str, detail: str) -> ProblemError:
    return refusal([Fault("Malformed body", f"{detail}; expected {expected}", path, got, expected)])


def _parse(content: bytes, language: str) -> Any:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed("", None, "UTF-8 text", f"byte {error.start} of the body is not UTF-8") from error
    try:
        return _json(text) if language == "JSON" else _yaml(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _malformed("", None, "JSON", f"the body is not JSON: {error.msg} at {where}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _malformed("", None, "YAML", f"the body is not YAML: {error.problem}{where}") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise _malformed("", None, "YAML", "the body is not YAML: it holds a forbidden character") from error
    except RecursionError as error:
        raise _malformed("", None, f"at most {MAX_DEPTH} levels", "the body is nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise _malformed("", None, "numbers of 64 bits", "the body holds a number that cannot be read") from error


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _malformed("", twice, "each field once", f"field '{twice[:100]}' stands twice")
    return mapping


@cache
def _loader() -> type[yaml.SafeLoader]:
    """The safe loader, but ``1e-3`` is a number and ``2026-01-31`` is text, as in JSON; keys are text and stand once.

    Merge keys (``<<``) are not known: they can grow without bound and mean that a key stands twice.
    """

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, token: Any) -> None:
            # The scanner looks far ahead at each bracket, so a row of them would take seconds.
            if self.flow_level > MAX_DEPTH:
                raise RecursionError
            super().fetch_flow_collection_start(token)

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Iterator[Any]:
        found: dict[Any, Any] = {}
        yield found  # before it is filled, as a mapping may hold an alias of itself; check() refuses that
        pairs = [(loader.construct_object(key), loader.construct_object(value)) for key, value in node.value]
        for key, _ in pairs:
            if not isinstance(key, str):
                detail = f"the name of a field is {_name(key)}: {key!r:.100}"
                raise _malformed("", key, "text as the name of a field", detail)
        found.update(_once(pairs))

    untaken = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in untaken]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    exponent = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+.0123456789"))
    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    return Loader


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_loader())


def check(parsed: Any) -> None:
    """Raises ProblemError (422) for what JSON cannot say or a database cannot keep."""
    waiting: list[tuple[Any, tuple[object, ...]]] = [(parsed, ())]
    seen, seeds = 0, 0
    while waiting:
        value, path = waiting.pop()
        if path[:1] == (SEEDS,):
            seeds += 1
        else:
            seen += 1
        if seen > MAX_VALUES:
            raise _malformed("", None, f"at most {MAX_VALUES} values", "the body holds too many values")
        if seeds > MAX_SEED_VALUES:
            raise _malformed(f"/{SEEDS}", None, f"at most {MAX_SEED_VALUES} values", f"{SEEDS} holds too many values")
        if len(path) > MAX_DEPTH:
            raise _malformed("", None, f"at most {MAX_DEPTH} levels", "the body is nested too deeply")
        if isinstance(value, dict):
            for key, item in value.items():
                _check_text(key, path)
                waiting.append((item, (*path, key)))
        elif isinstance(value, list):
            waiting += [(item, (*path, index)) for index, item in enumerate(value)]
        elif isinstance(value, str):
            _check_text(value, path)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise _malformed(pointer(path), value, "a finite number", f"{pointer(path)} is {value}")
        elif isinstance(value, int):
            if abs(value) >= 2**63:
                raise _malformed(pointer(path), value, "an integer of 64 bits", f"{pointer(path)} is too large")
        elif value is not None:
            expected = "text, a number, true, false or null"
            raise _malformed(pointer(path), value, expected, f"{pointer(path)} is {_name(value)}")


def _check_text(text: str, path: tuple[object, ...]) -> None:
    # A lone surrogate is valid in JSON's escapes but in no encoding.
    if "\0" in text or not _encodes(text):
        expected = "text of Unicode characters other than NUL"
        raise _malformed(pointer(path), text, expected, f"{pointer(path) or 'a field'} holds NUL or half a character")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(value: Any) -> str:
    if value is None:
        return "empty"
    names = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), f"a {type(value).__name__}")
