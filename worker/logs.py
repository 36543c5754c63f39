"""Brings what a child prints from its file on this host to the database, where every host can read it."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterator
from typing import BinaryIO
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from store import logs, tasks
from store.errors import LeaseLostError
from store.logs import CHUNK_BYTES, HEAD_BYTES, TAIL_BYTES
from store.session import unit_of_work
from store.settings import settings

log = logging.getLogger(__name__)


class Shipper:
    """The log of one attempt; made before its child prints anything.

    Attempts of a task on one host share a file; what was there before is not this attempt's.
    """

    def __init__(self, task_id: UUID, fence: int) -> None:
        self.task_id, self.fence = task_id, fence
        self._path = settings().log_dir / f"{task_id}.log"
        self._start = self._length()
        self._sent = 0

    def ship(self, last: bool = False) -> None:
        """Stores what came since; ``last``: the child has ended, so that nothing more comes.

        Never fails: a log that cannot be stored is no reason to end an attempt, and the next call makes good.
        """
        end = self._length() - self._start
        if end <= self._sent:
            return
        try:
            with unit_of_work() as session:
                tasks.hold(session, self.task_id, self.fence)
                sent = logs.end(session, self.task_id, self.fence)
                with self._path.open("rb") as file:
                    for offset, size, text in self._unsent(file, sent, end, last):
                        logs.append(session, self.task_id, self.fence, offset, size, text)
                        sent = offset + size
        except LeaseLostError:
            return  # the file has the rest
        except (SQLAlchemyError, OSError):
            log.warning("the log of task %s waits", self.task_id, exc_info=True)
            return
        self._sent = sent

    def _length(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _unsent(self, file: BinaryIO, sent: int, end: int, last: bool) -> Iterator[tuple[int, int, str]]:
        """Chunks of what is to be kept between ``sent`` and ``end``."""
        of_head, of_tail = max(sent, HEAD_BYTES), end - TAIL_BYTES
        ranges = ((sent, of_head), (of_tail, end)) if of_tail > of_head else ((sent, end),)
        for start, stop in ranges:
            file.seek(self._start + start)
            yield from pieces(start, file.read(stop - start), last or stop < end)


def pieces(offset: int, data: bytes, last: bool) -> Iterator[tuple[int, int, str]]:
    """Chunks of what was printed from ``offset`` on: offset, bytes, text.

    What may go on waits for the next time unless this is the ``last``: a line that has just begun, half a character.
    """
    begun = offset
    while data:
        size, text = cut(data, last)
        just_begun = offset > begun and len(data) < CHUNK_BYTES and not text.endswith("\n")
        if not size or (just_begun and not last):
            return
        yield offset, size, text
        offset, data = offset + size, data[size:]


def cut(data: bytes, last: bool) -> tuple[int, str]:
    """How many bytes to take as the next chunk, and their text: whole lines, or at least whole characters.

    ``last``: nothing will follow ``data``. Bytes that are no UTF-8 become replacement characters.
    """
    piece = data[:CHUNK_BYTES]
    last = last and len(piece) == len(data)
    if not last and (lines := piece.rfind(b"\n") + 1):
        piece = piece[:lines]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(piece, final=last)
    return len(piece) - len(decoder.getstate()[0]), text
