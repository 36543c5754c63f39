"""Data sets under names of their own: added once, listed by name, deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from store import cursors, datasets
from store.errors import DatasetExistsError, InvalidCursorError, NotFoundError, TooManyDatasetsError
from store.session import now, reading, unit_of_work

LEAVES = {"name": "imagefolder", "path": "leaves", "size": 64}


def add(name: str = "leaves", dataset: dict[str, Any] | None = None, description: str = "") -> bool:
    with unit_of_work() as session:
        return datasets.add(session, name, LEAVES if dataset is None else dataset, description)[1]


def names(**query: Any) -> tuple[list[str], str | None]:
    with reading() as session:
        rows, following = datasets.page(session, **query)
        return [row.name for row in rows], following


def test_what_was_added_is_there() -> None:
    with unit_of_work() as session:
        row, new = datasets.add(session, "leaves", LEAVES, "of 2026")
        assert new and row.dataset == LEAVES
    with reading() as session:
        row = datasets.get(session, "leaves")
        assert (row.name, row.dataset, row.description) == ("leaves", LEAVES, "of 2026")
        assert abs((now(session) - row.created_at).total_seconds()) < 60
        assert datasets.find(session, "Leaves") is None, "names differ by case"


def test_the_same_again_changes_nothing_and_something_else_is_refused() -> None:
    assert add(description="one")
    assert not add(dataset=dict(reversed(LEAVES.items())), description="one")
    for other in ({"dataset": {**LEAVES, "size": 32}}, {"description": "two"}):
        with pytest.raises(DatasetExistsError, match=r"'leaves' is registered with other .*delete it first"):
            add(**{"description": "one", **other})
    with reading() as session:
        assert datasets.get(session, "leaves").dataset == LEAVES


def test_two_at_once_make_one() -> None:
    together = Barrier(2)

    def run(size: int) -> bool | None:
        together.wait()
        try:
            return add(dataset={**LEAVES, "size": size})
        except DatasetExistsError:
            return None

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, (32, 64)), key=str) == [None, True]
    with ThreadPoolExecutor(2) as pool:
        with reading() as session:
            size = datasets.get(session, "leaves").dataset["size"]
        assert list(pool.map(run, (size, size))) == [False, False]


def test_a_page_ends_with_the_cursor_of_the_next() -> None:
    for name in ("c", "a", "b.2", "b-1"):
        add(name)
    everything, end = names()
    assert set(everything) == {"a", "b-1", "b.2", "c"} and end is None
    with reading() as session:
        assert [row.name for row in datasets.listed(session)] == everything
    first, cursor = names(limit=3)
    assert names(limit=3, cursor=cursor) == (everything[3:], None)
    assert first == everything[:3]
    with unit_of_work() as session:
        datasets.delete(session, everything[2])
    assert names(limit=3, cursor=cursor) == (everything[3:], None), "the row that it ended with may go"


@pytest.mark.parametrize("cursor", ["nonsense", cursors.pack(1), cursors.pack("a", "b"), cursors.pack("a\0")])
def test_a_cursor_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        names(cursor=cursor)


def test_deleted_is_gone_and_the_name_is_free() -> None:
    add()
    with unit_of_work() as session:
        datasets.delete(session, "leaves")
    for ask in (datasets.get, datasets.delete):
        with unit_of_work() as session, pytest.raises(NotFoundError, match="no registered data set 'leaves'"):
            ask(session, "leaves")
    assert add(dataset={**LEAVES, "size": 32})


def test_there_may_be_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MOST", 2)
    assert add("a") and add("b")
    with pytest.raises(TooManyDatasetsError, match="data sets registered: 2, the most .*delete one"):
        add("c")
    assert not add("a"), "what is there may be sent again"
