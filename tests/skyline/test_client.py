"""The client against answers that are hard to get out of a healthy service."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from skyline import client as module
from skyline.client import Client
from skyline.errors import (
    ApiError,
    ClientError,
    ConnectionFailed,
    InvalidApiKeyError,
    InvalidSpecError,
    WaitTimeoutError,
)
from skyline.schemas import JobSpec
from tests.skyline.scripted import (
    CANDIDATE_ID,
    JOB_ID,
    OTHER_ID,
    SPEC,
    Reply,
    Script,
    candidate,
    dataset,
    estimate,
    event,
    front,
    job,
    piece,
    stream,
)

EVENTS = f"/v1/jobs/{JOB_ID}/events"
JOB = f"/v1/jobs/{JOB_ID}"
FRONT = f"/v1/jobs/{JOB_ID}/front"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_there_says_how_to_start_a_service() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(ConnectionFailed, match=f"{url} .*skyline serve"):
        client.job(JOB_ID)


def test_url_and_key_come_from_the_environment(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_URL", script.url + "/")
    monkeypatch.setenv("SKYLINE_API_KEY", "skl_secret\n")
    script.on("GET", JOB, Reply(job()))
    with Client() as client:
        assert client.job(JOB_ID).id == UUID(JOB_ID)
    assert script.asked[0].headers["authorization"] == "Bearer skl_secret"


@pytest.mark.parametrize("key", ["skl_one two", "skl_é", "skl_one\ntwo"])
def test_what_cannot_be_a_key_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(InvalidApiKeyError, match="SKYLINE_API_KEY") as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    script.on("GET", JOB, Reply(job()))
    with Client(script.url) as client:
        assert client.job(JOB_ID).status == "searching"


def test_an_error_says_what_the_service_said_field_by_field(script: Script, client: Client) -> None:
    problem = {
        "title": "Unknown algorithm",
        "status": 422,
        "detail": "unknown algorithm 'nsga3'; known: darts, nsga2",
        "errors": [{"path": "/algorithm/name", "got": "nsga3", "expected": "one of darts, nsga2"}],
    }
    script.on("POST", "/v1/jobs", Reply(problem, 422, {"Content-Type": "application/problem+json"}))
    with pytest.raises(ApiError) as caught:
        client.submit(SPEC)
    assert caught.value.status == 422
    assert str(caught.value).splitlines() == [
        "Unknown algorithm (422): unknown algorithm 'nsga3'; known: darts, nsga2",
        "  algorithm.name: one of darts, nsga2 (got 'nsga3')",
    ]
    told = {"path": "/seed", "got": -1, "expected": "at least 0"}
    for detail, lines in (
        ("seed: got -1; expected at least 0", 1),
        ("/seed: at least 0", 1),
        ("no seed is below 0", 2),
        ("seed: got -1", 2),
    ):
        script.on("POST", "/v1/jobs", Reply({**problem, "detail": detail, "errors": [told]}, 422))
        with pytest.raises(ApiError) as caught:
            client.submit(SPEC)
        assert len(str(caught.value).splitlines()) == lines, "what the detail tells is told once"


def test_an_error_that_is_no_problem_document_keeps_status_and_text(script: Script, client: Client) -> None:
    script.on("GET", JOB, Reply("<h1>Bad gateway</h1>", 502))
    with pytest.raises(ApiError, match=r"502.*Bad gateway") as caught:
        client.job(JOB_ID)
    assert caught.value.status == 502


def test_another_program_at_that_address_is_told_apart(script: Script, client: Client) -> None:
    script.on("GET", JOB, Reply("<h1>Welcome</h1>"))
    with pytest.raises(ClientError, match="did not answer with a Job.*is it a Skyline service"):
        client.job(JOB_ID)


@pytest.mark.parametrize("form", ["dictionary", "model", "yaml", "json"])
def test_a_job_is_submitted_as_it_was_written(script: Script, client: Client, tmp_path: Path, form: str) -> None:
    script.on("POST", "/v1/jobs", Reply(job("queued"), 201))
    file = tmp_path / f"job.{form}"
    file.write_text("space: {name: darts}\ndataset: {name: digits}\nobjectives: [error]\nalgorithm: {name: random}\n")
    if form == "json":
        file.write_text(json.dumps(SPEC))
    given: dict[str, dict[str, Any] | JobSpec] = {
        "dictionary": SPEC,
        "model": JobSpec.model_validate_json(json.dumps(SPEC)),
    }
    assert client.submit(given.get(form, file), idempotency_key="once").status == "queued"
    sent = json.loads(script.asked[0].body)
    assert sent["space"] == {"name": "darts"}
    assert set(sent) == set(SPEC)
    assert script.asked[0].headers["idempotency-key"] == "once"


def test_nan_goes_to_the_service_which_says_what_would_do(script: Script, client: Client) -> None:
    script.on("POST", "/v1/jobs", Reply({"title": "Invalid", "status": 422, "detail": "no NaN"}, 422))
    with pytest.raises(ApiError, match="no NaN"):
        client.submit({**SPEC, "budget": {"max_seconds": float("nan")}})
    assert "NaN" in script.asked[0].body


def test_an_estimate_is_a_post_that_says_so(script: Script, client: Client) -> None:
    script.on("POST", "/v1/jobs", Reply(estimate()))
    found = client.estimate(JobSpec.model_validate(SPEC))
    assert found.valid and found.search.candidates == 96
    assert (script.asked[0].query, json.loads(script.asked[0].body)) == (
        {"dry_run": "true"},
        {**SPEC, "objectives": [{"name": "error"}]},
    )
    assert "idempotency-key" not in script.asked[0].headers


def test_what_is_no_json_is_refused_before_it_is_sent(script: Script, client: Client) -> None:
    with pytest.raises(InvalidSpecError, match="does not fit into JSON"):
        client.submit({**SPEC, "labels": {"when": object()}})
    assert not script.asked


def test_pages_are_followed_only_as_far_as_asked_for(script: Script, client: Client) -> None:
    script.on(
        "GET",
        "/v1/jobs",
        Reply({"items": [job()], "next": "c1"}),
        Reply({"items": [job(id=OTHER_ID)], "next": None}),
    )
    pages = client.jobs(status="searching", limit=1)
    assert next(pages).id == UUID(JOB_ID)
    assert len(script.asked) == 1
    assert [found.id for found in pages] == [UUID(OTHER_ID)]
    assert [asked.query for asked in script.asked] == [
        {"status": "searching", "limit": "1"},
        {"status": "searching", "limit": "1", "cursor": "c1"},
    ]


def test_wait_holds_until_the_job_is_where_it_should_be(script: Script, client: Client) -> None:
    script.on("GET", JOB, Reply(job("queued")), Reply(job("searching")), Reply(job("verifying")))
    assert client.wait(JOB_ID, until={"verifying"}).status == "verifying"
    assert ["wait" in asked.query for asked in script.asked] == [False, True, True]


def test_wait_returns_an_ended_job_whatever_it_waits_for(script: Script, client: Client) -> None:
    script.on("GET", JOB, Reply(job("failed")))
    assert client.wait(JOB_ID, until="succeeded").status == "failed"


def test_wait_gives_up_in_time(script: Script, client: Client) -> None:
    script.on("GET", JOB, Reply(job("queued")))
    with pytest.raises(WaitTimeoutError, match="still queued after 0.05 s"):
        client.wait(JOB_ID, timeout=0.05)


# --- events ---------------------------------------------------------------------------------------------------


def test_a_broken_stream_is_taken_up_after_the_last_event(script: Script, client: Client) -> None:
    script.on(
        "GET",
        EVENTS,
        Reply(stream(event(1), event(2)) + "id: 3\nevent: progress\ndata: {half", cut=True),
        Reply({"title": "Starting", "status": 503, "detail": "database is being upgraded"}, 503),
        Reply(": keep-alive\n\n" + stream(event(2), event(3)), cut=True),
        Reply(stream(event(4, "phase", status="succeeded"))),
        Reply({"items": [], "next": 4}),
    )
    script.on("GET", JOB, Reply(job("succeeded")))
    assert [seen.seq for seen in client.watch(JOB_ID)] == [1, 2, 3, 4]
    streams = [asked for asked in script.asked if asked.headers["accept"] == "text/event-stream"]
    assert [asked.headers["last-event-id"] for asked in streams] == ["0", "2", "2", "3"]


def test_events_that_came_while_the_stream_closed_are_not_lost(script: Script, client: Client) -> None:
    script.on(
        "GET",
        EVENTS,
        Reply(stream(event(1))),
        Reply({"items": [event(2), event(3)], "next": 3}),
        Reply(stream()),
        Reply({"items": [], "next": 3}),
    )
    script.on("GET", JOB, Reply(job("succeeded")))
    assert [seen.seq for seen in client.watch(JOB_ID)] == [1, 2, 3]


def test_watching_a_job_that_is_not_there_is_an_error_at_once(client: Client) -> None:
    with pytest.raises(ApiError, match="404"):
        next(client.watch(JOB_ID))


def test_watching_gives_up_when_the_service_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.0)
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ConnectionFailed):
        next(client.watch(JOB_ID))


# --- results --------------------------------------------------------------------------------------------------


def test_a_front_that_has_not_changed_is_not_sent_again(script: Script, client: Client) -> None:
    script.on("GET", FRONT, Reply(front(candidate(error=0.1)), headers={"ETag": '"v1"'}), Reply("", 304))
    first = client.front(JOB_ID, "final", max={"latency_ms": 5}, min={"accuracy": 0.9})
    again = client.front(JOB_ID, "final", max={"latency_ms": 5}, min={"accuracy": 0.9})
    assert again == first and len(first.members) == 1
    assert script.asked[0].query == {"kind": "final", "max.latency_ms": "5", "min.accuracy": "0.9"}
    assert [asked.headers.get("if-none-match") for asked in script.asked] == [None, '"v1"']


def test_another_filter_does_not_reuse_an_etag(script: Script, client: Client) -> None:
    script.on("GET", FRONT, Reply(front(), headers={"ETag": '"v1"'}))
    client.front(JOB_ID, "final", max={"latency_ms": 5})
    client.front(JOB_ID, "final", max={"latency_ms": 6})
    assert "if-none-match" not in script.asked[1].headers


def test_the_front_of_several_pages_is_one(script: Script, client: Client) -> None:
    script.on("GET", FRONT, Reply(front(candidate(error=0.1), next="c1")), Reply(front(candidate(JOB_ID, error=0.2))))
    whole = client.front(JOB_ID, "final")
    assert [str(member.id) for member in whole.members] == [CANDIDATE_ID, JOB_ID]
    assert whole.next is None
    assert script.asked[1].query["cursor"] == "c1"


@pytest.mark.parametrize(("counts", "kind"), [((0, 0), "final"), ((3, 0), "search"), ((3, 1), "final")])
def test_the_final_front_is_preferred_once_it_has_members(
    script: Script, client: Client, counts: tuple[int, int], kind: str
) -> None:
    script.on("GET", JOB, Reply(job(front={"search": counts[0], "final": counts[1]})))
    script.on("GET", FRONT, Reply(front()))
    client.front(JOB_ID)
    assert script.asked[-1].query["kind"] == kind


def test_verify_posts_what_is_to_be_different(script: Script, client: Client) -> None:
    path = f"/v1/candidates/{CANDIDATE_ID}/verify"
    script.on("POST", path, Reply(job("queued"), 201))
    made = client.verify(CANDIDATE_ID, target={"channels": [16, 24]}, seed=1, idempotency_key="once")
    assert made.id == UUID(JOB_ID)
    assert json.loads(script.asked[0].body) == {"target": {"channels": [16, 24]}, "seed": 1}
    assert script.asked[0].headers["idempotency-key"] == "once"
    assert script.asked[0].headers["content-type"] == "application/json"
    client.verify(CANDIDATE_ID)
    assert json.loads(script.asked[1].body) == {}
    with pytest.raises(InvalidSpecError, match="does not fit into JSON"):
        client.verify(CANDIDATE_ID, labels={"when": object()})


def test_a_table_comes_as_it_is(script: Script, client: Client) -> None:
    path = f"{JOB}/candidates.csv"
    script.on("GET", path, Reply(b"number,id\r\n1,\xc3\xbc\r\n"))
    pieces = client.candidates_csv(JOB_ID, sort="params", stage="final", descending=True, status="verified")
    assert b"".join(pieces) == b"number,id\r\n1,\xc3\xbc\r\n"
    query = {"sort": "params", "stage": "final", "descending": "true", "status": "verified"}
    assert script.asked[0].query == query
    script.on("GET", path, Reply(b"number,id\r\n1,", cut=True))
    with pytest.raises(ConnectionFailed):
        list(client.candidates_csv(JOB_ID))
    script.on("GET", path, Reply({"title": "Unknown objective", "status": 422, "detail": "cannot sort"}, 422))
    with pytest.raises(ApiError, match="cannot sort"):
        list(client.candidates_csv(JOB_ID, sort="beauty"))


def test_pull_waits_for_a_file_that_is_being_made(script: Script, client: Client, tmp_path: Path) -> None:
    model = f"/v1/candidates/{CANDIDATE_ID}/model"
    script.on("GET", model, Reply({}, 202, {"Retry-After": "0"}), Reply(b"\x00weights"))
    path = client.pull(CANDIDATE_ID, "safetensors", tmp_path / "below" / "network.safetensors")
    assert path.read_bytes() == b"\x00weights"
    assert [found.name for found in path.parent.iterdir()] == ["network.safetensors"]


def test_a_pull_that_fails_leaves_no_file(script: Script, client: Client, tmp_path: Path) -> None:
    model = f"/v1/candidates/{CANDIDATE_ID}/model"
    script.on("GET", model, Reply({"title": "Not verified", "status": 409, "detail": "json only"}, 409))
    with pytest.raises(ApiError, match="json only"):
        client.pull(CANDIDATE_ID, "safetensors", tmp_path / "network.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_service_that_is_not_ready_says_so_without_an_error(script: Script, client: Client) -> None:
    state = {"status": "not ready", "database": "ok", "broker": "no answer", "workers": 0}
    script.on("GET", "/readyz", Reply(state, 503))
    assert client.ready().broker == "no answer"


# --- log ------------------------------------------------------------------------------------------------------


def test_a_log_is_followed_through_a_service_in_trouble(script: Script, client: Client) -> None:
    away = Reply({"title": "Database unavailable", "status": 503, "detail": "ask again"}, 503)
    script.on("GET", JOB, Reply(job()), Reply(job()), away, Reply(job("succeeded")))
    pages = [([piece(1, "a\n")], 1), ([], 1), ([piece(2, "b\n")], 2), ([], 2)]
    script.on("GET", f"{JOB}/log", *(Reply({"items": items, "next": last}) for items, last in pages))
    assert [chunk.text for chunk in client.log_pieces(JOB_ID, follow=True)] == ["a\n", "b\n"]
    assert len([asked for asked in script.asked if asked.path == JOB]) == 5


def test_a_log_that_is_not_there_is_not_waited_for(script: Script, client: Client) -> None:
    with pytest.raises(ApiError, match="404"):
        list(client.log_pieces(JOB_ID, follow=True))


# --- data sets ------------------------------------------------------------------------------------------------


def test_data_sets_are_added_listed_over_pages_and_deleted(client: Client, script: Script) -> None:
    script.on("POST", "/v1/datasets", Reply(dataset(), 201))
    made = client.add_dataset("leaves", {"name": "imagefolder", "path": "leaves"}, "of 2026")
    assert (made.name, made.images) == ("leaves", {"train": 240, "test": 60})
    assert json.loads(script.asked[-1].body) == {
        "name": "leaves",
        "dataset": {"name": "imagefolder", "path": "leaves"},
        "description": "of 2026",
    }
    pages = [{"items": [dataset("a")], "next": "more"}, {"items": [dataset("b")], "next": None}]
    script.on("GET", "/v1/datasets", *(Reply(page) for page in pages))
    assert [found.name for found in client.datasets(limit=1)] == ["a", "b"]
    assert script.asked[-1].query == {"limit": "1", "cursor": "more"}
    script.on("GET", "/v1/datasets/leaves", Reply(dataset()))
    assert [each.present for each in client.dataset("leaves").workers] == [True, False, False]
    script.on("DELETE", "/v1/datasets/a%2Fb", Reply(status=204))
    client.delete_dataset("a/b")


def test_a_data_set_that_json_cannot_hold_is_not_sent(client: Client, script: Script) -> None:
    with pytest.raises(InvalidSpecError, match="'leaves' is no valid data set: it does not fit into JSON"):
        client.add_dataset("leaves", {"name": "npz", "path": Path("leaves.npz")})
    assert not script.asked
