"""All candidates of a job as CSV, as spreadsheets and data frames read it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api import table
from nas_core.architecture import genotype_from_json
from store import candidates
from store.candidates import NewCandidate
from store.session import unit_of_work
from tests.api import results
from tests.api.problems import paths, problem

COLUMNS = [
    *("number", "id", "hash", "status", "stage", "target", "cells", "channels", "stem"),
    *("error", "error.kind", "error.search", "params", "params.kind", "params.search"),
    *("latency_ms", "latency_ms.kind", "latency_ms.search"),
    *("test_error", "test_sd", "nonzero", "failure", "genotype"),
]


def read(client: httpx.Client, job_id: UUID, **query: Any) -> list[dict[str, str]]:
    response = client.get(f"/v1/jobs/{job_id}/candidates.csv", params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    return list(csv.DictReader(io.StringIO(response.content.decode(), newline=""), strict=True))


def test_a_row_says_what_is_known_of_a_candidate(shared: httpx.Client) -> None:
    job_id = results.job()
    ids = results.record(job_id, 3)
    results.verify(ids[:1])
    with unit_of_work() as session:
        candidates.set_test(session, ids[0], {"error": 0.06, "sd": 0.01, "n": 360})
        candidates.fail(session, ids[2], 'out of memory, "at" epoch 3\nTraceback')
    rows = read(shared, job_id)
    assert [list(row) for row in rows] == [COLUMNS] * 3
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    verified, evaluated, failed = rows
    shown = shared.get(f"/v1/candidates/{ids[0]}").json()
    assert (verified["id"], verified["hash"], verified["status"]) == (str(ids[0]), shown["hash"], "verified")
    assert [verified[name] for name in ("stage", "target", "cells", "channels", "stem")] == [
        "final",
        "0",
        "3",
        "4",
        "cifar",
    ]
    assert [verified[name] for name in COLUMNS[9:18]] == [
        *("0.05", "trained", "0.1", "1000", "exact", "1000", "8.0", "measured", "10.0"),
    ]
    assert (verified["test_error"], verified["test_sd"], verified["failure"]) == ("0.06", "0.01", "")
    assert json.loads(verified["genotype"]) == shown["architecture"]["genotype"]
    genotype_from_json(verified["genotype"])
    assert " " not in verified["genotype"]
    assert (evaluated["stage"], evaluated["error.kind"], evaluated["test_error"]) == ("search", "supernet", "")
    assert float(evaluated["error"]) == 0.1 + 1 / 100, "all its digits"
    assert (failed["status"], failed["failure"]) == ("failed", 'out of memory, "at" epoch 3\nTraceback')


def test_it_comes_in_pieces_with_the_order_and_filter_of_the_list(
    shared: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = results.job()
    ids = results.record(job_id, 5)
    results.verify(ids[:2])
    sizes = []
    monkeypatch.setattr(table, "CHUNK", 2)
    for query, order in (
        ({}, "12345"),
        ({"descending": True}, "54321"),
        ({"sort": "params"}, "54321"),
        ({"sort": "latency_ms", "stage": "final"}, "21345"),
        ({"status": "verified"}, "12"),
        ({"status": "failed"}, ""),
    ):
        assert "".join(row["number"] for row in read(shared, job_id, **query)) == order
    with shared.stream("GET", f"/v1/jobs/{job_id}/candidates.csv") as response:
        assert "content-length" not in response.headers
        assert response.headers["content-disposition"] == f'attachment; filename="candidates-{str(job_id)[:8]}.csv"'
        sizes = [len(piece) for piece in response.iter_raw()]
    assert len(sizes) > 1


def test_a_job_without_candidates_has_a_header(shared: httpx.Client) -> None:
    response = shared.get(f"/v1/jobs/{results.job()}/candidates.csv")
    assert response.text == ",".join(COLUMNS) + "\r\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        (" \t=1+1", "' \t=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("loss = 1", "loss = 1"),
        ("", ""),
    ],
)
def test_what_looks_like_a_formula_is_text(shared: httpx.Client, text: str, shown: str) -> None:
    job_id = results.job(objectives=[{"name": "error", "key": text or "error"}], reference_point={})
    with unit_of_work() as session:
        candidates.record(session, job_id, "search", [NewCandidate("h", {}, 0, {}, text or None)])
    (row,) = read(shared, job_id)
    assert row["failure"] == shown
    assert list(row)[9] == (shown or "error")


def test_numbers_stay_numbers(shared: httpx.Client) -> None:
    job_id = results.job()
    values = {
        "error": results.value(-0.5, "", "trained"),
        "params": results.value(12345678901.0, "", "exact"),
        "latency_ms": results.value(1e-7, "ms", "measured"),
    }
    with unit_of_work() as session:
        candidates.record(session, job_id, "search", [NewCandidate("h", {}, 0, values)])
    (row,) = read(shared, job_id)
    assert (row["error"], row["params"], row["latency_ms"]) == ("-0.5", "12345678901", "1e-07")


@pytest.mark.parametrize(
    ("query", "path"),
    [({"sort": "beauty"}, "/query/sort"), ({"limit": 3}, "/query/limit"), ({"status": "x"}, "/query/status")],
)
def test_bad_queries(shared: httpx.Client, query: dict[str, Any], path: str) -> None:
    assert paths(problem(shared.get(f"/v1/jobs/{results.job()}/candidates.csv", params=query), 422)) == [path]


def test_no_such_job(shared: httpx.Client) -> None:
    problem(shared.get(f"/v1/jobs/{uuid4()}/candidates.csv"), 404)
