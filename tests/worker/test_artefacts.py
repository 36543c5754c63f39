"""Artefacts in a store of objects, through the real service: verified, tested, exported, pulled, deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from api.embedded import Embedded
from skyline import Client
from store import artefacts, loose
from store.models import Artefact, LooseFile
from store.session import dispose, reading
from tests import s3

pytestmark = pytest.mark.e2e

SECONDS = 150.0
JOB: dict[str, Any] = {
    "space": {"name": "darts", "cells": 3, "nodes": 2, "channels": 4},
    "dataset": {"name": "digits", "fraction": 0.3},
    "objectives": ["error", "params"],
    "algorithm": {"name": "random", "evaluate": {"epochs": 1, "subset": 64}},
    "budget": {"evaluations": 2},
    "verify": {"top": 1, "epochs": 1},
}


@pytest.fixture(scope="module")
def service(short_folder: Path, s3_server: s3.Server) -> Iterator[Embedded]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.bucket().items():
            patch.setenv(name, value)
        patch.setenv("SKYLINE_HEARTBEAT_SECONDS", "0.5")
        patch.setenv("SKYLINE_RELAY_SECONDS", "0.5")
        with Embedded(short_folder / "objects", port=0, workers=1, threads=1) as running:
            patch.setenv("SKYLINE_DATA_DIR", str(running.data_dir))
            yield running
        dispose()


@pytest.fixture(scope="module")
def client(service: Embedded) -> Iterator[Client]:
    with Client(service.url) as made:
        yield made


@pytest.fixture(scope="module")
def candidate(client: Client) -> UUID:
    """A verified one, of a job that has ended."""
    job = client.wait(client.submit(JOB).id, timeout=SECONDS)
    assert job.status == "succeeded", job.reason
    return client.front(job.id, kind="final").members[0].id


def rows() -> dict[str, Artefact]:
    with reading() as session:
        return {row.format: row for row in session.scalars(select(Artefact))}


def test_from_verification_to_export(service: Embedded, client: Client, candidate: UUID, tmp_path: Path) -> None:
    shown = client.candidate(candidate)
    assert shown.test is not None, "the conclusion has fetched the weights"
    for format in ("safetensors", "onnx"):
        content = client.pull(candidate, format, tmp_path / format).read_bytes()
        row = rows()[format]
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert artefacts.files().size(row.path) == row.bytes == len(content)
    part = httpx.get(
        f"{service.url}/v1/candidates/{candidate}/model", params={"format": "onnx"}, headers={"Range": "bytes=0-9"}
    )
    assert (part.status_code, part.content) == (206, content[:10])
    assert not list((service.data_dir / "artefacts").rglob("*")), "nothing in the folder"
    assert not list((service.data_dir / "checkpoints").glob("*.scratch")), "nor on the way"
    with reading() as session:
        assert session.scalars(select(LooseFile)).all() == []
    said = "".join(path.read_text(errors="replace") for path in (service.data_dir / "logs").glob("*.log"))
    assert s3.SECRET not in said and s3.KEY not in said


def test_weights_that_were_changed_are_not_exported(
    service: Embedded, client: Client, candidate: UUID, tmp_path: Path
) -> None:
    row = rows()["safetensors"]
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(client.model(candidate, "safetensors"))
    bad.write_bytes(bytes(row.bytes))
    artefacts.files().put(row.path, bad)
    with pytest.raises(Exception, match=rf"{row.path} is damaged: it should have SHA-256 {row.sha256}"):
        client.model(candidate, "pt2")
    artefacts.files().put(row.path, good)


def test_a_deleted_job_leaves_nothing(client: Client, candidate: UUID) -> None:
    paths = [row.path for row in rows().values()]
    client.delete(client.candidate(candidate).job)
    assert [artefacts.files().size(path) for path in paths] == [None] * len(paths)
    assert loose.sweep() == 0
