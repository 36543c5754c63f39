"""Weight masks and inherited weights of candidates: stored with them, used by all that is done to them, gone with
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import select

from nas_core import inherited
from nas_core.architecture import Architecture
from nas_core.exports import Model
from nas_core.exports.safetensors_file import Safetensors
from nas_core.masks import Masks
from nas_core.network import Network
from skyline.schemas import JobSpec
from store import artefacts, candidates, events, exports, jobs, loose, tasks
from store.errors import BroughtGoneError, JobInUseError
from store.models import Artefact, Candidate, LooseFile, Task
from store.session import reading, unit_of_work
from store.settings import settings
from tests.worker import sieve
from tests.worker.here import attempts_here
from tests.worker.sieve import SPEC
from worker import files, run
from worker.catalog import publication
from worker.control import DONE, GAVE_UP

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(environment: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from attempts_here(environment, monkeypatch, sieve.write(environment))


@pytest.fixture
def folder_on_each(environment_on_each: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from attempts_here(environment_on_each, monkeypatch, sieve.write(environment_on_each))


def posted(**changes: Any) -> UUID:
    stored = JobSpec.model_validate({**SPEC, **changes}).model_dump(mode="json")
    with unit_of_work() as session:
        return jobs.create(session, stored).id


def attempted(job_id: UUID, kind: str, ends: int = DONE, over: bool = True) -> None:
    """One attempt of the job's task of a kind; whatever held it before is given up for dead. Unless ``over``, it dies
    before it can say how it ended.
    """
    with unit_of_work() as session:
        task_id = session.scalars(select(Task.id).where(Task.job_id == job_id, Task.kind == kind)).one()
        claimed = tasks.claim(session, task_id, "w", "cpu", 1, -1, 9)
    assert claimed is not None
    assert run.run(task_id, claimed.fence) == ends
    if over:
        how = "done" if ends == DONE else "failed"
        with unit_of_work() as session:
            assert tasks.end(session, task_id, claimed.fence, status=how, end=how)


def found(job_id: UUID) -> list[tuple[Candidate, dict[str, Artefact]]]:
    """Candidates of a job with their files, in order."""
    with reading() as session:
        rows = list(session.scalars(select(Candidate).where(Candidate.job_id == job_id).order_by(Candidate.number)))
        stored = candidates.artefacts_of(session, [row.id for row in rows])
        return [(row, {file.format: file for file in stored[row.id]}) for row in rows]


def content(file: Artefact, scratch: Path) -> bytes:
    return artefacts.fetch(file.path, file.sha256, scratch).read_bytes()


def paths(model: type[Any]) -> list[str]:
    with reading() as session:
        return list(session.scalars(select(model.path)))


def on_disk(folder: Path, job_id: UUID) -> list[str]:
    return sorted(path.name for path in (folder / "artefacts" / str(job_id)).glob("*"))


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_what_a_candidate_brings_is_stored_with_it(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    if place == "s3":
        request.getfixturevalue("bucket")
    job_id = posted()
    attempted(job_id, "search")
    rows = found(job_id)
    assert len(rows) == 3 and paths(LooseFile) == []
    for row, stored in rows:
        architecture = Architecture.from_json(row.architecture)
        assert set(stored) == {"masks", "inherited"} and row.status == "evaluated"
        assert stored["masks"].sha256 == architecture.genotype.masks, "content is the address"
        Masks.from_bytes(content(stored["masks"], tmp_path)).check(architecture)
        assert "classifier.linear.weight" in inherited.from_bytes(content(stored["inherited"], tmp_path))
    with reading() as session:
        values = candidates.values(session, [rows[0][0].id], "search")[rows[0][0].id]
    masks = Masks.from_bytes(content(rows[0][1]["masks"], tmp_path))
    assert values["params"]["value"] - values["params"]["nonzero"] == masks.removed > 0


def test_a_search_that_is_killed_and_resumed_neither_loses_nor_doubles(
    folder_on_each: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the files of the second candidate were stored, and before their rows."""
    whole, job_id = posted(), posted()
    attempted(whole, "search")
    with monkeypatch.context() as patch:
        real, calls = candidates.add_artefact, []

        def killed(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return real(*arguments)

        patch.setattr(files.candidates, "add_artefact", killed)
        with pytest.raises(KeyboardInterrupt):
            attempted(job_id, "search")
    rows = found(job_id)
    assert [set(stored) for _, stored in rows] == [{"masks", "inherited"}], "the second is not there, nor a half of it"
    assert len(paths(LooseFile)) == 2
    for over in (False, True):
        attempted(job_id, "search", over=over)
    assert [set(stored) for _, stored in found(job_id)] == [{"masks", "inherited"}] * 3
    for (one, here), (other, there) in zip(found(job_id), found(whole), strict=True):
        assert (one.hash, here["masks"].sha256) == (other.hash, there["masks"].sha256)
        assert here["inherited"].sha256 == there["inherited"].sha256
    with unit_of_work() as session:
        session.query(LooseFile).update({"due_at": rows[0][0].created_at})
    assert loose.sweep() == 2
    assert len(on_disk(folder_on_each, job_id)) == 6


def test_a_candidate_is_verified_exported_and_deleted_with_its_masks(folder: Path, tmp_path: Path) -> None:
    job_id = posted()
    for kind in ("search", "verify", "conclude"):
        attempted(job_id, kind)
    ((row, stored),) = [(row, stored) for row, stored in found(job_id) if row.status == "verified"]
    masks = Masks.from_bytes(content(stored["masks"], tmp_path))
    weights = artefacts.fetch(stored["safetensors"].path, stored["safetensors"].sha256, tmp_path)
    tensors = load_file(weights)
    assert masks.leaks(tensors) == [] and row.test is not None
    names = inherited.from_bytes(content(stored["inherited"], tmp_path))
    assert set(tensors) == set(names), "plain names, plain kernels"
    with reading() as session:
        values = candidates.values(session, [row.id], "final")[row.id]
    physical = sum(
        tensor.numel() for name, tensor in tensors.items() if "running_" not in name and "num_batches" not in name
    )
    assert (values["params"]["value"], values["params"]["nonzero"]) == (physical, physical - masks.removed)
    assert Model.load(weights).facts["parameters"] == {"all": physical, "nonzero": physical - masks.removed}
    with unit_of_work() as session:
        exports.order(session, candidates.get(session, row.id), "python")
    attempted(job_id, "export.python")
    exported = {each.id: stored for each, stored in found(job_id)}[row.id]
    there: dict[str, Any] = {}
    exec(content(exported["python"], tmp_path).decode(), there)
    assert masks.leaks(there["load"]().state_dict()) == []
    assert there["PARAMETERS"] == {"all": physical, "nonzero": physical - masks.removed}
    with unit_of_work() as session:
        gone = jobs.delete(session, job_id)
    loose.discard(gone)
    assert on_disk(folder, job_id) == [] and paths(Artefact) == paths(LooseFile) == []


def test_weights_that_break_their_masks_are_not_exported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = posted()
    for kind in ("search", "verify"):
        attempted(job_id, kind)
    ((row, stored),) = [(row, stored) for row, stored in found(job_id) if "safetensors" in stored]
    architecture = Architecture.from_json(row.architecture)
    Safetensors().write(Model(architecture, Network(architecture).state_dict(), (0.5,), (0.2,)), tmp_path / "full")
    artefacts.files().put(stored["safetensors"].path, tmp_path / "full")
    with unit_of_work() as session:
        exports.order(session, candidates.get(session, row.id), "python")
        digest = hashlib.sha256((tmp_path / "full").read_bytes()).hexdigest()
        session.get_one(Artefact, stored["safetensors"].id).sha256 = digest
    attempted(job_id, "export.python", GAVE_UP)
    assert "are not zero; verify the candidate again" in caplog.text
    assert "python" not in {each.id: stored for each, stored in found(job_id)}[row.id]


def test_a_verification_without_its_masks_fails_and_says_so(folder: Path) -> None:
    job_id = posted()
    attempted(job_id, "search")
    with unit_of_work() as session:
        session.query(Artefact).filter_by(job_id=job_id, format="masks").delete()
    attempted(job_id, "verify", GAVE_UP)
    (failed,) = [row for row, _ in found(job_id) if row.status == "failed"]
    assert "the file of the weight masks" in (failed.failure or "") and "run the search again" in (failed.failure or "")


def test_seeds_take_their_masks_from_whoever_has_them(folder: Path, tmp_path: Path) -> None:
    source = posted()
    attempted(source, "search")
    row, stored = found(source)[0]
    seed = row.architecture["genotype"]
    given = {"algorithm": {"name": "given", "evaluate": None}, "seed_genotypes": [seed], "budget": {"evaluations": 1}}
    job_id = posted(**given)
    with unit_of_work() as session:
        jobs.finish(session, source, "failed", "for the test")
    with unit_of_work() as session, pytest.raises(JobInUseError, match=str(job_id)):
        jobs.delete(session, source)
    attempted(job_id, "search")
    with unit_of_work() as session:
        jobs.delete(session, source)
    assert loose.sweep() == 6
    ((own, kept),) = found(job_id)
    assert own.architecture["genotype"] == seed and kept["masks"].sha256 == stored["masks"].sha256
    attempted(job_id, "verify")
    ((own, kept),) = found(job_id)
    masks = Masks.from_bytes(content(kept["masks"], tmp_path))
    assert masks.leaks(load_file(artefacts.fetch(kept["safetensors"].path, kept["safetensors"].sha256, tmp_path))) == []
    with pytest.raises(BroughtGoneError, match=f"no candidate here has the weight masks with SHA-256 {'0' * 64}"):
        posted(**{**given, "seed_genotypes": [{**seed, "masks": "0" * 64}]})


def test_masks_do_not_go_to_other_widths(folder: Path) -> None:
    source = posted()
    attempted(source, "search")
    seed = found(source)[0][0].architecture["genotype"]
    given = {"algorithm": {"name": "given", "evaluate": None}, "seed_genotypes": [seed], "budget": {"evaluations": 1}}
    job_id = posted(**given, target={"channels": 4})
    attempted(job_id, "search", GAVE_UP)
    ((row, _),) = found(job_id)
    assert "weight masks stay with the widths that they were found at" in (row.failure or "")


# --- weights to begin with --------------------------------------------------------------------------------------------


def error_of(candidate_id: UUID) -> dict[str, Any]:
    with reading() as session:
        return candidates.values(session, [candidate_id], "final")[candidate_id]["error"]


def verified(job_id: UUID) -> tuple[Candidate, dict[str, Artefact]]:
    ((row, stored),) = [(row, stored) for row, stored in found(job_id) if row.status == "verified"]
    return row, stored


def test_a_verification_begins_where_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    """At a learning rate of next to nothing: the weights stay those that it began with."""
    still = {"top": 1, "epochs": 1, "lr": 1e-12}
    scratch, tuned = posted(verify=still), posted(verify={**still, "start": "inherited"})
    for job_id in (scratch, tuned):
        attempted(job_id, "search")
        attempted(job_id, "verify")
    for job_id, start in ((scratch, "scratch"), (tuned, "inherited")):
        row, stored = verified(job_id)
        assert error_of(row.id)["start"] == start
        masks = Masks.from_bytes(content(stored["masks"], tmp_path))
        weights = load_file(artefacts.fetch(stored["safetensors"].path, stored["safetensors"].sha256, tmp_path))
        before = inherited.from_bytes(content(stored["inherited"], tmp_path))
        assert masks.leaks(weights) == [] and masks.leaks(before), "masks count for what is inherited, too"
        name, kept = next(iter(masks.kept.items()))
        same = torch.allclose(weights[name][kept], before[name][kept], atol=1e-6)
        assert same == (start == "inherited")


def test_inherited_weights_go_along_to_other_images(folder: Path, tmp_path: Path) -> None:
    """As POST /v1/candidates/{id}/verify notes it: other channels and classes, the source deleted meanwhile."""
    source = posted()
    attempted(source, "search")
    row, stored = found(source)[0]
    verify = {"top": 1, "epochs": 1, "lr": 1e-12, "start": "inherited", "weights": stored["inherited"].sha256}
    job_id = posted(
        algorithm={"name": "given", "evaluate": None},
        seed_genotypes=[row.architecture["genotype"]],
        budget={"evaluations": 1},
        dataset={"name": "npz", "path": "birds.npz"},
        verify=verify,
    )
    (settings().data_root).mkdir(parents=True, exist_ok=True)
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 255, (60, 9, 9, 3), dtype=np.uint8)
    np.savez(settings().data_root / "birds.npz", x_train=images, y_train=labels)
    attempted(job_id, "search")
    with unit_of_work() as session:
        jobs.finish(session, source, "failed", "for the test")
    with unit_of_work() as session:
        jobs.delete(session, source)
    loose.sweep()
    attempted(job_id, "verify")
    row, kept = verified(job_id)
    assert kept["inherited"].sha256 == stored["inherited"].sha256 and error_of(row.id)["start"] == "inherited"
    with reading() as session:
        told = [event.data["text"] for event in events.after(session, job_id, 0) if event.type == "warning"]
    assert any("classifier.linear.weight, classifier.linear.bias do not fit these images" in text for text in told), (
        told
    )
    with pytest.raises(BroughtGoneError, match="verify.weights names; train from scratch"):
        posted(verify={**verify, "weights": "0" * 64})


def test_a_candidate_without_weights_cannot_begin_with_them(folder: Path) -> None:
    job_id = posted(verify={"top": 1, "epochs": 1, "start": "inherited"})
    attempted(job_id, "search")
    with unit_of_work() as session:
        session.query(Artefact).filter_by(job_id=job_id, format="inherited").delete()
    attempted(job_id, "verify", GAVE_UP)
    (failed,) = [row for row, _ in found(job_id) if row.status == "failed"]
    assert "this candidate brought no weights from its search" in (failed.failure or "")


def test_the_catalog_says_who_brings_weights(folder: Path) -> None:
    facts = {entry.name: entry.facts for entry in publication().entries if entry.kind == "algorithm"}
    assert facts["sieve"]["brings_weights"] is True and facts["random"]["brings_weights"] is False
