"""Cursors, numbers and texts that nobody was given: each is taken or refused, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store import cursors
from tests.api.populated import Service
from tests.api.problems import problem
from tests.fuzz import fuzzed

pytestmark = pytest.mark.slow

NUMBERS = st.integers() | st.sampled_from([0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**300, -1, True])
TIMES = st.datetimes().map(lambda at: at.isoformat()) | st.sampled_from(
    ["2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00+00:00"]
)
NOBODY = "00000000-0000-4000-8000-000000000000"
IDS = st.uuids().map(str) | st.just("{00000000-0000-4000-8000-000000000000}")
PARTS = NUMBERS | TIMES | IDS | st.none() | st.floats() | st.text(max_size=5) | st.just([1]) | st.just({})
POSITIONS = st.lists(PARTS, max_size=3) | st.tuples(TIMES, IDS) | st.tuples(PARTS, IDS) | st.tuples(NUMBERS, NUMBERS)
FORGED = POSITIONS.map(lambda position: cursors.pack(*position)) | st.text(max_size=20)
TEXTS = st.text(max_size=30) | st.sampled_from(["\0", "a\0=b", "=", "a=", "=\0", "%", "\N{REPLACEMENT CHARACTER}", "'"])


@pytest.fixture(scope="module")
def asking(service: Service, server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=30, trust_env=False, headers=service.headers) as client:
        yield client


def taken_or_refused(asking: httpx.Client, path: str, **query: Any) -> None:
    response = asking.get(path, params=query)
    if response.status_code == 404:
        assert "the newest is 1" in problem(response, 404).detail
    elif response.status_code != 200:
        assert problem(response, 422).errors or "is not one of this list" in response.text


@fuzzed(8)
@given(
    cursor=FORGED,
    query=st.sampled_from(
        [
            ("", {}),
            ("/{}/candidates", {}),
            ("/{}/candidates", {"descending": True}),
            ("/{}/candidates", {"sort": "error"}),
            ("/{}/candidates", {"sort": "error", "descending": True, "stage": "final"}),
            ("/{}/front", {}),
            ("/{}/front", {"kind": "search"}),
        ]
    ),
)
@example(cursor=cursors.pack(2**63), query=("/{}/candidates", {}))
@example(cursor=cursors.pack(10**300, NOBODY), query=("/{}/candidates", {"sort": "error"}))
@example(cursor=cursors.pack(None, 2**31), query=("/{}/candidates", {"sort": "error"}))
@example(cursor=cursors.pack("2026-01-01T00:00:00", NOBODY), query=("", {}))
@example(cursor=cursors.pack("0001-01-01T00:00:00+23:59", NOBODY), query=("", {}))
@example(cursor=cursors.pack(1, 2**62), query=("/{}/front", {}))
def test_any_cursor(asking: httpx.Client, service: Service, cursor: str, query: tuple[str, dict[str, Any]]) -> None:
    path, more = query
    taken_or_refused(asking, f"/v1/jobs{path}".format(service.jobs[0]), cursor=cursor, **more)


@pytest.mark.parametrize("path", ["events", "log"])
@pytest.mark.parametrize("after", [0, 2**31 - 1, 2**31, 2**53])
def test_numbers_that_no_row_has(asking: httpx.Client, service: Service, path: str, after: int) -> None:
    found = asking.get(f"/v1/jobs/{service.jobs[1]}/{path}", params={"after": after}).json()
    assert found["next"] >= after
    assert bool(found["items"]) == (after == 0)


@fuzzed(8)
@given(name=st.none() | TEXTS, label=st.none() | TEXTS)
@example(name="\0", label=None)
@example(name=None, label="team=\0")
def test_any_text_is_looked_for(asking: httpx.Client, name: str | None, label: str | None) -> None:
    asked = {key: text for key, text in (("name", name), ("label", label)) if text is not None}
    taken_or_refused(asking, "/v1/jobs", **asked)


@fuzzed(4)
@given(name=TEXTS, value=TEXTS | st.floats().map(str) | st.sampled_from(["1e999", "1_0", "0x1", "-0", "1e-400"]))
def test_any_bound(asking: httpx.Client, service: Service, name: str, value: str) -> None:
    for key in (name, f"max.{name}", "max.params", "min.error"):
        taken_or_refused(asking, f"/v1/jobs/{service.jobs[0]}/front", **{key: value})


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=2000-", 206, slice(2000, None)),
        ("bytes=-48", 206, slice(2000, None)),
        ("bytes=0-99999999999", 206, slice(None)),
        ("bytes=-5000", 206, slice(None)),
        ("bytes=9-0", 200, slice(None)),
        ("bytes=0-1,5-9", 200, slice(None)),
        ("lines=0-9", 200, slice(None)),
        ("bytes", 200, slice(None)),
        ("bytes=", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("bytes=a-b", 200, slice(None)),
        ("bytes=2048-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_ranges_of_a_file(asking: httpx.Client, service: Service, asked: str, status: int, part: slice | None) -> None:
    path = f"/v1/candidates/{service.candidates[0]}/model"
    response = asking.get(path, params={"format": "safetensors"}, headers={"Range": asked})
    if part is None:
        assert "has 2048 bytes" in problem(response, 416).detail
        assert response.headers["content-range"] == "bytes */2048"
        return
    assert (response.status_code, response.content) == (status, bytes(2048)[part])


def test_a_range_of_another_version_is_the_whole_file(asking: httpx.Client, service: Service) -> None:
    path, query = f"/v1/candidates/{service.candidates[0]}/model", {"format": "safetensors"}
    own = {"Range": "bytes=0-9", "If-Range": f'"{"0" * 64}"'}
    assert asking.get(path, params=query, headers=own).status_code == 206
    assert asking.get(path, params=query, headers={**own, "If-Range": '"other"'}).status_code == 200
    unsatisfiable = {"Range": "bytes=9999-", "If-None-Match": f'"{"0" * 64}"'}
    assert asking.get(path, params=query, headers=unsatisfiable).status_code == 304


def test_ids_that_are_written_otherwise_are_the_same(asking: httpx.Client, service: Service) -> None:
    known: UUID = service.jobs[0]
    for written in (str(known).upper(), known.hex, f"{{{known}}}", known.urn):
        assert asking.get(f"/v1/jobs/{written}").json()["id"] == str(known)
