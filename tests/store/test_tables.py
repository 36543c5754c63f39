"""Tables of values under names of their own: added once, kept while jobs need them, read with their rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest

from store import cursors, jobs, tables
from store.errors import (
    InvalidCursorError,
    NotFoundError,
    TableExistsError,
    TableGoneError,
    TableInUseError,
    TooManyTablesError,
)
from store.session import now, reading, unit_of_work

SHA = "a" * 64


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "sha256": SHA,
        "space": {"name": "nasbench201", "cells": 17},
        "skeleton": {"cells": ["normal"], "channels": 16},
        "key": "arch",
        "columns": [{"name": "acc", "unit": "%", "direction": "maximize"}],
        "ends": {"acc": [10.5, 91.25]},
        "rows": 2,
        "left_out": 1,
        "missing": None,
        "partial": True,
        "description": "",
        "hashes": bytes(range(64)),
        "numbers": b"\0\xff" * 8,
        **changes,
    }


def add(name: str = "nb201", **changes: Any) -> bool:
    with unit_of_work() as session:
        return tables.add(session, name, **columns(**changes))[1]


def spec(sha256: str = SHA, **objective: Any) -> dict[str, Any]:
    error = {"name": "error", "key": "error", "table": "nb201", "column": "acc", "sha256": sha256, **objective}
    return {"objectives": [error, {"name": "params", "key": "params"}]}


def job(**objective: Any) -> UUID:
    with unit_of_work() as session:
        return jobs.create(session, spec(**objective)).id


def delete(name: str = "nb201") -> None:
    with unit_of_work() as session:
        tables.delete(session, name)


def test_what_was_added_is_there_with_its_rows_where_they_are_asked_for() -> None:
    assert add()
    with reading() as session:
        row = tables.get(session, "nb201")
        assert (row.sha256, row.columns, row.ends) == (SHA, columns()["columns"], {"acc": [10.5, 91.25]})
        assert abs((now(session) - row.created_at).total_seconds()) < 60
        assert "hashes" not in row.__dict__, "a list of tables reads no numbers"
        (whole,) = tables.read(session, spec())
        assert (whole.hashes, whole.numbers) == (columns()["hashes"], columns()["numbers"])


def test_the_same_again_changes_nothing_and_something_else_is_refused() -> None:
    assert add()
    assert not add()
    for other in ({"sha256": "b" * 64}, {"key": "cell"}, {"columns": []}, {"partial": False}, {"description": "x"}):
        with pytest.raises(TableExistsError, match=r"'nb201' is registered with another text .*delete it first"):
            add(**other)
    with reading() as session:
        assert tables.get(session, "nb201").key == "arch"


def test_two_at_once_make_one() -> None:
    together = Barrier(2)

    def run(sha: str) -> bool | None:
        together.wait()
        try:
            return add(sha256=sha * 64)
        except TableExistsError:
            return None

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, "ab"), key=str) == [None, True]


def test_a_page_ends_with_the_cursor_of_the_next() -> None:
    for name in ("c", "a", "b"):
        add(name)
    with reading() as session:
        first, cursor = tables.page(session, limit=2)
        rest, end = tables.page(session, limit=2, cursor=cursor)
        assert [row.name for row in (*first, *rest)] == ["a", "b", "c"] and end is None
        assert [row.name for row in tables.listed(session)] == ["a", "b", "c"]
        with pytest.raises(InvalidCursorError):
            tables.page(session, cursor=cursors.pack(1))


def test_there_may_be_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST", 1)
    add()
    assert not add(), "what is there may be sent again"
    with pytest.raises(TooManyTablesError, match="tables registered: 1, the most .*delete one"):
        add("more")


def test_a_table_stays_while_a_job_under_way_needs_it() -> None:
    add()
    first = job()
    with pytest.raises(TableInUseError, match=f"'nb201' is used by jobs under way: {first}; wait"):
        delete()
    for _ in range(6):
        job()
    with pytest.raises(TableInUseError, match="and 2 more"):
        delete()
    with unit_of_work() as session:
        for row, _ in [(row, None) for row in jobs.page(session, limit=50)[0]]:
            jobs.request_cancel(session, row.id)
    delete()
    with pytest.raises(NotFoundError, match="no registered table 'nb201'"):
        delete()
    with (
        unit_of_work() as session,
        pytest.raises(TableGoneError, match=r"is not there any more: it was deleted; regist"),
    ):
        tables.read(session, spec())


def test_a_job_is_not_made_or_retried_for_a_table_that_is_gone() -> None:
    with pytest.raises(TableGoneError, match="it was deleted"):
        job()
    add()
    made = job()
    with unit_of_work() as session:
        jobs.request_cancel(session, made)
    delete()
    add(sha256="b" * 64)
    with pytest.raises(TableGoneError, match=f"another one is registered under this name, with SHA-256 {'b' * 64}"):
        job()
    with unit_of_work() as session, pytest.raises(TableGoneError):
        jobs.reopen(session, made, "queued", "retried", 0.0)
    assert job(sha256="b" * 64)


def test_a_users_own_objective_may_have_a_setting_of_that_name() -> None:
    assert tables.wanted({"objectives": [{"name": "carbon", "table": "x"}, {"name": "error"}]}) == {}
    assert job(name="carbon")
