"""What a search says becomes rows: candidates, values, the search front, events; a few times a second at most."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from nas_core import inherited
from nas_core.architecture import Architecture, Skeleton
from nas_core.events import Evaluated, Evaluation, Event, Progress
from nas_core.masks import Masks
from nas_core.pareto import hypervolume, knee
from nas_core.search import Axes
from store import candidates, events, fronts, jobs, tasks
from store.artefacts import INHERITED, MASKS
from store.candidates import NewCandidate
from store.session import reading, unit_of_work
from store.settings import settings
from worker.brought import Brought

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
FLUSH_COUNT = 50
DEAR = frozenset({"trained", "measured"})
"""Kinds of values that cost so much that they are written before the search goes on."""
SEARCH_SHARE = 0.6
"""Of a job's progress bar; verification has the rest."""


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate as the front sees it."""

    id: UUID
    target: int
    costs: tuple[float, ...]


class Archive:
    """Points of which none dominates another, in order of arrival; equal ones stay together.

    A new point is held against those that are here, never these against each other.
    """

    def __init__(self, axes: int) -> None:
        self.points: dict[UUID, Point] = {}
        self._costs = np.empty((0, axes))  # (points, axes)

    def add(self, point: Point) -> bool:
        """Whether it is here now; what it dominates has left, and what had its id before."""
        if point.id in self.points:
            self._keep(np.array([id != point.id for id in self.points]))
        new = np.array(point.costs)
        if not np.isfinite(new).all():
            return False
        as_good = np.all(self._costs <= new, axis=1)
        as_bad = np.all(self._costs >= new, axis=1)
        if np.any(as_good & ~as_bad):
            return False
        if np.any(as_bad & ~as_good):
            self._keep(as_good | ~as_bad)
        self.points[point.id] = point
        self._costs = np.vstack([self._costs, new])
        return True

    def _keep(self, mask: NDArray[np.bool_]) -> None:
        self.points = dict(compress(self.points.items(), mask))
        self._costs = self._costs[mask]


class FrontKeeper:
    """The non-dominated, feasible points of one job and kind.

    Search values compare only within one target skeleton, so each target has its own front there and the search front
    is their union; the final front is one.
    """

    def __init__(self, job_id: UUID, kind: fronts.Kind, axes: Axes, reference: Mapping[str, float]) -> None:
        self.job_id, self.kind, self.axes = job_id, kind, axes
        self.reference = axes.costs_of(reference)
        self._archives: dict[int, Archive] = {}

    @property
    def members(self) -> list[Point]:
        """By target, then in order of arrival."""
        return [point for _, archive in sorted(self._archives.items()) for point in archive.points.values()]

    def add(self, id: UUID, target: int, values: Mapping[str, float]) -> bool:
        """Whether the point entered; what breaks a bound or lacks a value never does."""
        if not set(self.axes.keys) <= set(values) or self.axes.violation(values) > 0:
            return False
        point = Point(id, target if self.kind == "search" else 0, tuple(self.axes.costs_of(values)))
        archive = self._archives.setdefault(point.target, Archive(len(self.reference)))
        return archive.add(point)

    def clear(self) -> None:
        """Forgets all points, to be built anew."""
        self._archives.clear()

    def write(self, session: Any) -> None:
        """Stores membership, hypervolume and knee; nothing happens where nothing changed."""
        members = self.members
        costs = np.array([point.costs for point in members]).reshape(len(members), len(self.reference))
        middle = knee(costs)
        fronts.replace(
            session,
            self.job_id,
            self.kind,
            [point.id for point in members],
            hypervolume(costs, self.reference),
            None if middle is None else members[middle].id,
        )


def numbers(values: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The bare numbers of values as on the wire."""
    return {key: float(value["value"]) for key, value in values.items()}


def words(progress: Progress) -> str:
    """``search 12 of 48, loss 0.31``."""
    metrics = "".join(f", {name} {value:.4g}" for name, value in progress.metrics.items())
    return f"{progress.phase} {progress.step} of {progress.total}{metrics}"


Recording = Callable[[Sequence[Brought]], AbstractContextManager[Session]]
"""The transaction in which candidates come to be, and files that they bring become theirs."""


class SearchRecorder:
    """Takes events of a search, under the fence of one attempt.

    ``recording``: how files are stored that candidates bring; ``masks``: weight masks of seeds, by digest, and
    ``weights``, a file of inherited ones, which candidates bring that come without.
    """

    def __init__(
        self,
        task_id: UUID,
        fence: int,
        job_id: UUID,
        axes: Axes,
        targets: Sequence[Skeleton],
        reference: Mapping[str, float],
        recording: Recording | None = None,
        masks: Mapping[str, Masks] | None = None,
        weights: bytes | None = None,
    ) -> None:
        self.task_id, self.fence, self.job_id = task_id, fence, job_id
        self.masks, self.weights = dict(masks or {}), weights
        self._recording = recording or self._without_files
        self._brought: dict[str, dict[str, bytes]] = {}
        """Contents of files by format, by the hash of the candidate that brings them."""
        self.targets = tuple(targets)
        self.front = FrontKeeper(job_id, "search", axes, reference)
        self._pending: list[NewCandidate] = []
        self._revised: list[NewCandidate] = []
        self._progress: dict[str, Progress] = {}
        """The last of each phase that is not written yet."""
        self._best: float | None = None
        self._flushed = time.monotonic()

    def restore(self, rows: Sequence[candidates.Row]) -> None:
        """Takes up what an earlier attempt recorded."""
        for row in rows:
            if row.values and row.status != "failed":
                self.front.add(row.candidate_id, row.target, numbers(row.values))

    def take(self, event: Event) -> None:
        """Remembers, and writes when it is time."""
        dear = False
        if isinstance(event, Evaluated):
            made = self._candidates(event.evaluation)
            (self._revised if event.revised else self._pending).extend(made)
            self._bring(event, made)
            dear = any(value["kind"] in DEAR for candidate in made for value in candidate.values.values())
            dear = dear or bool(self._brought)
        elif isinstance(event, Progress):
            self._progress.pop(event.phase, None)
            self._progress[event.phase] = event
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        if dear or late or len(self._pending) + len(self._revised) >= FLUSH_COUNT:
            self.flush()

    def _bring(self, event: Evaluated, made: Sequence[NewCandidate]) -> None:
        """Remembers what comes with candidates: masks with that of each target, weights with that of the first."""
        masks = event.masks or self.masks.get(event.evaluation.genotype.masks or "")
        for item in made:
            if masks is not None and masks.digest == event.evaluation.genotype.masks:
                self._brought.setdefault(item.hash, {}).setdefault(MASKS, masks.to_bytes())
            weights = self.weights
            if event.weights is not None and item.target == 0:
                weights = inherited.to_bytes(event.weights)
            if weights is not None and item.failure is None:
                self._brought.setdefault(item.hash, {}).setdefault(INHERITED, weights)

    def _files(self) -> tuple[dict[str, UUID], list[Brought]]:
        """The ids that candidates are to have by hash, and what of theirs is not stored yet."""
        if not self._brought:
            return {}, []
        with reading(settings().outage_seconds) as session:
            ids = candidates.ids_of(session, self.job_id, list(self._brought))
            stored = candidates.artefacts_of(session, list(ids.values()))
        new = []
        for hash, contents in self._brought.items():
            candidate_id = ids.setdefault(hash, uuid4())
            there = {file.format for file in stored.get(candidate_id, [])}
            new += [Brought(candidate_id, name, content) for name, content in contents.items() if name not in there]
        return ids, new

    @contextmanager
    def _without_files(self, brought: Sequence[Brought]) -> Iterator[Session]:
        assert not brought, "who records candidates that bring something says how it is stored"
        with unit_of_work(settings().outage_seconds) as session:
            tasks.hold(session, self.task_id, self.fence)
            yield session

    def _candidates(self, evaluation: Evaluation) -> list[NewCandidate]:
        made = []
        for index, target in enumerate(self.targets):
            architecture = Architecture(evaluation.genotype, target)
            failure = evaluation.failure_at(index)
            values = evaluation.values[index] if failure is None else {}
            made.append(
                NewCandidate(
                    hash=architecture.hash,
                    architecture=architecture.to_json(),
                    target=index,
                    values={key: value.to_json() for key, value in values.items()},
                    failure=failure,
                    scored=set(self.front.axes.keys) <= set(values),
                )
            )
        return made

    def flush(self) -> None:
        """One transaction: fence, candidates, front, events. Raises LeaseLostError."""
        self._flushed = time.monotonic()
        if not self._pending and not self._revised and not self._progress:
            return
        ids, brought = self._files()
        with self._recording(brought) as session:
            said: list[tuple[str, dict[str, Any]]] = []
            for items, revise in ((self._pending, False), (self._revised, True)):
                for start in range(0, len(items), FLUSH_COUNT):
                    batch = items[start : start + FLUSH_COUNT]
                    if ids:
                        batch = [replace(item, id=ids.get(item.hash)) for item in batch]
                    recorded = candidates.record(session, self.job_id, "search", batch, revise=revise)
                    for item, (candidate_id, new) in zip(batch, recorded, strict=True):
                        if item.failure is None:
                            self.front.add(candidate_id, item.target, numbers(item.values))
                        if new:
                            said.append(("candidate", self._told(candidate_id, item)))
            if self._revised:  # what an old value kept off the front may belong there now
                self.front.clear()
                self.restore(candidates.all_values(session, self.job_id, "search"))
            for progress in self._progress.values():
                said.append(("progress", self._told_progress(progress)))
                log.info("%s", words(progress))
                share = progress.step / max(1, progress.total)
                if progress.phase == "search":
                    jobs.set_phase(session, self.job_id, progress=SEARCH_SHARE * share)
            events.append(session, self.job_id, said)
            self.front.write(session)
        self._pending, self._revised, self._progress, self._brought = [], [], {}, {}

    def _told(self, candidate_id: UUID, item: NewCandidate) -> dict[str, Any]:
        return {
            "id": str(candidate_id),
            "hash": item.hash,
            "values": numbers(item.values),
            "failure": item.failure,
            "stage": "search",
        }

    def _told_progress(self, progress: Progress) -> dict[str, Any]:
        return {
            "phase": progress.phase,
            "step": progress.step,
            "total": progress.total,
            "metrics": dict(progress.metrics),
        }
