"""A job as it moves: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from skyline.cli.tables import front_notes, front_table, is_quality
from skyline.cli.values import short
from skyline.errors import ApiError
from skyline.schemas.answers import ENDED

if TYPE_CHECKING:
    from rich.console import Console

    from skyline.client import Client
    from skyline.schemas.answers import Event, Front, Job

REFRESH_SECONDS = 0.5
"""The job is looked at no oftener than this, however many events come."""
LINE_SECONDS = 5.0
"""Plain lines come no oftener than this while only the numbers change."""
TOLD = ("warning", "attempt")
"""Types of events that get a line of their own."""

Show = Callable[["Job", str, str], None]
"""Of the job, how many of its steps are done, and the best it has found."""


def follow(client: Client, job_id: UUID, console: Console, events: Iterable[Event | None] | None = None) -> Job:
    """Shows a job's way until its events end and returns it as it is then.

    ``events``: by default all of the job's, live; None among them just means that time has passed.
    """
    job = client.job(job_id)
    best = Best(client, job_id)
    looked, step = time.monotonic(), ""
    with _bar(console) if console.is_terminal else _lines(console) as show:
        show(job, step, best.text(job))
        for event in client.watch(job_id) if events is None else events:
            kind = event.type if event is not None else ""
            if event is not None and kind in TOLD and (line := told(event)):
                console.print(Text(line))
            if event is not None and kind in ("phase", "progress") and event.data.get("phase") != "training":
                step = steps(event)  # a new phase has none yet
            if kind == "phase" or time.monotonic() - looked >= REFRESH_SECONDS:
                job = client.job(job_id)
                show(job, step, best.text(job))
                looked = time.monotonic()
            elif kind == "progress":  # the rest came with the event before, in the same transaction
                show(job, step, best.known)
        job = client.job(job_id)
        show(job, "", best.text(job))
    return job


def conclude(client: Client, job: Job, console: Console) -> Front | None:
    """Says how a job ended: its final table, or the reason why there is none."""
    if job.status not in ENDED:
        return None
    front = None
    if job.front.final or job.front.search or job.infeasible is not None:
        front = client.front(job.id)
        if front.members:
            console.print(front_table(front))
        for note in front_notes(front):
            console.print(Text(note))
    line = f"job {short(job.id)} {job.status}" + (f": {job.reason}" if job.reason else "")
    console.print(Text(line, style="green" if job.status == "succeeded" else "red"))
    return front


class Best:
    """The size of a job's front and its best error."""

    def __init__(self, client: Client, job_id: UUID) -> None:
        self.client, self.job_id = client, job_id
        self.known = ""
        """The text as of last time."""

    def text(self, job: Job) -> str:
        """``front 12, best error 3.10 %``; empty while there is no front."""
        counts = job.front
        if not counts.final and not counts.search:
            return ""
        try:  # unchanged fronts answer 304
            front = self.client.front(self.job_id, "final" if counts.final else "search")
        except ApiError as error:
            if error.status != 404:  # a front that is being made
                raise
            return self.known
        self.known = f"front {len(front.members)}"
        for objective in front.objectives:
            values = [member.values[objective.key].value for member in front.members if objective.key in member.values]
            if is_quality(objective) and values:
                extreme = min(values) if objective.direction == "minimize" else max(values)
                self.known += f", best {objective.key} {100 * extreme:.2f} %"
        return self.known


def told(event: Event) -> str:
    """A warning or a mishap as a line; nothing for what goes as it should."""
    data = event.data
    if event.type == "warning":
        return f"warning: {data.get('text') or data.get('message') or data}"
    if data.get("end") in (None, "done"):
        return ""
    signal = f" (signal {data['exit_signal']})" if data.get("exit_signal") else ""
    return f"{data.get('kind', 'an')} attempt {data.get('number', '')} ended: {data['end']}{signal}"


def steps(event: Event) -> str:
    """``12/48`` out of a progress event; empty where it does not count."""
    step, total = event.data.get("step"), event.data.get("total")
    return f"{step}/{total}" if isinstance(step, int) and isinstance(total, int) and total else ""


@contextmanager
def _bar(console: Console) -> Iterator[Show]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("queued", total=1.0, best="")

        def show(job: Job, step: str, best: str) -> None:
            waiting = f"waiting: {job.waiting_for}" if job.waiting_for else ""
            progress.update(
                bar, description=_phase(job, step), completed=job.progress, best=best or waiting, refresh=True
            )

        yield show


@contextmanager
def _lines(console: Console) -> Iterator[Show]:
    shown: tuple[str, str, int] | None = None
    at = float("-inf")

    def show(job: Job, step: str, best: str) -> None:
        nonlocal shown, at
        now = (job.status, job.phase, int(100 * job.progress))
        changed = shown is None or shown[:2] != now[:2]
        if not changed and (shown == now or time.monotonic() - at < LINE_SECONDS):
            return
        shown, at = now, time.monotonic()
        waiting = f"  waiting: {job.waiting_for}" if job.waiting_for else ""
        console.print(Text(f"{now[2]:3d} %  {_phase(job, step)}" + (f"  {best}" if best else "") + waiting))

    yield show


def _phase(job: Job, step: str) -> str:
    phase = job.phase if job.phase.startswith(job.status) else ": ".join(filter(None, (job.status, job.phase)))
    return f"{phase} {step}" if step else phase
