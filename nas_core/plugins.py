"""Users' own objectives, data sets, spaces, algorithms and presets: files or modules that register themselves when run.

A plug-in is code, and runs with all the rights of the process that loads it: load only what you would run yourself.
Whatever one raises stays its own trouble; nothing that it registered before remains, and the others are loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from nas_core.algorithms import algorithms
from nas_core.costs import RESOURCES
from nas_core.datasets import datasets
from nas_core.errors import PluginError
from nas_core.objectives import objectives
from nas_core.presets import PARTS, presets
from nas_core.registry import Registry
from nas_core.settings import form
from nas_core.spaces import spaces

GROUP = "skyline.plugins"
"""Of entry points: ``name = "package.module"``."""
REGISTRIES: tuple[Registry[type[Any]], ...] = (spaces, algorithms, objectives, datasets, presets)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What a job can write."""
MESSAGE = 500
"""Characters of an error that are kept."""

Added = tuple[str, str]
"""What a registry holds, and a name in it: ``("objective", "carbon")``."""


@dataclass(frozen=True, slots=True)
class Source:
    """A plug-in that is wanted; nothing of it has run."""

    name: str
    """A file's name, a module's, or an entry point's; its key where another has that name."""
    key: str
    """The whole path, or the module."""
    run: Callable[[], ModuleType]


@dataclass(frozen=True, slots=True)
class Plugin:
    """What came of a plug-in that was wanted."""

    name: str
    adds: tuple[Added, ...] = ()
    """What a job can name because of it."""
    error: str | None = None
    """Why it cannot be used."""


def use(*wanted: str | Path) -> list[Plugin]:
    """Loads ``.py`` files and modules, for a notebook or a script.

    Raises PluginError for the first that cannot be used.
    """
    loaded = []
    for item in wanted:
        plugin = load(_named(str(item)))
        if plugin.error is not None:
            raise PluginError(f"plug-in '{plugin.name}' cannot be used: {plugin.error}")
        loaded.append(plugin)
    return loaded


def sources(wanted: Iterable[str | Path] = ()) -> list[Source]:
    """What installed packages offer as entry points, then ``wanted`` (files or modules); each of them once."""
    found: dict[str, Source] = {}
    for source in (*_offered(), *(_named(str(item)) for item in wanted)):
        if source.key not in found:
            taken = any(source.name == other.name for other in found.values())
            found[source.key] = replace(source, name=source.key) if taken else source
    return list(found.values())


def load(source: Source) -> Plugin:
    """Runs it, and looks at what it registered. Raises nothing: a plug-in that cannot be used says why.

    A file is run anew each time, and what it registered before goes; a module is run once.
    """
    _withdraw(_module_name(source.key))
    known = {registry.what: dict(registry) for registry in REGISTRIES}
    try:
        module = source.run()
        added = _added(known, module)
        for registry, name in added:
            check(registry, name)
    # A plug-in may raise anything at all, SystemExit included; that is its own end, not ours.
    except (Exception, SystemExit) as error:
        for registry in REGISTRIES:
            registry.restore(known[registry.what])
        return Plugin(source.name, error=said(error, source.key))
    return Plugin(source.name, tuple((registry.what, name) for registry, name in added))


def said(error: BaseException, file: str = "") -> str:
    """An error in one line: what it is, and the last line of ``file`` that it passed."""
    text = " ".join(str(error).split())[:MESSAGE] or "no reason given"
    if isinstance(error, PluginError):
        return text
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{type(error).__name__}: {text}" + (f" (line {lines[-1]})" if lines else "")


# --- where they come from ---------------------------------------------------------------------------------------------


def _offered() -> Iterator[Source]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        yield Source(point.name, point.module, partial(_of_entry_point, point))


def _of_entry_point(point: EntryPoint) -> ModuleType:
    point.load()
    return sys.modules[point.module]


def _named(item: str) -> Source:
    if item.endswith(".py") or "/" in item or os.sep in item:
        path = Path(os.path.expanduser(item)).resolve()  # which never fails
        return Source(path.name, str(path), partial(_of_file, path))
    return Source(item, item, partial(importlib.import_module, item))


class _Uncached(SourceFileLoader):
    """Reads the source itself: bytecode is as old as the second in which a file was written."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    name = _module_name(str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    assert spec is not None and spec.loader is not None, "it has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where the types of its annotations are looked up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(key: str) -> str:
    """Of the module that a file becomes."""
    mark = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:12]  # a-b.py is not a_b.py
    return f"skyline_plugin_{re.sub(r'[^0-9A-Za-z]', '_', key)}_{mark}"


def _withdraw(module: str) -> None:
    for registry in REGISTRIES:
        registry.restore({name: cls for name, cls in registry.items() if cls.__module__ != module})


def _added(known: Mapping[str, Mapping[str, Any]], module: ModuleType) -> list[tuple[Registry[type[Any]], str]]:
    """What is new, and what a module that somebody had imported before registered then. Raises PluginError if that is
    nothing.
    """
    found = [
        (registry, name)
        for registry in REGISTRIES
        for name, cls in registry.items()
        if name not in known[registry.what] or f"{cls.__module__}.".startswith(f"{module.__name__}.")
    ]
    if not found:
        raise PluginError("it registers nothing; decorate a class, such as @objectives.register('name')")
    return found


# --- what a plug-in must have -----------------------------------------------------------------------------------------


def check(registry: Registry[type[Any]], name: str) -> None:
    """Raises PluginError for a registered class that a job could not use."""
    cls = registry[name]
    what = f"{registry.what} '{name}'"
    if not NAME.fullmatch(name):
        raise PluginError(f"{what}: a name is a letter or digit, then at most 99 more of them or of '_', '.', '-'")
    if not inspect.isclass(cls):
        raise PluginError(f"{what} is {cls!r:.80}, no class")
    try:
        json.dumps({} if registry is presets else form(cls), allow_nan=False)
    # pydantic has errors of many kinds, and evaluating an annotation may raise anything
    except Exception as error:
        hint = "decorate it with @settings, and give settings types and values that JSON has"
        raise PluginError(f"{what} has no form for its settings; {hint} ({said(error)})") from error
    for member, (fits, wanted) in _members(registry, cls).items():
        found = getattr(cls, member, None)
        if not fits(found):
            came = "is missing" if found is None else f"is {found!r:.80}"
            raise PluginError(f"{what}: '{member}' {came}; wanted is {wanted}")


Member = tuple[Callable[[Any], bool], str]
METHOD: Member = (callable, "a method (see nas_core/search.py)")


def _members(registry: Registry[type[Any]], cls: type[Any]) -> dict[str, Member]:
    """What a class of this kind must have, what would do for it, and that in words."""
    if registry is spaces:
        return dict.fromkeys(("skeleton", "check", "sample", "extreme"), METHOD)
    if registry is algorithms:
        return {"needs": (_protocol, "what its space must be, such as nas_core.search.Evolvable"), "search": METHOD}
    if registry is datasets:
        described = "'input' [C, H, W] and 'classes'; both may be left out where there is a setting 'path'"
        return {"facts": (partial(_facts, cls), described), "presence": METHOD, "splits": METHOD}
    if registry is presets:
        fragment = f"fields by part of a job ({', '.join(PARTS)}), as JSON has them"
        return {"source": (lambda found: isinstance(found, str), "text"), "job": (_fragment, fragment)}
    common: dict[str, Member] = {
        "unit": (lambda found: isinstance(found, str), "text, such as 'ms'"),
        "direction": _one_of("minimize", "maximize"),
        "source": _one_of("data", "exact", "measured"),
    }
    match getattr(cls, "source", None):
        case "measured":
            return {**common, "measure": METHOD}
        case "exact":
            return {**common, "value": METHOD, "resource": _one_of(*RESOURCES), "scale": (_scale, SCALE)}
        case _:
            return {**common, "value": METHOD}


def _one_of(*values: str) -> Member:
    return lambda found: isinstance(found, str) and found in values, f"one of {', '.join(values)}"


SCALE = "a whole number from 1 on, or nothing where the value is no multiple of the resource"


def _scale(found: Any) -> bool:
    return found is None or _counts(found, 1)


def _protocol(found: Any) -> bool:
    """A class, or a Protocol that can be asked for at run time."""
    return inspect.isclass(found) and getattr(found, "_is_runtime_protocol", not getattr(found, "_is_protocol", False))


def _facts(cls: type[Any], found: Any) -> bool:
    """Whether the API can work with what a data set says of itself."""
    if not isinstance(found, Mapping):
        return False
    try:
        json.dumps(dict(found), allow_nan=False)
    except (TypeError, ValueError):
        return False
    if not {"input", "classes"} & set(found):
        return "path" in form(cls).get("properties", {})
    size, classes = found.get("input"), found.get("classes")
    sizes = isinstance(size, list | tuple) and len(size) == 3 and all(_counts(each, 1) for each in size)
    return sizes and _counts(classes, 2)


def _fragment(found: Any) -> bool:
    """Whether it is a part of a job that a preset may fill in."""
    if not isinstance(found, Mapping) or not all(isinstance(fields, Mapping) for fields in found.values()):
        return False
    try:
        json.dumps({part: dict(fields) for part, fields in found.items()}, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return set(found) <= set(PARTS)


def _counts(found: Any, least: int) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= least
