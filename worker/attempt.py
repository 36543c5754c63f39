"""What every kind of task has at hand while one attempt of it runs."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from sqlalchemy.orm import Session

from nas_core import checkpoint
from nas_core.errors import CheckpointError
from skyline.schemas import JobSpec
from store import events, tasks
from store.session import unit_of_work
from store.settings import settings
from worker.control import StopFlag
from worker.leftovers import SCRATCH
from worker.quiet import Room

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 10.0
GLANCE_SECONDS = 15.0
"""Between two events that tell a training loss."""
PATIENCE_SECONDS = 3.0
"""Between being asked to stop and stopping without a checkpoint; shorter than the supervisor's grace."""


@dataclass
class Attempt:
    """One attempt of one task: its job, its fence, its device, its checkpoint."""

    task_id: UUID
    fence: int
    job_id: UUID
    candidate_id: UUID | None
    spec: JobSpec
    reference_point: Mapping[str, float]
    device: torch.device
    flag: StopFlag
    room: Room
    seconds_before: float = 0.0
    """Of the attempts before this one, as its checkpoint says."""
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _glanced: float = -math.inf
    _warned: set[str] = field(default_factory=set)

    def seconds(self) -> float:
        """Of this task so far, over all attempts."""
        return self.seconds_before + time.monotonic() - self._began

    def between_steps(self) -> None:
        """Lets a measurement pass; raises Stopped some seconds after being asked to stop.

        Until then the next checkpoint may come, which loses nothing.
        """
        self.flag.check(PATIENCE_SECONDS)
        self.room.pass_measurers()

    def glance(self, step: int, steps: int, loss: Callable[[], float]) -> None:
        """Tells the first training loss at once and later ones now and then: an epoch can take hours."""
        if time.monotonic() - self._glanced < GLANCE_SECONDS:
            return
        self._glanced = time.monotonic()
        seen = loss()
        if math.isfinite(seen):  # else the training says so itself
            told: dict[str, Any] = {"phase": "training", "step": step, "total": steps, "metrics": {"loss": seen}}
            if self.candidate_id is not None:
                told["candidate"] = str(self.candidate_id)
            with self.recording() as session:
                events.append(session, self.job_id, [("progress", told)])

    def warn(self, text: str) -> None:
        """Tells what a user should know, the same thing once."""
        if text in self._warned:
            return
        self._warned.add(text)
        log.warning("%s", text)
        told = {"text": text, "task": str(self.task_id)}
        if self.candidate_id is not None:
            told["candidate"] = str(self.candidate_id)
        with self.recording() as session:
            events.append(session, self.job_id, [("warning", told)])

    @contextmanager
    def recording(self) -> Iterator[Session]:
        """A transaction under this attempt's fence. Raises LeaseLostError when the task belongs to another."""
        with unit_of_work(settings().outage_seconds) as session:
            tasks.hold(session, self.task_id, self.fence)
            yield session

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of this attempt for files that only pass through; what a kill leaves of it goes with the task."""
        folder = settings().checkpoint_dir / f"{self.task_id}.{self.fence}{SCRATCH}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _checkpoint(self) -> Path:
        return settings().checkpoint_dir / f"{self.task_id}.pt"

    def save(self, state: Mapping[str, Any], now: bool = False) -> None:
        """Keeps a checkpoint, at most one every few seconds unless ``now``."""
        if now or time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            checkpoint.save({"fence": self.fence, "state": dict(state)}, self._checkpoint)
            self._saved = time.monotonic()

    def load(self) -> Mapping[str, Any] | None:
        """The newest checkpoint of this task; one that cannot be read is told of and left."""
        if not self._checkpoint.exists():
            return None
        try:
            state = checkpoint.load(self._checkpoint).get("state")
        except CheckpointError as error:
            self.warn(str(error))
            return None
        if not isinstance(state, Mapping):
            self.warn(f"the checkpoint {self._checkpoint} holds no state of an attempt; start without it")
            return None
        return state

    def discard(self) -> None:
        """The task is done; its checkpoint is of no more use."""
        self._checkpoint.unlink(missing_ok=True)
