"""Server-sent events, the part of the WHATWG format that the service uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a stream."""

    id: str | None
    event: str
    data: str


def parse(lines: Iterable[str]) -> Iterator[Message | None]:
    """Messages out of lines without their ends; None for a comment (the service lives); an open end is dropped."""
    identifier: str | None = None
    event, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Message(identifier, event, "\n".join(data))
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        if not name:
            yield None
        value = value.removeprefix(" ")
        match name:
            case "id":
                identifier = value
            case "event":
                event = value
            case "data":
                data.append(value)
            case _:  # a comment, retry, or a field that is not ours
                pass
