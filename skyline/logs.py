"""A job's log as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from skyline.schemas.answers import LogChunk

SHORT = 8
"""Characters of an id in a heading."""


def readable(chunks: Iterable[LogChunk]) -> Iterator[str]:
    """The text of chunks in their order, with a heading wherever it is another attempt that speaks."""
    speaker: tuple[UUID, int] | None = None
    end = "\n"
    for chunk in chunks:
        if (chunk.task, chunk.attempt) != speaker:
            gap = "" if speaker is None else "\n" if end == "\n" else "\n\n"
            yield f"{gap}{heading(chunk)}\n"
            speaker = (chunk.task, chunk.attempt)
        yield chunk.text
        end = chunk.text[-1:] or end


def heading(chunk: LogChunk) -> str:
    """``==> verify, attempt 2, candidate 5d0a4a53 (task 7a4d53d5) <==``."""
    of = f", candidate {str(chunk.candidate)[:SHORT]}" if chunk.candidate else ""
    return f"==> {chunk.kind}, attempt {chunk.attempt}{of} (task {str(chunk.task)[:SHORT]}) <=="
