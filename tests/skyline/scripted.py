"""A small real HTTP server that answers by script: for what a healthy service never does."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

JOB_ID = "11111111-2222-4333-8444-555555555555"
OTHER_ID = "11199999-2222-4333-8444-555555555555"
TASK_ID = "77777777-2222-4333-8444-555555555555"
CANDIDATE_ID = "aaaaaaaa-2222-4333-8444-555555555555"
SPEC = {
    "space": {"name": "darts"},
    "dataset": {"name": "digits"},
    "objectives": ["error"],
    "algorithm": {"name": "random"},
}


@dataclass
class Reply:
    """One answer; ``body`` that is no text goes out as JSON. ``cut``: the connection breaks after the body."""

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str


class Script:
    """Answers by (method, path), in turn; the last one of each stands for ever."""

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], deque[Reply]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def on(self, method: str, path: str, *replies: Reply) -> None:
        self.replies[method, path] = deque(replies)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        waiting = self.replies.get((asked.method, asked.path))
        if not waiting:
            return Reply({"title": "Not found", "status": 404, "detail": f"no {asked.path}"}, 404)
        return waiting.popleft() if len(waiting) > 1 else waiting[0]


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(length).decode()
            asked = Asked(self.command, split.path, dict(parse_qsl(split.query)), headers, body)
            reply = script.answer(asked)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            # A length that is never reached is what a client sees when a server dies within an answer.
            self.send_header("Content-Length", str(len(reply.content) + (1000 if reply.cut else 0)))
            self.end_headers()
            self.wfile.write(reply.content)
            self.close_connection = reply.cut

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def job(status: str = "searching", **changes: Any) -> dict[str, Any]:
    """A job as the service answers it."""
    return {
        "id": JOB_ID,
        "name": "",
        "status": status,
        "phase": status,
        "progress": 0.5,
        "spec": SPEC,
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "ended_at": None,
        "reason": None,
        "waiting_for": None,
        "attempts": [],
        "front": {"search": 0, "final": 0},
        "labels": {},
    } | changes


def event(seq: int, type: str = "progress", **data: Any) -> dict[str, Any]:
    return {"seq": seq, "at": "2026-01-01T00:00:00Z", "type": type, "data": data}


def attempt(**changes: Any) -> dict[str, Any]:
    return {
        "task": TASK_ID,
        "kind": "search",
        "number": 1,
        "worker": "one",
        "device": "cpu",
        "threads": 1,
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:00:01Z",
        "end": "done",
        "exit_signal": None,
        "cpu_seconds": None,
        "gpu_seconds": None,
        "peak_memory_mb": None,
    } | changes


def piece(identifier: int, text: str, **changes: Any) -> dict[str, Any]:
    """A piece of a job's log."""
    return {
        "id": identifier,
        "task": TASK_ID,
        "kind": "search",
        "candidate": None,
        "attempt": 1,
        "offset": 0,
        "at": "2026-01-01T00:00:00Z",
        "text": text,
    } | changes


def stream(*events: dict[str, Any]) -> str:
    """Events as they go over the wire."""
    return "".join(f"id: {e['seq']}\nevent: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)


def candidate(identifier: str = CANDIDATE_ID, **values: float) -> dict[str, Any]:
    kinds = {"error": ("", "trained"), "params": ("", "exact"), "latency_ms": ("ms", "measured")}
    wire = {key: {"value": value, "unit": kinds[key][0], "kind": kinds[key][1]} for key, value in values.items()}
    return {
        "id": identifier,
        "job": JOB_ID,
        "hash": "0" * 64,
        "architecture": {},
        "values": wire,
        "search_values": {},
        "test": None,
        "status": "verified",
        "failure": None,
        "artefacts": ["json"],
        "created_at": "2026-01-01T00:00:00Z",
    }


def estimate(**changes: Any) -> dict[str, Any]:
    """What a job would be, as the service answers it."""
    bound, not_yet = {"min": None, "max": 60_000.0}, {"value": None, "reason": "not estimated yet"}
    narrow, wide = ({"floor": 15_026, "ceiling": 101_938}, {"floor": 900_000, "ceiling": 4_000_000})
    left = {"floor": 15_026, "ceiling": 60_000}
    ranges = [
        {"possible": narrow, "bound": bound, "left": left, "reason": None},
        {"possible": wide, "bound": bound, "left": None, "reason": None},
    ]
    return {
        "valid": True,
        "spec": SPEC,
        "targets": [
            {"cells": 5, "channels": channels, "stem": "cifar", "ranges": {"params": costs}}
            for channels, costs in zip((8, 64), ranges, strict=True)
        ],
        "images": {"train": 575, "validation": 575, "select": 287, "test": 360, "reason": None},
        "search": {"evaluations": 48, "candidates": 96, "trainings": 48, "epochs": 96, "reason": None},
        "verification": {"candidates": 1, "trainings": 1, "epochs": 20},
        "workers": ["worker-1"],
        "waiting_for": None,
        "memory": not_yet,
        "time": not_yet,
    } | changes


def front(*members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "job": JOB_ID,
        "kind": "final",
        "version": 1,
        "objectives": [
            {"key": "error", "unit": "", "direction": "minimize", "kind": "trained"},
            {"key": "params", "unit": "", "direction": "minimize", "kind": "exact"},
        ],
        "reference_point": {"error": 0.9},
        "hypervolume": 0.5,
        "knee": None,
        "members": list(members),
        "next": None,
        "infeasible": None,
    } | changes


def dataset(name: str = "leaves", **changes: Any) -> dict[str, Any]:
    """A registered data set that one of two workers has."""
    there = {"input": [3, 64, 64], "classes": 6, "images": {"train": 240, "test": 60}}
    nothing = {"input": None, "classes": None, "images": None}
    state = {"live": True, "present": True, "downloadable": False, "note": ""}
    return {
        "name": name,
        "dataset": {"name": "imagefolder", "path": "leaves", "size": 64},
        "description": "",
        "created_at": "2026-01-01T00:00:00Z",
        **there,
        "workers": [
            {"worker": "one", **state, **there},
            {"worker": "two", **state, **nothing, "present": False, "note": "Put a folder there"},
            {"worker": "gone", **state, **nothing, "present": False, "live": False},
        ],
    } | changes
