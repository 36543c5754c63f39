"""Tables of values by architecture: read from CSV whole or not at all, looked up by an architecture's hash.

A table belongs to one space on one skeleton, because the same cell in a deeper network has other values. Its rows name
cells as a user has them: an arch string of NAS-Bench-201, a genotype as JSON in any form of ``nas_core.seeds``, or a
candidate's hash. Values are of kind ``tabular``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import Architecture, Genotype, Skeleton
from nas_core.errors import InvalidGenotypeError, MissingRowError, TableError
from nas_core.search import Enumerable, SearchSpace
from nas_core.seeds import read_genotype
from nas_core.spaces.nasbench201 import NAME as NASBENCH201
from nas_core.spaces.nasbench201 import from_arch, to_arch
from nas_core.values import Value

Direction = Literal["minimize", "maximize"]
MOST_ROWS = 200_000
LISTED = 20
"""Faults that are listed one by one."""
NAMED = 3
"""Missing cells that are named."""
HASH = re.compile(r"[0-9a-f]{64}")
HASH_BYTES = 32
SHARES: Mapping[str, float] = {"%": 100.0, "fraction": 1.0}
"""Units that an error or accuracy can be had in, and the whole in each."""
KEYS = "an arch string of NAS-Bench-201, a genotype as JSON, or a candidate's hash"
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """What a column holds, and the least and the largest of its numbers."""

    unit: str
    direction: Direction
    low: float
    high: float

    @property
    def says(self) -> Literal["error", "accuracy"] | None:
        """What jobs can take from it; None where its unit or its numbers are no error's or accuracy's."""
        whole = SHARES.get(self.unit)
        if whole is None or not 0 <= self.low <= self.high <= whole:
            return None
        return "accuracy" if self.direction == "maximize" else "error"

    def quality(self, name: str) -> Column:
        """The ``error`` or ``accuracy``, as a fraction, that this column says: what is maximised is an accuracy.

        Raises TableError for a column that says neither.
        """
        if self.says is None:
            wanted = " or ".join(f"in '{unit}' from 0 to {most:g}" for unit, most in SHARES.items())
            raise TableError(
                f"an {name} is taken from a column {wanted}; this one is in '{self.unit}', from {self.low:g} to "
                f"{self.high:g}"
            )
        ends = sorted((self.share(name, self.low), self.share(name, self.high)))
        return Column("", "maximize" if name == "accuracy" else "minimize", *ends)

    def share(self, quality: str, number: float) -> float:
        """A number of this column as the fraction ``error`` or ``accuracy``."""
        whole = SHARES[self.unit]
        return number / whole if self.says == quality else (whole - number) / whole


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableFault:
    """One thing wrong with a table's text."""

    line: int | None
    """From 1; None: the whole of it."""
    column: str | None
    got: str
    expected: str

    @property
    def place(self) -> str:
        places = [None if self.line is None else f"line {self.line}", self.column and f"column '{self.column}'"]
        return ", ".join(filter(None, places)) or "the table"

    def __str__(self) -> str:
        return f"{self.place}: got {self.got}; expected {self.expected}"


class MalformedTableError(TableError):
    """A text that is no table of the space; nothing of it is used."""

    def __init__(self, faults: Sequence[TableFault], more: int = 0) -> None:
        self.faults, self.more = tuple(faults), more
        rest = [f"and {more} more like these"] if more else []
        super().__init__("; ".join([*map(str, faults), *rest]))


@dataclass(frozen=True)
class Contents:
    """What a text says, ready to be stored."""

    hashes: bytes
    """Of the architectures, 32 bytes each, in rising order."""
    numbers: bytes
    """(rows, columns), float64, little-endian, in the order of the hashes and of the columns asked for."""
    rows: int
    left_out: int
    """Rows of cells that the benchmark has and the space has not, such as disconnected ones."""
    missing: int | None
    """Architectures of the space without a row; None where the space cannot be counted through."""
    ends: Mapping[str, tuple[float, float]]
    """By column: the least and the largest number."""


def read(
    text: str, key: str, columns: Sequence[str], space: SearchSpace, skeleton: Skeleton, partial: bool = False
) -> Contents:
    """A CSV with a header: the column ``key`` names the architecture, ``columns`` hold a finite number in every row.

    Other columns are not looked at. Of a space that can be counted through every architecture needs a row, unless the
    table is ``partial``, and rows outside the space are left out; of any other space they are faults. Raises
    MalformedTableError with all faults up to LISTED.
    """
    reader = _Reader(key, columns, space, skeleton)
    found = reader.rows(text)
    if reader.faults:
        raise MalformedTableError(reader.faults, reader.more)
    if not found:
        why = f", as in: {reader.outside}" if reader.outside else ""
        raise _malformed(f"no row of the space{why}", "a row for each architecture")
    missing = _missing(found, space, skeleton, partial)
    ordered = sorted(found.items())
    numbers = np.array([values for _, values in ordered], dtype="<f8")
    lows, highs = numbers.min(axis=0).tolist(), numbers.max(axis=0).tolist()
    ends = dict(zip(columns, zip(lows, highs, strict=True), strict=True))
    hashes = b"".join(digest for digest, _ in ordered)
    return Contents(hashes, numbers.tobytes(), len(ordered), reader.left_out, missing, ends)


def _malformed(got: str, expected: str, column: str | None = None, line: int | None = None) -> MalformedTableError:
    return MalformedTableError([TableFault(line, column, got, expected)])


def _missing(
    found: Mapping[bytes, Sequence[float]], space: SearchSpace, skeleton: Skeleton, partial: bool
) -> int | None:
    """How many architectures of the space have no row. Raises MalformedTableError where there may be none."""
    if not isinstance(space, Enumerable):
        return None
    missing = space.size() - len(found)
    if missing and not partial:
        absent = (genotype for genotype in space.every() if _digest(genotype, skeleton) not in found)
        names = ", ".join(_named(genotype) for genotype in islice(absent, NAMED))
        more = f" and {missing - NAMED} others" if missing > NAMED else ""
        raise _malformed(
            f"{len(found)} of {space.size()} architectures; without a row: {names}{more}",
            "a row for each, or a partial table (--partial, or partial: true): what has no row fails as a candidate",
        )
    return missing


def _named(genotype: Genotype) -> str:
    return to_arch(genotype) if genotype.space == NASBENCH201 else genotype.key()[:200]


def _digest(genotype: Genotype, skeleton: Skeleton) -> bytes:
    return bytes.fromhex(Architecture(genotype, skeleton).hash)


class _Reader:
    """Goes through a text once and remembers what is wrong with it."""

    def __init__(self, key: str, columns: Sequence[str], space: SearchSpace, skeleton: Skeleton) -> None:
        self.key, self.columns, self.space, self.skeleton = key, columns, space, skeleton
        self.faults: list[TableFault] = []
        self.more = 0
        """Faults beyond those LISTED."""
        self.left_out = 0
        self.outside: str | None = None
        """Why the first row was left out."""

    @cached_property
    def _all(self) -> AbstractSet[bytes] | None:
        """Hashes of all that the space holds, where it can be counted through."""
        if not isinstance(self.space, Enumerable):
            return None
        return {_digest(genotype, self.skeleton) for genotype in self.space.every()}

    def rows(self, text: str) -> dict[bytes, list[float]]:
        """Numbers by the hash of an architecture."""
        lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        found: dict[bytes, list[float]] = {}
        seen: dict[bytes, int] = {}
        try:
            header = [name.strip() for name in next(lines, [])]
            places = self._places(header)
            if places is None:
                return {}
            for row in lines:
                if not row:
                    continue
                if len(seen) >= MOST_ROWS:
                    self._fault(lines.line_num, None, f"more than {MOST_ROWS} rows", "fewer")
                    break
                self._row(row, lines.line_num, len(header), places, found, seen)
        except csv.Error as error:
            self._fault(
                lines.line_num, None, f"what is no CSV ({error})", "fields with commas between, quotes in pairs"
            )
        return found

    def _places(self, header: Sequence[str]) -> list[int] | None:
        """Where the key and the columns stand."""
        wanted = (self.key, *self.columns)
        shown = ", ".join(name[:40] for name in header[:LISTED]) or "nothing"
        for name in wanted:
            if header.count(name) != 1:
                times = "twice" if name in header else "not"
                self._fault(1, name, f"a header that has it {times}: {shown}", "a header line that has it once")
        return None if self.faults else [header.index(name) for name in wanted]

    def _row(
        self,
        row: Sequence[str],
        line: int,
        width: int,
        places: Sequence[int],
        found: dict[bytes, list[float]],
        seen: dict[bytes, int],
    ) -> None:
        if len(row) != width:
            self._fault(line, None, f"{len(row)} fields", f"{width}, as the header has")
            return
        digest, inside = self._architecture(row[places[0]].strip(), line)
        numbers = []
        if inside:
            texts = (row[place] for place in places[1:])
            numbers = [self._number(text, name, line) for text, name in zip(texts, self.columns, strict=True)]
        if digest is None:
            return
        before = seen.setdefault(digest, line)
        if before != line:
            self._fault(line, self.key, f"the architecture of line {before} again", "one row for each architecture")
        elif inside:
            found[digest] = numbers
        else:
            self.left_out += 1

    def _architecture(self, text: str, line: int) -> tuple[bytes | None, bool]:
        """(its hash, whether the row counts); None where the text names none of the space."""
        if HASH.fullmatch(text):
            if self._all is None or bytes.fromhex(text) in self._all:
                return bytes.fromhex(text), True
            self._fault(line, self.key, f"'{text}'", "the hash of an architecture of the space, on this skeleton")
            return None, True
        try:
            genotype = _genotype(text)
        except InvalidGenotypeError as error:
            self._fault(line, self.key, f"'{text[:200]}' ({error})", KEYS)
            return None, True
        try:
            self.space.check(genotype)
        except InvalidGenotypeError as error:
            self.outside = self.outside or str(error)
            if not isinstance(self.space, Enumerable):
                self._fault(line, self.key, f"'{text[:200]}' ({error})", "an architecture of the space")
                return None, True
            return _digest(genotype, self.skeleton), False
        return _digest(genotype, self.skeleton), True

    def _number(self, text: str, column: str, line: int) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or "_" in text:
            got = f"'{text[:100]}'" if text.strip() else "nothing"
            self._fault(line, column, got, "a finite number")
        return number

    def _fault(self, line: int | None, column: str | None, got: str, expected: str) -> None:
        if len(self.faults) < LISTED:
            self.faults.append(TableFault(line, column, got, expected))
        else:
            self.more += 1


def _genotype(text: str) -> Genotype:
    """Raises InvalidGenotypeError."""
    if text.startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidGenotypeError(f"no JSON: {error}") from error
        return read_genotype(document)
    return from_arch(text)


# --- looking up -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table as it was stored."""

    name: str
    sha256: str
    """Of the text that it was read from."""
    skeleton: Skeleton
    """Of the networks that were valued."""
    columns: Mapping[str, Column]
    """In the order of ``numbers``."""
    hashes: bytes
    numbers: bytes

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        whole = self.hashes.hex()
        step = 2 * HASH_BYTES
        return {whole[start : start + step]: row for row, start in enumerate(range(0, len(whole), step))}

    @cached_property
    def _numbers(self) -> Numbers:
        return np.frombuffer(self.numbers, dtype="<f8").reshape(-1, len(self.columns))

    def number(self, column: str, architecture: Architecture) -> float:
        """Raises MissingRowError for an architecture without a row."""
        row = self._rows.get(architecture.hash)
        if row is None:
            raise MissingRowError(f"table '{self.name}' has no row for {_named(architecture.genotype)}")
        return float(self._numbers[row, list(self.columns).index(column)])


@dataclass(frozen=True)
class Tabulated:
    """An objective whose values are a column of a table, as they stand there or as the error or accuracy they say."""

    table: Table
    column: str
    quality: str | None = None
    """``error`` or ``accuracy``, where the objective is that. Raises TableError for a column that says neither."""
    source: Literal["tabular"] = "tabular"

    def __post_init__(self) -> None:
        if self.column not in self.table.columns:
            known = ", ".join(self.table.columns)
            raise TableError(f"table '{self.table.name}' has no column '{self.column}'; it has {known}")
        _ = self.range

    @cached_property
    def range(self) -> Column:
        """What the values are in, and where they lie."""
        column = self.table.columns[self.column]
        return column if self.quality is None else column.quality(self.quality)

    @property
    def unit(self) -> str:
        return self.range.unit

    @property
    def direction(self) -> Direction:
        return self.range.direction

    def value(self, architecture: Architecture) -> Value:
        """Raises MissingRowError for an architecture without a row."""
        number = self.table.number(self.column, architecture)
        if self.quality is not None:
            number = self.table.columns[self.column].share(self.quality, number)
        detail: dict[str, Any] = {"table": self.table.name, "sha256": self.table.sha256, "column": self.column}
        return Value(number, self.unit, "tabular", detail)
