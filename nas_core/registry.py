"""Plug-ins by name. A package imports its own modules, so that a file registers itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from nas_core.errors import UnknownNameError

T = TypeVar("T", bound=type[Any])


class Registry(Mapping[str, T], Generic[T]):
    """Classes by the name users write in a job; ``what`` names the kind of thing in messages."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._known: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator. Raises ValueError when the name is taken by another class."""

        def enter(cls: T) -> T:
            taken = self._known.get(name)
            if taken is not None and taken is not cls:
                raise ValueError(f"{self.what} '{name}' is registered twice: {taken!r} and {cls!r}")
            self._known[name] = cls
            return cls

        return enter

    def restore(self, known: Mapping[str, T]) -> None:
        """Back to what was known before; what came since is forgotten."""
        self._known = dict(known)

    def __getitem__(self, name: str) -> T:
        try:
            return self._known[name]
        except KeyError:
            raise UnknownNameError(self.what, name, self._known) from None

    def get(self, name: str, default: Any = None, /) -> Any:
        """Mapping's own would let UnknownNameError through: that is no KeyError, whose text is a quoted repr."""
        return self._known.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def name_of(self, thing: object) -> str:
        """The name a plug-in's class was registered under."""
        for name, cls in self._known.items():
            if type(thing) is cls:
                return name
        raise UnknownNameError(self.what, type(thing).__name__, self._known)


def import_siblings(package: str, path: list[str]) -> None:
    """Imports every public module of a package, so that its plug-ins register themselves."""
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
