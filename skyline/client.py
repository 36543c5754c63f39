"""The Python client: one object per service, one method per call, answers as the models of ``skyline.schemas``.

from skyline import Client

client = Client()
job = client.submit("job.yaml")
for event in client.watch(job.id):
    print(event.type, event.data)
best = client.front(job.id, max={"latency_ms": 5}).members
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from skyline import gates
from skyline.errors import (
    ApiError,
    ClientError,
    ConnectionFailed,
    InvalidApiKeyError,
    InvalidSpecError,
    InvalidUrlError,
    NotSucceededError,
    WaitTimeoutError,
)
from skyline.gates import Gate
from skyline.schemas.answers import (
    ENDED,
    Candidate,
    CandidatePage,
    Event,
    EventPage,
    Front,
    Job,
    JobPage,
    LogChunk,
    LogPage,
    Readiness,
    Version,
)
from skyline.schemas.catalog import Catalog
from skyline.schemas.datasets import DatasetPage, RegisteredDataset
from skyline.schemas.devices import Device, DevicePage, DeviceWithProfile
from skyline.schemas.estimates import Estimate
from skyline.schemas.jobs import JobSpec
from skyline.schemas.problems import Problem
from skyline.schemas.tables import RegisteredTable, TablePage
from skyline.specs import load
from skyline.streams import parse

JSON = {"Content-Type": "application/json"}
DEFAULT_URL = "http://127.0.0.1:8765"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""Seconds; a held request (``wait``) ends well before."""
KEPT_SECONDS = 2.0
"""An idle connection is not used again after this: well before the service closes it, which would look like a crash."""
SILENCE_SECONDS = 45.0
"""A live stream that is silent for longer is taken for dead: the service sends a comment every 15 s."""
RECONNECT_SECONDS = 60.0
"""How long ``watch`` tries to reach a service that went away before it gives up."""
HELD_SECONDS = 20.0
"""How long the service holds one request of ``wait``."""

Model = TypeVar("Model", bound=BaseModel)
Item_co = TypeVar("Item_co", covariant=True)
JobId = UUID | str
Spec = Mapping[str, Any] | JobSpec | str | Path


def _host(url: str) -> str:
    """Raises InvalidUrlError for what cannot be reached by HTTP."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidUrlError(url, str(error)) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidUrlError(url, "it needs http:// or https:// and a host")
    return parsed.host


SUFFIXES = {"python": "py", "masks": "masks.safetensors", "inherited": "inherited.safetensors"}
"""Of files whose format is not their suffix."""


class Client:
    """A Skyline service at ``url`` (default: SKYLINE_URL, else this machine), with an ``api_key`` if it asks for one
    (default: SKYLINE_API_KEY).

    Raises InvalidApiKeyError for what cannot be a key, ConnectionFailed when nothing answers, ApiError when the service
    says no. Usable as a context manager; one object is for one thread.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self.url = (url or os.environ.get("SKYLINE_URL") or DEFAULT_URL).rstrip("/")
        host = _host(self.url)
        key = (api_key or os.environ.get("SKYLINE_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InvalidApiKeyError  # the HTTP library would say so with the key in its message
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=TIMEOUT,
            limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
            verify=self.url.startswith("https:"),  # reading the certificates takes a while and plain HTTP has none
            trust_env=host not in LOOPBACK,  # a proxy in the environment is not for this machine
        )
        self._fronts: dict[str, tuple[str, Front]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- jobs -------------------------------------------------------------------------------------------------

    def submit(self, spec: Spec, *, idempotency_key: str | None = None) -> Job:
        """Posts a job: a dictionary, a JobSpec or the path of a JSON or YAML file.

        ``idempotency_key``: a name for this request; sent again within 24 h with the same job it makes no second one,
        and that job is returned. Raises InvalidSpecError when the file cannot be read, ApiError (422) with the fields
        at fault, ApiError (409) for a name that another job has.
        """
        return self._post_job("/v1/jobs", _body(spec), idempotency_key)

    def _post_job(self, path: str, content: str, idempotency_key: str | None) -> Job:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._read(Job, self._send("POST", path, content=content, headers={**JSON, **headers}))

    def estimate(self, spec: Spec) -> Estimate:
        """What a job would be: checked as :meth:`submit` does, counted, and not posted. Raises the same errors."""
        query = {"dry_run": "true"}
        return self._read(Estimate, self._send("POST", "/v1/jobs", query=query, content=_body(spec), headers=JSON))

    def job(self, job_id: JobId) -> Job:
        return self._get(Job, f"/v1/jobs/{job_id}")

    def jobs(
        self, *, status: str | None = None, name: str | None = None, label: str | None = None, limit: int = 50
    ) -> Iterator[Job]:
        """All jobs, newest first, fetched in pages of ``limit`` as they are asked for; ``label`` is ``key=value``."""
        asked = {"status": status, "name": name, "label": label, "limit": limit}
        return _pages(lambda cursor: self._get(JobPage, "/v1/jobs", {**asked, "cursor": cursor}))

    def wait(self, job_id: JobId, until: Iterable[str] = ENDED, timeout: float | None = None) -> Job:
        """Returns the job once its status is one of ``until`` or it has ended; ``timeout`` in seconds, None: for ever.

        Raises WaitTimeoutError.
        """
        wanted = frozenset({until} if isinstance(until, str) else until) | ENDED
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self.job(job_id)
        while job.status not in wanted:
            left = HELD_SECONDS if deadline is None else min(HELD_SECONDS, deadline - time.monotonic())
            if left <= 0:
                raise WaitTimeoutError(f"job {job.id} is still {job.status} after {timeout:g} s")
            job = self._get(Job, f"/v1/jobs/{job_id}", {"wait": f"{left:.2f}"})
        return job

    def cancel(self, job_id: JobId) -> Job:
        """Asks a job to stop; what it found is kept. Raises ApiError (409) when it has ended."""
        return self._read(Job, self._send("POST", f"/v1/jobs/{job_id}/cancel"))

    def retry(self, job_id: JobId) -> Job:
        """Goes on with a job that failed or was cancelled, from where it was; what it found is kept.

        Raises ApiError (409) when it runs or has succeeded.
        """
        return self._read(Job, self._send("POST", f"/v1/jobs/{job_id}/retry"))

    def delete(self, job_id: JobId) -> None:
        """Removes an ended job with its candidates and files. Raises ApiError (409) when it has not ended."""
        self._send("DELETE", f"/v1/jobs/{job_id}")

    # --- events -----------------------------------------------------------------------------------------------

    def events(self, job_id: JobId, after: int = 0, limit: int = 1000) -> EventPage:
        """Events numbered above ``after``, as far as there are any now."""
        headers = {"Accept": "application/json"}
        query = {"after": after, "limit": limit}
        return self._read(EventPage, self._send("GET", f"/v1/jobs/{job_id}/events", query=query, headers=headers))

    def watch(self, job_id: JobId, after: int = 0) -> Iterator[Event]:
        """Events of a job from number ``after`` on, as they happen, until the job has ended and all were given.

        A broken stream, a restart of the service included, is taken up after the last event seen: none is lost and
        none comes twice. Raises ConnectionFailed when the service stays away for RECONNECT_SECONDS.
        """
        last, since, pause = after, time.monotonic(), 0.1
        while True:
            try:
                for event in self._stream(job_id, last):
                    since, pause = time.monotonic(), 0.1
                    if event is not None:
                        last = event.seq
                        yield event
                # The stream ended in good order: either the job has, or the service is going down.
                if self.job(job_id).status in ENDED:
                    rest = self.events(job_id, after=last).items
                    for event in rest:
                        last = event.seq
                        yield event
                    if not rest:
                        return
                    continue
            except (ConnectionFailed, ApiError) as error:
                if isinstance(error, ApiError) and error.status < 500:
                    raise
                if time.monotonic() - since > RECONNECT_SECONDS:
                    raise
            time.sleep(pause)
            pause = min(2.0, pause * 2)

    def _stream(self, job_id: JobId, after: int) -> Iterator[Event | None]:
        """One connection's events above ``after``, None for a sign of life. Raises ConnectionFailed when it breaks."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            path, timeout = f"/v1/jobs/{job_id}/events", httpx.Timeout(SILENCE_SECONDS, connect=5.0)
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise ApiError(_problem(response))
                yield None
                for message in parse(response.iter_lines()):
                    event = self._model(Event, message.data, path) if message else None
                    if event is None or event.seq > after:
                        after = event.seq if event else after
                        yield event
        except httpx.TransportError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error

    # --- log --------------------------------------------------------------------------------------------------

    def log(
        self,
        job_id: JobId,
        *,
        task: UUID | str | None = None,
        attempt: int | None = None,
        after: int = 0,
        limit: int = 200,
    ) -> LogPage:
        """What a job's processes printed, pieces with ids above ``after``, as far as there are any now.

        ``task`` and ``attempt``: only of this task, only of attempts of this number (``Job.attempts`` has both).
        """
        query = {"task": task, "attempt": attempt, "after": after, "limit": limit}
        headers = {"Accept": "application/json"}
        return self._read(LogPage, self._send("GET", f"/v1/jobs/{job_id}/log", query=query, headers=headers))

    def log_text(self, job_id: JobId, *, task: UUID | str | None = None, attempt: int | None = None) -> str:
        """All that a job's processes printed so far, attempt by attempt, under headings."""
        query, headers = {"task": task, "attempt": attempt}, {"Accept": "text/plain"}
        return self._send("GET", f"/v1/jobs/{job_id}/log", query=query, headers=headers).text

    def log_pieces(
        self,
        job_id: JobId,
        *,
        task: UUID | str | None = None,
        attempt: int | None = None,
        after: int = 0,
        follow: bool = False,
    ) -> Iterator[LogChunk]:
        """All pieces of a job's log in the order in which they came; ``follow``: until the job has ended.

        While following, raises ConnectionFailed when the service stays away for RECONNECT_SECONDS.
        """
        last, since, pause = after, time.monotonic(), 0.1
        while True:
            try:
                # Asked first: what is printed last is there before its attempt ends.
                over = not follow or _all_ended(self.job(job_id))
                page = self.log(job_id, task=task, attempt=attempt, after=last)
            except (ConnectionFailed, ApiError) as error:
                if not follow or (isinstance(error, ApiError) and error.status < 500):
                    raise
                if time.monotonic() - since > RECONNECT_SECONDS:
                    raise
            else:
                yield from page.items
                since, last = time.monotonic(), page.next
                if page.items:
                    pause = 0.1
                    continue
                if over:
                    return
            time.sleep(pause)
            pause = min(1.0, pause * 2)

    # --- results ----------------------------------------------------------------------------------------------

    def front(
        self,
        job_id: JobId,
        kind: Literal["search", "final"] | None = None,
        max: Mapping[str, float] | None = None,
        min: Mapping[str, float] | None = None,
    ) -> Front:
        """A job's front with all its members; ``max`` and ``min`` bound objectives in their units.

        ``kind``: ``search`` or ``final``; None: the final one as soon as it has members or bounds have left it empty,
        before that the search front.
        Asking again costs next to nothing while nothing has changed (ETag).
        """
        if kind is None:
            job = self.job(job_id)
            over = job.front.final or not job.front.search or job.infeasible is not None
            kind = "final" if over else "search"
        query: dict[str, Any] = {"kind": kind}
        query |= {f"max.{key}": bound for key, bound in (max or {}).items()}
        query |= {f"min.{key}": bound for key, bound in (min or {}).items()}
        path = f"/v1/jobs/{job_id}/front"
        known = f"{path}?{sorted(query.items())}"
        cached = self._fronts.get(known)
        response = self._send("GET", path, query=query, headers={"If-None-Match": cached[0]} if cached else {})
        if response.status_code == httpx.codes.NOT_MODIFIED and cached:
            return cached[1]
        front = page = self._read(Front, response)
        members = list(front.members)
        while page.next is not None:
            page = self._get(Front, path, {**query, "cursor": page.next})
            members += page.members
        front = front.model_copy(update={"members": members, "next": None})
        if "etag" in response.headers:
            self._fronts[known] = (response.headers["etag"], front)
        return front

    def gate(self, job_id: JobId, require: str | Iterable[str], kind: Literal["search", "final"] = "final") -> Gate:
        """Holds a job's front against requirements: ``error<=10%,params<=300000``, or one by one in a list.

        ``passed`` says whether any member holds all of them, ``best`` which one is the best by the objective that the
        first names. Raises InvalidRequirementError, NotSucceededError for a job that did not end well or has not yet,
        ApiError.
        """
        job = self.job(job_id)  # before the front: what has ended changes no more
        front = self.front(job_id, kind)
        requirements = gates.parse(require, front, job.spec)
        if job.status != "succeeded":
            raise NotSucceededError(job)
        others = []
        if not front.members and front.infeasible is not None:
            others = [self.candidate(near.id) for near in front.infeasible.nearest]
        if kind == "search":
            others = [other.model_copy(update={"values": other.search_values}) for other in others]
        return gates.decide(front, requirements, others, gates.own_bounds(job.spec))

    def candidates(
        self,
        job_id: JobId,
        *,
        sort: str | None = None,
        stage: str | None = None,
        descending: bool = False,
        status: str | None = None,
        limit: int = 100,
    ) -> Iterator[Candidate]:
        """All candidates of a job, fetched in pages of ``limit``.

        ``sort``: ``number`` or an objective's key; ``stage``: whose values it goes by, ``search`` or ``final``.
        """
        asked = {
            "sort": sort,
            "stage": stage,
            "descending": "true" if descending else None,
            "status": status,
            "limit": limit,
        }
        return _pages(
            lambda cursor: self._get(CandidatePage, f"/v1/jobs/{job_id}/candidates", {**asked, "cursor": cursor})
        )

    def candidates_csv(
        self,
        job_id: JobId,
        *,
        sort: str | None = None,
        stage: str | None = None,
        descending: bool = False,
        status: str | None = None,
    ) -> Iterator[bytes]:
        """All candidates of a job as a table in CSV (UTF-8), piece by piece as it comes; order and filter as above.

        ``open("all.csv", "wb").writelines(client.candidates_csv(job))`` for instance. Raises ConnectionFailed where it
        breaks off.
        """
        asked = {"sort": sort, "stage": stage, "descending": "true" if descending else None, "status": status}
        query = {key: value for key, value in asked.items() if value is not None}
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/candidates.csv", params=query) as response:
                if response.is_error:
                    response.read()
                    raise ApiError(_problem(response))
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error

    def candidate(self, candidate_id: UUID | str) -> Candidate:
        return self._get(Candidate, f"/v1/candidates/{candidate_id}")

    def retry_candidate(self, candidate_id: UUID | str) -> Candidate:
        """Verifies a candidate again whose verification failed; its job goes back to verifying and concludes again.

        Raises ApiError (409), saying why, where that is not possible.
        """
        return self._read(Candidate, self._send("POST", f"/v1/candidates/{candidate_id}/retry"))

    def verify(self, candidate_id: UUID | str, /, *, idempotency_key: str | None = None, **body: Any) -> Job:
        """Posts a job that trains, measures and tests this candidate's genotype anew, without a search.

        ``body``: ``dataset``, ``target``, ``verify``, ``objectives``, ``constraints``, ``resources``, ``seed``,
        ``name``, ``labels`` as in a job; what is not given is as in the candidate's own job. Raises ApiError (422) with
        the fields at fault.
        """
        return self._post_job(f"/v1/candidates/{candidate_id}/verify", _body(body), idempotency_key)

    def model(self, candidate_id: UUID | str, format: str = "json") -> bytes:
        """A candidate's network as a file's contents; ``format``: json, safetensors, onnx, pt2, python; or what its
        search brought, masks or inherited.

        Waits for a file that is being made. Raises ApiError: 409 where the candidate was not verified, 404 where its
        search brought no such file; ClientError where a file is not the one whose SHA-256 the service has on record.
        """
        while True:
            response = self._send("GET", f"/v1/candidates/{candidate_id}/model", query={"format": format})
            if response.status_code != httpx.codes.ACCEPTED:
                return response.content if format == "json" else self._whole(response, f"{format} of {candidate_id}")
            time.sleep(float(response.headers.get("Retry-After", 1)))

    def pull(self, candidate_id: UUID | str, format: str = "json", path: str | Path | None = None) -> Path:
        """Writes a candidate's network to ``path`` and returns where it is.

        Default: ``{id}.{format}`` here, ``.py`` for python, ``.masks.safetensors`` for masks. The file appears whole
        or not at all.
        """
        target = Path(path) if path is not None else Path(f"{candidate_id}.{SUFFIXES.get(format, format)}")
        content = self.model(candidate_id, format)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            beside.write_bytes(content)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
        return target

    # --- data sets --------------------------------------------------------------------------------------------

    def add_dataset(self, name: str, dataset: Mapping[str, Any], description: str = "") -> RegisteredDataset:
        """Registers a data set, such as ``{"name": "imagefolder", "path": "leaves"}``, under a name of its own: jobs
        then say ``dataset: {name: leaves}``. The same again changes nothing.

        Raises ApiError: 422 with the fields at fault, also where no worker has it; 409 where the name is in use.
        """
        body = {"name": name, "dataset": dict(dataset), "description": description}
        text = _as_json(body, f"'{name}'", "data set")
        return self._read(RegisteredDataset, self._send("POST", "/v1/datasets", content=text, headers=JSON))

    def datasets(self, limit: int = 50) -> Iterator[RegisteredDataset]:
        """All registered data sets by name, fetched in pages of ``limit`` as they are asked for."""
        return _pages(lambda cursor: self._get(DatasetPage, "/v1/datasets", {"limit": limit, "cursor": cursor}))

    def dataset(self, name: str) -> RegisteredDataset:
        """A registered data set and which workers have it now."""
        return self._get(RegisteredDataset, f"/v1/datasets/{quote(name, safe='')}")

    def delete_dataset(self, name: str) -> None:
        """Deletes a registered name; images and jobs stay as they are. Raises ApiError (404) where there is none."""
        self._send("DELETE", f"/v1/datasets/{quote(name, safe='')}")

    # --- tables -----------------------------------------------------------------------------------------------

    def add_table(
        self,
        name: str,
        csv: str | Path,
        *,
        space: str | Mapping[str, Any],
        input: Sequence[int],
        classes: int,
        columns: Mapping[str, Mapping[str, str]],
        key: str = "arch",
        partial: bool = False,
        description: str = "",
    ) -> RegisteredTable:
        """Registers values by architecture under a name: jobs then say ``{name: error, table: NAME, column: COLUMN}``.

        ``csv``: the text, or the path of a file of it (``.gz`` too); ``columns``: ``{"unit": "ms", "direction":
        "minimize"}`` by name; ``key``: the column that names architectures; ``input``: (channels, height, width). The
        same again changes nothing.

        Raises InvalidSpecError for a file that cannot be read, ApiError: 422 with lines and columns at fault, 409 where
        the name is in use.
        """
        body = {
            "name": name,
            "space": {"name": space} if isinstance(space, str) else dict(space),
            "input": list(input),
            "classes": classes,
            "columns": {column: dict(about) for column, about in columns.items()},
            "key": key,
            "partial": partial,
            "description": description,
            "csv": _table_text(csv) if isinstance(csv, Path) else csv,
        }
        text = _as_json(body, f"'{name}'", "table")
        return self._read(RegisteredTable, self._send("POST", "/v1/tables", content=text, headers=JSON))

    def tables(self, limit: int = 50) -> Iterator[RegisteredTable]:
        """All registered tables by name, fetched in pages of ``limit`` as they are asked for."""
        return _pages(lambda cursor: self._get(TablePage, "/v1/tables", {"limit": limit, "cursor": cursor}))

    def table(self, name: str) -> RegisteredTable:
        """A registered table: its columns and how far they reach."""
        return self._get(RegisteredTable, f"/v1/tables/{quote(name, safe='')}")

    def delete_table(self, name: str) -> None:
        """Deletes a registered table. Raises ApiError: 404 where there is none, 409 while jobs under way use it."""
        self._send("DELETE", f"/v1/tables/{quote(name, safe='')}")

    # --- devices ----------------------------------------------------------------------------------------------

    def add_device(self, profile: Mapping[str, Any]) -> Device:
        """Uploads the profile of a device: jobs then say ``{name: latency_ms, device: NAME}``. One that the device had
        before is replaced; jobs go on with the one that they were posted with.

        Raises ApiError: 422 with the fields at fault, 409 where there are too many devices.
        """
        text = _as_json(dict(profile), f"'{profile.get('name', '?')}'", "profile")
        return self._read(Device, self._send("POST", "/v1/devices", content=text, headers=JSON))

    def devices(self, limit: int = 50) -> Iterator[Device]:
        """All devices with a profile by name, fetched in pages of ``limit`` as they are asked for."""
        return _pages(lambda cursor: self._get(DevicePage, "/v1/devices", {"limit": limit, "cursor": cursor}))

    def device(self, name: str) -> DeviceWithProfile:
        """A device with its whole profile. Raises ApiError (404) where there is none."""
        return self._get(DeviceWithProfile, f"/v1/devices/{quote(name, safe='')}")

    def delete_device(self, name: str) -> None:
        """Deletes a device's name; jobs that named it go on. Raises ApiError (404) where there is none."""
        self._send("DELETE", f"/v1/devices/{quote(name, safe='')}")

    # --- service ----------------------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """What live workers can run. Raises ApiError (503) while none has registered."""
        return self._get(Catalog, "/v1/catalog")

    def ready(self) -> Readiness:
        """State of database, broker and workers; also when the service is not ready."""
        response = self._exchange("GET", "/readyz")
        if response.status_code not in (httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE):
            raise ApiError(_problem(response))
        if "problem" in response.headers.get("content-type", ""):
            raise ApiError(_problem(response))
        return self._read(Readiness, response)

    def version(self) -> Version:
        """Versions of the service and of its tables."""
        return self._get(Version, "/v1/version")

    # --- wire -------------------------------------------------------------------------------------------------

    def _get(self, model: type[Model], path: str, query: Mapping[str, Any] | None = None) -> Model:
        return self._read(model, self._send("GET", path, query=query))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        response = self._exchange(method, path, query=query, content=content, headers=headers)
        if response.is_error:
            raise ApiError(_problem(response))
        return response

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        content: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        asked = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            return self._http.request(method, path, params=asked, content=content, headers=headers)
        except httpx.TransportError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error

    def _read(self, model: type[Model], response: httpx.Response) -> Model:
        return self._model(model, response.text, str(response.request.url.path))

    def _whole(self, response: httpx.Response, what: str) -> bytes:
        """The contents of a file. Raises ClientError where they are not those of its ETag, which is their SHA-256."""
        tag = response.headers.get("etag", "").removeprefix("W/").strip('"')
        found = hashlib.sha256(response.content).hexdigest()
        if tag and tag != found:
            raise ClientError(
                f"the {what} came damaged: its SHA-256 is {found} and should be {tag}; fetch it again, and where "
                "that does not help, the file is damaged in the artefact store of the service"
            )
        return response.content

    def _model(self, model: type[Model], text: str, path: str) -> Model:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            raise ClientError(
                f"{self.url}{path} did not answer with a {model.__name__}: {error.errors()[0]['msg']}; "
                "is it a Skyline service of this version?"
            ) from error


def _body(spec: Spec) -> str:
    """A job as it is sent. Raises InvalidSpecError."""
    if isinstance(spec, str | Path):
        body: Any = load(spec)
    elif isinstance(spec, JobSpec):
        body = spec.model_dump(mode="json", exclude_unset=True)
    else:
        body = dict(spec)
    return _as_json(body, "the specification", "job")


def _as_json(body: Any, source: str, what: str) -> str:
    """Raises InvalidSpecError for what JSON cannot hold."""
    try:
        return json.dumps(body)  # NaN and Infinity go out as they are: it is the service that says what would do
    except TypeError as error:
        raise InvalidSpecError(source, f"it does not fit into JSON: {error}", what) from error


class _Page(Protocol[Item_co]):
    @property
    def items(self) -> Sequence[Item_co]: ...
    @property
    def next(self) -> str | None: ...


def _pages(read: Callable[[str | None], _Page[Item_co]]) -> Iterator[Item_co]:
    """The items of all pages; ``read`` fetches the one that begins at a cursor, when it is asked for."""
    page = read(None)
    yield from page.items
    while page.next is not None:
        page = read(page.next)
        yield from page.items


def _table_text(path: Path) -> str:
    """Raises InvalidSpecError."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidSpecError(str(path), f"it cannot be read: {why}", "table") from error
    except UnicodeDecodeError as error:
        raise InvalidSpecError(str(path), f"byte {error.start} is not UTF-8", "table") from error


def _all_ended(job: Job) -> bool:
    """The attempt that ends a job ends a moment after it."""
    return job.status in ENDED and all(attempt.ended_at for attempt in job.attempts)


def _problem(response: httpx.Response) -> Problem:
    """What the service said; an answer that is no problem document (a proxy's page) still has a status."""
    try:
        return Problem.model_validate_json(response.text)
    except ValidationError:
        title = response.reason_phrase or "error"
        detail = response.text.strip()[:500] or f"{response.request.method} {response.request.url.path} failed"
        return Problem(title=title, status=response.status_code, detail=detail)
