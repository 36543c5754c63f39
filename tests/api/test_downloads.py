"""Files of networks: from a store of objects as from a folder, in parts, once, and when there is none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, update

from store import artefacts, candidates, jobs
from store.artefacts import PIECE_BYTES
from store.models import Artefact
from store.session import reading, unit_of_work
from store.settings import settings
from tests import s3
from tests.api import results
from tests.api.problems import problem

CONTENT = os.urandom(PIECE_BYTES + 1000)
TAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


@dataclass
class Stored:
    """A verified candidate with its weights, and a way to ask for them."""

    client: httpx.Client
    job_id: UUID
    candidate_id: UUID
    path: str
    folder: Path

    def get(self, format: str = "safetensors", **headers: str) -> httpx.Response:
        query = {"format": format}
        return self.client.get(f"/v1/candidates/{self.candidate_id}/model", params=query, headers=headers)

    def add(self, format: str, content: bytes) -> str:
        path = artefacts.path_of(self.job_id, self.candidate_id, format, 1, f".{format}")
        local = self.folder / "local"
        local.write_bytes(content)
        artefacts.files().put(path, local)
        digest = hashlib.sha256(content).hexdigest()
        with unit_of_work() as session:
            candidates.add_artefact(session, self.candidate_id, self.job_id, format, path, digest, len(content))
        return path


Store = Callable[[], Stored]


@pytest.fixture
def store(client: httpx.Client, folder: Path) -> Store:
    def made() -> Stored:
        job_id, (candidate_id,) = results.finished(1)
        stored = Stored(client, job_id, candidate_id, "", folder)
        stored.path = stored.add("safetensors", CONTENT)
        return stored

    return made


@pytest.fixture(params=["folder", "s3"])
def stored(request: pytest.FixtureRequest, store: Store) -> Stored:
    """In each kind of place in turn."""
    if request.param == "s3":
        request.getfixturevalue("bucket")
    return store()


def test_a_whole_file(stored: Stored) -> None:
    response = stored.get()
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["etag"] == TAG
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].endswith('.safetensors"')


def test_what_the_client_has_is_not_sent(stored: Stored) -> None:
    response = stored.get(**{"If-None-Match": f'"other", W/{TAG}'})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", TAG)
    assert stored.get(**{"If-None-Match": '"other"'}).content == CONTENT


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=10-19", 10, 20),
        ("bytes=0-0", 0, 1),
        (f"bytes={PIECE_BYTES - 3}-{PIECE_BYTES + 3}", PIECE_BYTES - 3, PIECE_BYTES + 4),
        (f"bytes={PIECE_BYTES}-", PIECE_BYTES, len(CONTENT)),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
        ("bytes=5-99999999999", 5, len(CONTENT)),
        ("bytes=-99999999999", 0, len(CONTENT)),
    ],
)
def test_a_part(stored: Stored, asked: str, start: int, stop: int) -> None:
    response = stored.get(Range=asked)
    assert response.status_code == 206
    assert response.content == CONTENT[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(stop - start)
    assert response.headers["etag"] == TAG


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=99999999999-99999999999"])
def test_a_part_that_lies_outside(stored: Stored, asked: str) -> None:
    response = stored.get(Range=asked)
    assert response.status_code == 416
    assert response.headers["content-range"].endswith(f"*/{len(CONTENT)}")


def test_a_part_of_another_file_is_the_whole_one(stored: Stored) -> None:
    assert stored.get(**{"Range": "bytes=1-2", "If-Range": TAG}).status_code == 206
    response = stored.get(**{"Range": "bytes=1-2", "If-Range": '"other"'})
    assert (response.status_code, response.content) == (200, CONTENT)


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=-", "bytes=9-5", "lines=1-2", "bytes=1-2,5-6", f"bytes={'9' * 5000}-", "bytes=²-3"]
)
def test_a_range_that_is_none_is_ignored(bucket: str, store: Store, asked: str) -> None:
    response = store().client.get(
        f"/v1/candidates/{store().candidate_id}/model",
        params={"format": "safetensors"},
        headers=[(b"Range", asked.encode())],
    )
    assert (response.status_code, response.content) == (200, CONTENT)


def test_outside_of_an_object_says_what_came(bucket: str, store: Store) -> None:
    found = problem(store().get(Range="bytes=-0"), 416)
    assert found.detail == f"range 'bytes=-0' lies outside the file, which has {len(CONTENT)} bytes"


def test_a_missing_file_is_made_again_and_missing_weights_are_told(stored: Stored) -> None:
    onnx = stored.add("onnx", b"onnx")
    assert stored.get("onnx").content == b"onnx"
    artefacts.files().delete([onnx])
    assert stored.get("onnx").status_code == 202
    (stored.folder / "local").write_bytes(CONTENT[:-1])
    artefacts.files().put(stored.path, stored.folder / "local")
    assert f"is damaged ({len(CONTENT) - 1} of {len(CONTENT)} bytes)" in problem(stored.get(), 404).detail
    artefacts.files().delete([stored.path])
    found = problem(stored.get(), 404)
    assert "is not where the artefacts of this server lie any more" in found.detail
    assert str(settings().data_dir) not in found.detail
    assert problem(stored.get("pt2"), 404).title == "File missing"


def test_a_deleted_job_takes_its_files_along(stored: Stored) -> None:
    assert stored.client.delete(f"/v1/jobs/{stored.job_id}").status_code == 204
    assert artefacts.files().size(stored.path) is None


def test_a_store_that_is_away_is_503_and_a_deletion_is_made_good_later(
    bucket: str, store: Store, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store()
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    response = stored.get()
    found = problem(response, 503)
    assert found.title == "Artefact store unavailable"
    assert "the artefact store cannot be used: did not answer (" in found.detail and "ask again" in found.detail
    assert int(response.headers["retry-after"]) > 0
    assert not {s3.SECRET, s3.KEY, "127.0.0.1:1", "skyline-"} & {word for word in found.detail.split() if word}
    assert s3.SECRET not in response.text and bucket not in response.text
    assert stored.client.delete(f"/v1/jobs/{stored.job_id}").status_code == 204
    monkeypatch.setenv("AWS_ENDPOINT", s3_server.url)
    assert artefacts.files().size(stored.path) == len(CONTENT)


def test_an_address_that_is_none_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store()
    monkeypatch.setenv("SKYLINE_ARTEFACT_URL", f"s3://{s3.KEY}:{s3.SECRET}@bucket")
    response = stored.get()
    assert "SKYLINE_ARTEFACT_URL is no address" in problem(response, 503).detail
    assert s3.SECRET not in response.text


def test_the_use_of_an_export_is_noted_for_retention(stored: Stored) -> None:
    stored.add("onnx", b"onnx")

    def noted(format: str) -> datetime | None:
        with reading() as session:
            return session.scalars(select(Artefact.last_used_at).where(Artefact.format == format)).one()

    stored.get(), stored.get("onnx")
    first = noted("onnx")
    assert first is not None and noted("safetensors") is None
    assert stored.get("onnx").content == b"onnx" and noted("onnx") == first
    with unit_of_work() as session:
        long_ago = datetime.now(UTC) - timedelta(days=29)
        session.execute(update(Artefact).where(Artefact.format == "onnx").values(last_used_at=long_ago))
    assert stored.get("onnx", **{"If-None-Match": f'"{hashlib.sha256(b"onnx").hexdigest()}"'}).status_code == 304
    again = noted("onnx")
    assert again is not None and again >= first, "who asks whether it has changed uses it"


def test_over_the_quota_new_jobs_and_exports_are_refused(
    stored: Stored, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "1")
    for response in (stored.client.post("/v1/jobs", json=spec), stored.get("onnx")):
        found = problem(response, 507)
        assert found.title == "Quota exceeded"
        assert "artefacts take 4.0 MB, and 1 MB is the limit" in found.detail and "skyline delete JOB" in found.detail
    assert stored.get().content == CONTENT, "what is there can be had"
    with unit_of_work() as session:
        count = len(jobs.page(session)[0])
    assert count == 1, "nothing was made"
    assert stored.client.delete(f"/v1/jobs/{stored.job_id}").status_code == 204
    assert stored.client.post("/v1/jobs", json=spec).status_code == 201


def test_what_was_posted_before_is_not_refused(
    stored: Stored, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"Idempotency-Key": "once"}
    first = stored.client.post("/v1/jobs", json=spec, headers=named)
    assert first.status_code == 201
    monkeypatch.setenv("SKYLINE_ARTEFACT_QUOTA_MB", "1")
    again = stored.client.post("/v1/jobs", json=spec, headers=named)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
