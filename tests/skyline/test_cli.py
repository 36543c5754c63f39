"""The command: what it prints, what it asks for, how it exits."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from skyline.cli import COMMANDS, build, options
from skyline.cli.progress import follow
from skyline.client import Client
from tests.skyline.scripted import (
    CANDIDATE_ID,
    JOB_ID,
    OTHER_ID,
    SPEC,
    TASK_ID,
    Reply,
    Script,
    attempt,
    candidate,
    dataset,
    estimate,
    event,
    front,
    job,
    piece,
    stream,
)

JOB = f"/v1/jobs/{JOB_ID}"
SMALL = "bbbbbbbb-2222-4333-8444-555555555555"


def run(script: Script, *arguments: str, input: str | None = None) -> Result:
    environment = {"SKYLINE_URL": script.url, "COLUMNS": "160"}
    return CliRunner().invoke(build(), arguments, input=input, env=environment, prog_name="skyline")


@pytest.fixture
def jobs(script: Script) -> Script:
    """A service with two jobs; the newest one is JOB_ID."""
    listed = [job("succeeded", front={"search": 3, "final": 2}), job("searching", id=OTHER_ID)]
    script.on("GET", "/v1/jobs", Reply({"items": listed, "next": None}))
    script.on("GET", JOB, Reply(listed[0]))
    final = front(
        candidate(error=0.021, params=41322.0), candidate(SMALL, error=0.05, params=9000.0), knee=CANDIDATE_ID
    )
    final["members"][0]["test"] = {"error": 0.031, "sd": 0.008, "n": 360}
    script.on("GET", f"{JOB}/front", Reply(final, headers={"ETag": '"v1"'}))
    return script


# --- exits ----------------------------------------------------------------------------------------------------


def test_no_service_is_exit_3() -> None:
    done = CliRunner().invoke(build(), ["jobs", "--url", "http://127.0.0.1:9"], prog_name="skyline")
    assert done.exit_code == 3
    assert "skyline serve" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["front"],
        ["nonsense"],
        ["jobs", "--limit", "0"],
        ["submit", "missing.yaml"],
        ["front", "last", "--max", "latency_ms"],
    ],
)
def test_bad_usage_is_exit_2(jobs: Script, arguments: list[str]) -> None:
    done = run(jobs, *arguments)
    assert done.exit_code == 2
    assert done.stderr and done.stdout == ""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children take Ctrl-C, also where this process was started in the background and ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_exit_130() -> None:
    with socket.socket() as silent:  # takes the request and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen([sys.executable, "-m", "skyline", "jobs", "--url", url], stderr=subprocess.PIPE)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 130
    assert b"Traceback" not in said


def test_a_refused_job_is_exit_2_with_its_fields(script: Script) -> None:
    problem = {
        "title": "Invalid",
        "status": 422,
        "detail": "no",
        "errors": [{"path": "/seed", "got": -1, "expected": ">= 0"}],
    }
    script.on("POST", "/v1/jobs", Reply(problem, 422))
    done = run(script, "submit", "-", "--json", input=json.dumps(SPEC))
    assert done.exit_code == 2
    assert "seed: >= 0 (got -1)" in done.stderr and done.stdout == ""


def test_a_service_in_trouble_is_exit_3(script: Script) -> None:
    script.on(
        "GET", "/v1/catalog", Reply({"title": "No worker", "status": 503, "detail": "no worker has registered"}, 503)
    )
    done = run(script, "catalog")
    assert done.exit_code == 3
    assert "no worker has registered" in done.stderr


# --- plug-ins -------------------------------------------------------------------------------------------------


def test_the_catalog_shows_users_plug_ins_and_what_is_wrong_with_them(script: Script) -> None:
    at = "2026-01-01T00:00:00Z"
    worker = {"name": "w", "host": "h", "device": "cpu", "queues": [], "threads": 1, "memory_gb": 1.0, "versions": {}}
    worker |= {"started_at": at, "seen_at": at, "live": True}
    entry = {"kind": "objective", "name": "carbon", "summary": "CO2.", "settings": {}, "workers": {"w": {}}}
    found: dict[str, Any] = {"spaces": [], "algorithms": [], "objectives": [entry], "datasets": [], "workers": [worker]}
    script.on("GET", "/v1/catalog", Reply(found))
    assert "plug-in" not in run(script, "catalog").stdout
    plugins = [
        {"name": "carbon.py", "adds": ["objective 'carbon'"], "error": None},
        {"name": "broken.py", "adds": [], "error": "KeyError: [x]"},
    ]
    own = {**entry, "facts": {"plugin": "carbon.py"}}
    script.on("GET", "/v1/catalog", Reply({**found, "objectives": [own], "workers": [{**worker, "plugins": plugins}]}))
    printed = run(script, "catalog").stdout
    assert "plug-in carbon.py, on w" in printed
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.partition("plug-ins")[2].splitlines()]
    assert ["carbon.py", "w", "objective 'carbon'", ""] in rows and ["broken.py", "w", "", "KeyError: [x]"] in rows


def test_the_catalog_shows_presets_and_what_they_fill_in(script: Script) -> None:
    preset = {"name": "paper", "summary": "As published.", "source": "arXiv", "job": {"budget": {"epochs": 75}}}
    found = {kind: [] for kind in ("spaces", "algorithms", "objectives", "datasets", "workers")} | {"presets": [preset]}
    script.on("GET", "/v1/catalog", Reply(found))
    printed = run(script, "catalog").stdout.partition("presets")[2]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
    assert ["paper", "As published.", "budget: epochs", "arXiv"] in rows
    assert json.loads(run(script, "catalog", "--json").stdout)["presets"] == [preset]


def test_files_of_plug_ins_have_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    assert options.plugins(None) is None and options.plugins([]) is None
    assert options.plugins(["a.py, team.objectives", "./b.py"]) == f"{tmp_path}/a.py,team.objectives,{tmp_path}/b.py"


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_plug_in_that_is_not_there_is_exit_2(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(build(), [command, "--plugins", f"{tmp_path}/x.py"], prog_name="skyline")
    assert done.exit_code == 2
    assert "there is no file" in done.stderr and "--plugins" in done.stderr


# --- ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["last", "11111", JOB_ID, JOB_ID.upper()])
def test_a_job_is_found_by_what_a_user_types(jobs: Script, text: str) -> None:
    done = run(jobs, "job", text, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["id"] == JOB_ID


@pytest.mark.parametrize(("text", "message"), [("111", "stands for 2 jobs"), ("fff", "'skyline jobs' lists them")])
def test_an_id_that_is_not_one_job_is_exit_2(jobs: Script, text: str, message: str) -> None:
    done = run(jobs, "job", text)
    assert done.exit_code == 2
    assert message in done.stderr


def test_last_without_a_job_says_how_to_post_one(script: Script) -> None:
    script.on("GET", "/v1/jobs", Reply({"items": [], "next": None}))
    done = run(script, "front", "last")
    assert done.exit_code == 2
    assert "skyline submit" in done.stderr


# --- submit and watch -----------------------------------------------------------------------------------------


def test_submit_sends_the_file_with_its_overrides(script: Script, tmp_path: Path) -> None:
    script.on("POST", "/v1/jobs", Reply(job("queued"), 201))
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(SPEC))
    done = run(script, "submit", str(file), "--set", "budget.evaluations=20", "--set", "name=mine", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "queued"
    assert json.loads(script.asked[0].body) == {**SPEC, "budget": {"evaluations": 20}, "name": "mine"}


@pytest.mark.parametrize("command", ["submit", "estimate"])
def test_a_job_goes_on_from_one_as_users_name_it(jobs: Script, command: str) -> None:
    jobs.on("POST", "/v1/jobs", Reply(job("queued"), 201) if command == "submit" else Reply(estimate()))
    done = run(jobs, command, "-", "--from", "last", input='{"objectives": ["error"], "from": "another"}')
    assert done.exit_code == 0, done.stderr
    assert json.loads(jobs.asked[-1].body) == {"objectives": ["error"], "from": JOB_ID}


@pytest.mark.parametrize("command", ["submit", "estimate"])
def test_a_job_takes_a_preset_by_name(script: Script, command: str) -> None:
    script.on("POST", "/v1/jobs", Reply(job("queued"), 201) if command == "submit" else Reply(estimate()))
    done = run(script, command, "-", "--preset", "paper", input='{"objectives": ["error"], "preset": "another"}')
    assert done.exit_code == 0, done.stderr
    assert json.loads(script.asked[-1].body) == {"objectives": ["error"], "preset": "paper"}


def test_a_job_shows_what_it_goes_on_from(jobs: Script) -> None:
    other = "99999999-2222-4333-8444-555555555555"
    jobs.on("GET", JOB, Reply(job("queued", spec={**SPEC, "from": other})))
    assert f"from        the search of job {other}" in run(jobs, "job", JOB_ID).stdout
    shown = json.loads(run(jobs, "job", JOB_ID, "--json").stdout)
    assert shown["spec"]["from"] == other and "origin" not in shown["spec"]


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watch_ends_with_the_job(jobs: Script, status: str, code: int) -> None:
    ended = job(status, reason="the worker ran out of memory", front={"search": 3, "final": 2})
    jobs.on("GET", JOB, Reply(job("searching")), Reply(ended))
    jobs.on("GET", f"{JOB}/events", Reply(stream(event(1), event(2, "phase"))), Reply({"items": [], "next": 2}))
    done = run(jobs, "watch", JOB_ID)
    assert done.exit_code == code, done.stderr
    assert " 50 %  searching" in done.stdout
    assert f"{status}  front 2, best error 2.10 %" in done.stdout
    assert "41,322" in done.stdout
    assert f"11111111 {status}: the worker ran out of memory" in done.stdout


def test_watch_as_json_is_one_event_a_line(jobs: Script) -> None:
    jobs.on("GET", f"{JOB}/events", Reply(stream(event(1), event(2, loss=0.5))), Reply({"items": [], "next": 2}))
    done = run(jobs, "watch", "last", "--json")
    assert done.exit_code == 0, done.stderr
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 2]


def test_submit_and_watch_as_json_is_one_document(jobs: Script) -> None:
    jobs.on("POST", "/v1/jobs", Reply(job("queued"), 201))
    jobs.on("GET", f"{JOB}/events", Reply(stream(event(1))), Reply({"items": [], "next": 1}))
    done = run(jobs, "submit", "-", "--watch", "--json", input=json.dumps(SPEC))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "succeeded"
    assert "100 %" in done.stderr or "50 %" in done.stderr


def test_a_terminal_gets_a_bar_that_moves(script: Script) -> None:
    states = [job("searching", progress=done / 4, front={"search": 1 + done, "final": 0}) for done in range(4)]
    script.on("GET", JOB, *(Reply(state) for state in states), Reply(job("succeeded", progress=1.0)))
    script.on("GET", f"{JOB}/front", Reply(front(candidate(error=0.25), kind="search")))
    told = [parse(event(n, kind, step=n, total=48)) for n in range(1, 4) for kind in ("phase", "progress")]
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with Client(script.url) as client:
        ended = follow(client, UUID(JOB_ID), screen, told)
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert ended.status == "succeeded"
    assert "searching 3/48" in written and "best error 25.00 %" in written and "100%" in written


def test_warnings_and_dead_attempts_are_told(script: Script) -> None:
    script.on("GET", JOB, Reply(job("searching")))
    screen = Console(file=io.StringIO(), width=120)
    told = [
        parse(event(1, "warning", message="latency did not settle")),
        parse(event(2, "attempt", kind="search", end="died", number=1, exit_signal=9)),
    ]
    with Client(script.url) as client:
        follow(client, UUID(JOB_ID), screen, [*told, parse(event(3, "attempt", end="done")), None])
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "warning: latency did not settle" in lines
    assert [line for line in lines if "attempt" in line] == ["search attempt 1 ended: died (signal 9)"]


def parse(raw: dict[str, Any]) -> Any:
    from skyline.schemas import Event

    return Event.model_validate_json(json.dumps(raw))


# --- tables and files -----------------------------------------------------------------------------------------


def test_the_front_is_a_table_sorted_by_the_first_cost(jobs: Script) -> None:
    done = run(jobs, "front", "last", "--max", "params=50000", "--min", "error=0")
    assert done.exit_code == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "aaaaaaaa" in line or "bbbbbbbb" in line]
    assert "bbbbbbbb" in rows[0] and "aaaaaaaa" in rows[1]
    assert "2.10 %" in rows[1] and "41,322" in rows[1] and "3.10 ±0.80 %" in rows[1] and "knee" in rows[1]
    assert "knee" not in rows[0]
    assert "hypervolume 0.5 up to error 0.9" in done.stdout
    assert jobs.asked[-1].query == {"kind": "final", "max.params": "50000.0", "min.error": "0.0"}


def test_an_empty_front_says_so(jobs: Script) -> None:
    jobs.on("GET", f"{JOB}/front", Reply(front(hypervolume=None)))
    assert "no network yet" in run(jobs, "front", "last").stdout
    assert "no network meets these bounds" in run(jobs, "front", "last", "--max", "params=1").stdout


def infeasible(stage: str = "final") -> dict[str, Any]:
    """Two networks near to bounds on params and error."""
    near = [(CANDIDATE_ID, 0.05, 900.0, 0.8), (SMALL, 0.2, 480.0, 1.0)]
    params = {"min": None, "max": 500.0, "side": "max", "nearest": 900.0, "by": 400.0, "share": 0.8}
    error = {"min": None, "max": 0.1, "side": "max", "nearest": 0.2, "by": 0.1, "share": 1.0}
    return {
        "stage": stage,
        "nearest": [
            {"id": name, "violation": violation, "values": candidate(error=seen, params=size)["values"]}
            for name, seen, size, violation in near
        ],
        "violations": {"params": {**params, "candidate": CANDIDATE_ID}},
        "alone": {"params": {**params, "candidate": CANDIDATE_ID}, "error": {**error, "candidate": SMALL}},
    }


NEAREST = """no verified network holds the bounds; the nearest:
  aaaaaaaa  error 5.00 %, params 900
  bbbbbbbb  error 20.00 %, params 480
for aaaaaaaa would have to move:
  params: max 500 to 900, by 400 (80 % of it)
alone would do:
  error: max 10.00 % to 20.00 %, by 10.00 % (100 % of it), for bbbbbbbb
"""


def test_a_front_that_meets_no_bound_names_the_nearest_and_how_far_which_bound_would_have_to_move(
    jobs: Script,
) -> None:
    jobs.on("GET", JOB, Reply(job("succeeded", front={"search": 3, "final": 0}, infeasible=infeasible())))
    jobs.on("GET", f"{JOB}/front", Reply(front(infeasible=infeasible(), hypervolume=None)))
    done = run(jobs, "front", "last")
    assert (done.exit_code, done.stdout) == (4, NEAREST)
    assert jobs.asked[-1].query == {"kind": "final"}, "the search front stands in for a final one no longer"
    shown = run(jobs, "front", "last", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["infeasible"]) == (4, infeasible())
    only = infeasible("search")
    only["alone"] = only["violations"]
    jobs.on("GET", f"{JOB}/front", Reply(front(infeasible=only, hypervolume=None)))
    printed = run(jobs, "front", "last").stdout
    assert printed.startswith("nothing that the search found holds the bounds; the nearest:\n")
    assert "alone would do" not in printed, "that is said already"
    other = infeasible("search")
    other["violations"] = {"error": {**other["alone"]["error"], "candidate": CANDIDATE_ID}}
    jobs.on("GET", f"{JOB}/front", Reply(front(infeasible=other, hypervolume=None)))
    printed = run(jobs, "front", "last").stdout
    assert "  error: max 10.00 % to 20.00 %, by 10.00 % (100 % of it), an estimate\n" in printed
    assert "  params: max 500 to 900, by 400 (80 % of it), for aaaaaaaa\n" in printed


def test_a_job_without_a_network_says_what_came_nearest(jobs: Script) -> None:
    unmet = job("succeeded", infeasible=infeasible())
    jobs.on("GET", JOB, Reply(unmet))
    assert NEAREST in run(jobs, "job", "last").stdout
    jobs.on("GET", "/v1/jobs", Reply({"items": [unmet], "next": None}))
    assert "no network holds the bounds" in run(jobs, "jobs").stdout


def test_watching_a_job_that_ends_without_a_network_tells_the_nearest(script: Script) -> None:
    ended = job("succeeded", progress=1.0, infeasible=infeasible())
    script.on("GET", JOB, Reply(ended))
    script.on("GET", f"{JOB}/front", Reply(front(infeasible=infeasible(), hypervolume=None)))
    script.on(
        "GET",
        f"{JOB}/events",
        Reply(stream(event(1, "warning", text="no network verified holds all bounds"))),
        Reply({"items": [], "next": 1}),
    )
    done = run(script, "watch", JOB_ID)
    assert done.exit_code == 0, done.stderr
    assert "warning: no network verified holds all bounds" in done.stdout
    assert done.stdout.endswith(f"{NEAREST}job {JOB_ID[:8]} succeeded\n")


def test_a_spread_is_shown_beside_its_value(jobs: Script) -> None:
    member = candidate(error=0.1)
    member["values"]["latency_ms"] = {"value": 3.21, "unit": "ms", "kind": "measured", "iqr": 0.14}
    objectives = [{"key": "latency_ms", "unit": "ms", "direction": "minimize", "kind": "measured"}]
    jobs.on("GET", f"{JOB}/front", Reply(front(member, objectives=objectives)))
    printed = run(jobs, "front", "last").stdout
    assert "3.21 ±0.07" in printed and "latency_ms [ms]" in printed and "measured" in printed


@pytest.mark.parametrize("name", ["aaaaaaaa", CANDIDATE_ID])
def test_pull_takes_the_short_id_of_the_table(jobs: Script, tmp_path: Path, name: str) -> None:
    jobs.on("GET", f"/v1/candidates/{CANDIDATE_ID}/model", Reply(b"weights"))
    target = tmp_path / "network.safetensors"
    done = run(jobs, "pull", name, "--format", "safetensors", "-o", str(target), "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {
        "candidate": CANDIDATE_ID,
        "format": "safetensors",
        "path": str(target),
        "bytes": 7,
    }
    assert target.read_bytes() == b"weights"
    assert jobs.asked[-1].query == {"format": "safetensors"}


def test_pull_to_standard_output_is_the_file_alone(jobs: Script) -> None:
    jobs.on("GET", f"/v1/candidates/{CANDIDATE_ID}/model", Reply(b'{"genotype": 1}'))
    assert run(jobs, "pull", CANDIDATE_ID, "-o", "-").stdout_bytes == b'{"genotype": 1}'


def test_pull_where_nothing_can_be_written_is_exit_2(jobs: Script, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    jobs.on("GET", f"/v1/candidates/{CANDIDATE_ID}/model", Reply(b"weights"))
    done = run(jobs, "pull", CANDIDATE_ID, "-o", str(tmp_path / "file" / "network.json"))
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_candidates_list_values_and_failures(jobs: Script) -> None:
    failed = {**candidate(SMALL), "status": "failed", "failure": "out of memory [at epoch 3]", "values": {}}
    jobs.on("GET", f"{JOB}/candidates", Reply({"items": [candidate(error=0.1), failed], "next": None}))
    done = run(jobs, "candidates", "last", "--sort", "error", "--descending", "--status", "failed")
    assert done.exit_code == 0, done.stderr
    assert "10.00 % trained" in done.stdout and "out of memory [at epoch 3]" in done.stdout
    query = next(asked.query for asked in jobs.asked if asked.path.endswith("/candidates"))
    assert query == {"sort": "error", "descending": "true", "status": "failed", "limit": "50"}


def test_candidates_as_a_table_are_the_file_alone(jobs: Script) -> None:
    jobs.on("GET", f"{JOB}/candidates.csv", Reply(b"number,failure\r\n1,\xc3\xbc\r\n"))
    done = run(jobs, "candidates", "last", "--csv", "--sort", "error", "--status", "failed")
    assert done.exit_code == 0, done.stderr
    assert done.stdout_bytes == b"number,failure\r\n1,\xc3\xbc\r\n"
    assert jobs.asked[-1].query == {"sort": "error", "status": "failed"}
    for other in (["--json"], ["--limit", "3"]):
        refused = run(jobs, "candidates", "last", "--csv", *other)
        assert refused.exit_code == 2 and "leave out --json and --limit" in refused.stderr


def test_verify_posts_what_is_to_be_different(jobs: Script) -> None:
    path = f"/v1/candidates/{CANDIDATE_ID}/verify"
    jobs.on("POST", path, Reply(job("queued"), 201))
    done = run(jobs, "verify", CANDIDATE_ID)
    assert done.exit_code == 0, done.stderr
    assert f"job {JOB_ID} is queued" in done.stdout and "skyline watch 11111111" in done.stdout
    assert json.loads(jobs.asked[-1].body) == {}
    options = ["--dataset", "npz", "--set", "dataset.path=mine/birds.npz", "--channels", "16", "--channels", "24"]
    options += ["--cells", "14", "--epochs", "50", "--seeds", "3", "--name", "birds", "--set", "verify.lr=0.05"]
    done = run(jobs, "verify", "aaaa", *options, "--json")
    assert json.loads(done.stdout)["status"] == "queued"
    assert json.loads(jobs.asked[-1].body) == {
        "dataset": {"name": "npz", "path": "mine/birds.npz"},
        "target": {"cells": 14, "channels": [16, 24]},
        "verify": {"epochs": 50, "seeds": 3, "lr": 0.05},
        "name": "birds",
    }


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1)])
def test_verify_and_watch_ends_with_the_new_job(jobs: Script, status: str, code: int) -> None:
    jobs.on("POST", f"/v1/candidates/{CANDIDATE_ID}/verify", Reply(job("queued"), 201))
    jobs.on("GET", JOB, Reply(job("verifying")), Reply(job(status, front={"search": 0, "final": 2})))
    jobs.on("GET", f"{JOB}/events", Reply(stream(event(1))), Reply({"items": [], "next": 1}))
    done = run(jobs, "verify", CANDIDATE_ID, "--watch")
    assert done.exit_code == code, done.stderr
    assert "41,322" in done.stdout and f"11111111 {status}" in done.stdout


def test_a_verification_that_is_refused_names_its_fields(jobs: Script) -> None:
    faults = [{"path": "/target/cells", "got": 2, "expected": "at least 3"}]
    problem = {"title": "Impossible network", "status": 422, "detail": "no", "errors": faults}
    jobs.on("POST", f"/v1/candidates/{CANDIDATE_ID}/verify", Reply(problem, 422))
    done = run(jobs, "verify", CANDIDATE_ID, "--cells", "2")
    assert done.exit_code == 2 and "target.cells: at least 3 (got 2)" in done.stderr


def test_jobs_show_what_keeps_them_waiting(script: Script) -> None:
    waiting = job("queued", waiting_for="no live worker has a cuda device")
    script.on("GET", "/v1/jobs", Reply({"items": [waiting], "next": None}))
    assert "no live worker has a cuda device" in run(script, "jobs").stdout


def test_cancel_and_delete(jobs: Script) -> None:
    jobs.on("POST", f"{JOB}/cancel", Reply(job("cancelling")))
    jobs.on("DELETE", JOB, Reply("", 204))
    assert "is cancelling" in run(jobs, "cancel", "last").stdout
    assert json.loads(run(jobs, "delete", "last", "--json").stdout) == {"id": JOB_ID, "deleted": True}


# --- gate and estimate --------------------------------------------------------------------------------------------


def test_gate_prints_those_that_pass_and_the_best(jobs: Script) -> None:
    done = run(jobs, "gate", "last", "--require", "error<=10%,params<=50000")
    assert done.exit_code == 0, done.stderr
    assert "final front, version 1: 2 networks" in done.stdout
    assert done.stdout.endswith(
        "2 of 2 networks of the final front hold error<=10%, params<=50000\n"
        "the best of them, by least error: aaaaaaaa\n"
    )
    small = run(jobs, "gate", JOB_ID, "-r", "params<=10000", "-r", "error<0.1")
    assert small.exit_code == 0 and "aaaaaaaa" not in small.stdout
    assert small.stdout.endswith("the best of them, by least params: bbbbbbbb\n")


def test_gate_without_a_network_is_exit_4_with_the_nearest(jobs: Script) -> None:
    done = run(jobs, "gate", "last", "--require", "error<=2%,params<41322")
    assert done.exit_code == 4
    assert done.stdout == (
        "none of 2 networks of the final front holds error<=2%, params<41322\n"
        "the nearest is aaaaaaaa:\n"
        "  error<=2%: it has 2.10 %, which misses by 0.10 %, 5 % of the bound\n"
        "  params<41322: it has 41,322, and the bound itself does not count\n"
    )
    jobs.on("GET", f"{JOB}/front", Reply(front(candidate(error=0.021))))
    assert "  params<9: it has no value\n" in run(jobs, "gate", "last", "-r", "params<9").stdout
    jobs.on("GET", f"{JOB}/front", Reply(front()))
    empty = run(jobs, "gate", "last", "-r", "params<9")
    tried = f"'skyline candidates {JOB_ID[:8]}' lists what was tried"
    assert empty.exit_code == 4
    assert empty.stdout == f"the final front is empty ({tried}), so nothing holds params<9\n"


def test_gate_as_json_is_the_verdict_whatever_it_is(jobs: Script) -> None:
    passed = run(jobs, "gate", "last", "--require", "error<=10%", "--json")
    found = json.loads(passed.stdout)
    assert (passed.exit_code, found["passed"], found["best"]) == (0, True, CANDIDATE_ID)
    assert [member["id"] for member in found["passing"]] == [CANDIDATE_ID, SMALL]
    failed = run(jobs, "gate", "last", "--require", "error<=1%", "--json")
    found = json.loads(failed.stdout)
    assert (failed.exit_code, found["passed"], found["best"], found["nearest"]["id"]) == (4, False, None, CANDIDATE_ID)
    assert found["misses"][0]["by"] == pytest.approx(0.011) and found["misses"][0]["share"] == pytest.approx(1.1)
    assert found["requirements"] == [{"key": "error", "sign": "<=", "bound": 0.01, "text": "error<=1%"}]


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ("weight<=3", "'weight' is no objective of this job: error, params"),
        ("error=0.1", "write it as KEY<=NUMBER"),
        ("test.error<=0.1", "test values decide nothing"),
    ],
)
def test_gate_with_what_cannot_be_required_is_exit_2(jobs: Script, require: str, message: str) -> None:
    done = run(jobs, "gate", "last", "--wait", "--require", require)
    assert done.exit_code == 2
    assert message in done.stderr and done.stdout == ""
    assert run(jobs, "gate", "last").exit_code == 2, "nothing is required"


def test_gate_of_a_job_that_has_not_ended_is_exit_1(jobs: Script) -> None:
    jobs.on("GET", JOB, Reply(job("searching")))
    done = run(jobs, "gate", "last", "--require", "error<=10%")
    assert done.exit_code == 1
    assert f"error: job {JOB_ID} is searching (50 %)" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1)])
def test_gate_waits_for_the_end_when_it_is_told_to(jobs: Script, status: str, code: int) -> None:
    running, ended = job("searching"), job(status, reason="the data set is gone", front={"search": 3, "final": 2})
    jobs.on("GET", JOB, Reply(running), Reply(running), Reply(ended))
    jobs.on("GET", f"{JOB}/events", Reply(stream(event(1), event(2, "phase"))), Reply({"items": [], "next": 2}))
    done = run(jobs, "gate", JOB_ID, "--wait", "--json", "--require", "error<=10%")
    assert done.exit_code == code, done.stderr
    assert " 50 %  searching" in done.stderr, "progress goes where it disturbs no JSON"
    if code:
        assert "ended as failed: the data set is gone" in done.stderr and done.stdout == ""
        again = run(jobs, "gate", JOB_ID, "--wait", "--require", "error<=10%")
        assert again.exit_code == 1 and "%  " not in again.stderr, "what has ended is not waited for"
    else:
        assert json.loads(done.stdout)["best"] == CANDIDATE_ID


def test_estimate_is_a_table_and_counts(script: Script, tmp_path: Path) -> None:
    script.on("POST", "/v1/jobs", Reply(estimate()))
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(SPEC))
    done = run(script, "estimate", str(file), "--set", "seed=3")
    assert done.exit_code == 0, done.stderr
    assert script.asked[0].query == {"dry_run": "true"}
    assert json.loads(script.asked[0].body) == {**SPEC, "seed": 3}
    lines = [" ".join(line.replace("\u2502", " ").split()) for line in done.stdout.splitlines()]
    assert "5 8 cifar params 15,026 101,938 <= 60,000 15,026 to 60,000" in lines
    assert "5 64 cifar params 900,000 4,000,000 <= 60,000 nothing" in lines
    assert "images train 575, validation 575, select 287, test 360" in lines
    assert "search at most 48 evaluations, 96 candidates; 48 trainings, 96 epochs in all" in lines
    assert "verification at most 1 candidate; 1 training, 20 epochs in all" in lines
    assert "workers worker-1" in lines and "memory not estimated yet" in lines and "time not estimated yet" in lines
    assert lines[-1] == "the job is valid; nothing was posted"
    shown = run(script, "estimate", str(file), "--json")
    assert json.loads(shown.stdout)["targets"] == estimate()["targets"]


def test_estimate_says_what_is_not_known_and_why(script: Script) -> None:
    bound = {"min": 10.0, "max": 1e7}
    unknown = {"possible": None, "bound": bound, "left": None, "reason": "only workers know space 'mine'"}
    images = dict.fromkeys(("train", "validation", "select", "test")) | {"reason": "data set 'x' does not say"}
    search = {"evaluations": 5, "candidates": 5, "trainings": None, "epochs": None, "reason": "not published"}
    answer = estimate(
        targets=[{"cells": None, "channels": None, "stem": None, "ranges": {"params": unknown}}],
        images=images,
        search=search,
        workers=[],
        waiting_for="a worker on queue search.cuda",
    )
    script.on("POST", "/v1/jobs", Reply(answer))
    done = run(script, "estimate", "-", input=json.dumps(SPEC))
    assert done.exit_code == 0, done.stderr
    assert ">= 10 and <= 10,000,000" in done.stdout and "only workers know space 'mine'" in done.stdout
    assert "data set 'x' does not say" in done.stdout and "trainings not known: not published" in done.stdout
    assert "a worker on queue search.cuda" in done.stdout and "workers  " not in done.stdout


def test_an_estimate_of_a_job_that_will_not_do_is_exit_2_with_its_fields(script: Script) -> None:
    errors = [{"path": "/seed", "got": -1, "expected": ">= 0"}]
    script.on("POST", "/v1/jobs", Reply({"title": "Invalid", "status": 422, "detail": "no", "errors": errors}, 422))
    done = run(script, "estimate", "-", "--json", input=json.dumps(SPEC))
    assert done.exit_code == 2
    assert "seed: >= 0 (got -1)" in done.stderr and done.stdout == ""


def test_submit_names_its_request(script: Script) -> None:
    script.on("POST", "/v1/jobs", Reply(job("queued"), 200))
    done = run(script, "submit", "-", "--idempotency-key", "nightly-7", input=json.dumps(SPEC))
    assert done.exit_code == 0, done.stderr
    assert script.asked[0].headers["idempotency-key"] == "nightly-7"


# --- log and retry --------------------------------------------------------------------------------------------


def test_log_prints_the_text_of_the_service(jobs: Script) -> None:
    jobs.on("GET", JOB, Reply(job("failed", attempts=[attempt()])))
    jobs.on("GET", f"{JOB}/log", Reply("==> search, attempt 1 <==\nepoch 1 \N{SNOWMAN}\n"))
    done = run(jobs, "log", "last", "--task", "7777", "--attempt", "1")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "==> search, attempt 1 <==\nepoch 1 \N{SNOWMAN}\n"
    assert jobs.asked[-1].query == {"task": TASK_ID, "attempt": "1"}
    assert jobs.asked[-1].headers["accept"] == "text/plain"
    unknown = run(jobs, "log", "last", "--task", "8")
    assert unknown.exit_code == 2 and "no task has an id that begins with '8'" in unknown.stderr


def test_log_follows_until_the_last_attempt_has_ended(jobs: Script) -> None:
    running = job("succeeded", attempts=[attempt(ended_at=None)])
    jobs.on("GET", JOB, Reply(job()), Reply(running), Reply(running), Reply(job("succeeded", attempts=[attempt()])))
    verify = {"kind": "verify", "task": OTHER_ID, "candidate": CANDIDATE_ID}
    pages = [
        [piece(1, "epoch 1\n"), piece(2, "epoch", **verify)],
        [],
        [piece(3, " 2\n", **verify), piece(4, "end\n", attempt=2)],
        [],
    ]
    seen = (0, 2, 2, 4, 4)
    replies = [Reply({"items": items, "next": last}) for items, last in zip(pages, seen[1:], strict=True)]
    jobs.on("GET", f"{JOB}/log", *replies)
    done = run(jobs, "log", JOB_ID, "--follow")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (
        "==> search, attempt 1 (task 77777777) <==\nepoch 1\n"
        "\n==> verify, attempt 1, candidate aaaaaaaa (task 11199999) <==\nepoch 2\n"
        "\n==> search, attempt 2 (task 77777777) <==\nend\n"
    )
    assert [int(asked.query["after"]) for asked in jobs.asked if asked.path.endswith("/log")] == [0, 2, 2, 4]


def test_log_as_json_is_one_piece_a_line(jobs: Script) -> None:
    replies = [Reply({"items": [piece(5, "a\n")], "next": 5}), Reply({"items": [], "next": 5})]
    jobs.on("GET", f"{JOB}/log", *replies)
    done = run(jobs, "log", "last", "--json")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a\n"]


def test_retry_a_job_or_a_candidate(jobs: Script) -> None:
    jobs.on("POST", f"{JOB}/retry", Reply(job("queued")))
    assert "is queued" in run(jobs, "retry", "last").stdout
    assert json.loads(run(jobs, "retry", JOB_ID, "--json").stdout)["status"] == "queued"
    jobs.on("POST", f"/v1/candidates/{CANDIDATE_ID}/retry", Reply({**candidate(), "status": "evaluated"}))
    done = run(jobs, "retry", "--candidate", CANDIDATE_ID)
    assert f"{CANDIDATE_ID} is verified again" in done.stdout and "skyline watch 11111111" in done.stdout
    jobs.on("GET", f"{JOB}/candidates", Reply({"items": [candidate()], "next": None}))
    assert json.loads(run(jobs, "retry", "last", "--candidate", "aaaa", "--json").stdout)["id"] == CANDIDATE_ID
    assert run(jobs, "retry").exit_code == 2
    refused = {"title": "Not possible in this state", "status": 409, "detail": "job is succeeded and cannot be retried"}
    jobs.on("POST", f"{JOB}/retry", Reply(refused, 409))
    done = run(jobs, "retry", "last")
    assert done.exit_code == 2 and "is succeeded and cannot be retried" in done.stderr


# --- data sets ------------------------------------------------------------------------------------------------


def test_data_sets_as_a_table_and_as_json(script: Script) -> None:
    gone = dataset("old", input=None, classes=None, images=None, workers=[])
    script.on("GET", "/v1/datasets", Reply({"items": [dataset(), gone], "next": None}))
    shown = run(script, "datasets")
    assert shown.exit_code == 0, shown.stderr
    for part in ("leaves", "imagefolder leaves", "240 train + 60 test of 3x64x64", "one: present"):
        assert part in shown.stdout
    assert "two: absent. Put a folder there" in shown.stdout
    assert "gone" not in shown.stdout and "no live worker" in shown.stdout
    assert [each["name"] for each in json.loads(run(script, "datasets", "--json").stdout)] == ["leaves", "old"]
    script.on("GET", "/v1/datasets", Reply({"items": [], "next": None}))
    assert "skyline datasets add NAME" in run(script, "datasets").stdout


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--path", "leaves"], {"name": "imagefolder", "path": "leaves"}),
        (["--path", "mine/birds.npz"], {"name": "npz", "path": "mine/birds.npz"}),
        (["--dataset", "digits"], {"name": "digits"}),
        (
            ["--path", "x", "--set", "size=32", "--set", "flip=true"],
            {"name": "imagefolder", "path": "x", "size": 32, "flip": True},
        ),
    ],
)
def test_a_data_set_is_added(script: Script, arguments: list[str], chosen: dict[str, Any]) -> None:
    script.on("POST", "/v1/datasets", Reply(dataset(), 201))
    done = run(script, "datasets", "add", "leaves", *arguments)
    assert done.exit_code == 0, done.stderr
    assert json.loads(script.asked[-1].body) == {"name": "leaves", "dataset": chosen, "description": ""}
    assert "data set leaves: 240 train + 60 test of 3x64x64, 6 classes" in done.stdout
    assert "dataset: {name: leaves}" in done.stdout
    shown = run(script, "datasets", "add", "leaves", *arguments, "--json")
    assert json.loads(shown.stdout)["classes"] == 6


def test_one_that_is_fetched_later_says_so(script: Script) -> None:
    script.on("POST", "/v1/datasets", Reply(dataset(input=None, classes=None, images=None), 201))
    assert "data set leaves: fetched at its first use\n" in run(script, "datasets", "add", "leaves").stdout


@pytest.mark.parametrize(("setting", "message"), [("size", "write it as --set size=64"), ("size=[", "--set size=[")])
def test_what_is_no_setting_is_exit_2(script: Script, setting: str, message: str) -> None:
    done = run(script, "datasets", "add", "leaves", "--set", setting)
    assert done.exit_code == 2 and message in done.stderr and not script.asked


def test_a_data_set_is_removed(script: Script) -> None:
    script.on("DELETE", "/v1/datasets/leaves", Reply(status=204))
    assert "leaves is removed; its images stay" in run(script, "datasets", "remove", "leaves").stdout
    assert json.loads(run(script, "datasets", "remove", "leaves", "--json").stdout) == {
        "name": "leaves",
        "deleted": True,
    }
    done = run(script, "datasets", "remove", "oaks")
    assert done.exit_code == 2 and "404" in done.stderr


def test_options_may_stand_before_or_after_the_subcommand(script: Script) -> None:
    script.on("DELETE", "/v1/datasets/leaves", Reply(status=204))
    where = ["--url", script.url, "--api-key", "skl_x"]
    for arguments in (
        ["datasets", *where, "--json", "remove", "leaves"],
        ["datasets", "remove", "leaves", *where, "--json"],
        ["datasets", "--url", "http://127.0.0.1:9", "remove", "leaves", *where, "--json"],
    ):
        elsewhere = {"SKYLINE_URL": "http://127.0.0.1:9", "COLUMNS": "160"}
        done = CliRunner().invoke(build(), arguments, env=elsewhere, prog_name="skyline")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["deleted"]
        assert script.asked[-1].headers["authorization"] == "Bearer skl_x"


def test_a_job_is_shown_with_the_name_that_it_asked_for(script: Script) -> None:
    named = {**SPEC, "dataset": {"name": "imagefolder", "path": "leaves", "registered": "leaves"}}
    script.on("GET", JOB, Reply(job(spec=named)))
    assert "darts on leaves by random" in run(script, "job", JOB_ID).stdout


def test_tables_show_the_first_line_of_a_reason(script: Script) -> None:
    failed = job("failed", reason="the search died 3 times\nTraceback\nValueError: no", attempts=[attempt()])
    script.on("GET", "/v1/jobs", Reply({"items": [failed], "next": None}))
    script.on("GET", JOB, Reply(failed))
    listed, shown = run(script, "jobs").stdout, run(script, "job", "last").stdout
    assert "the search died 3 times" in listed and "ValueError" not in listed
    assert "ValueError: no" in shown and "task 77777777" in shown


def test_every_command_has_json_and_says_what_it_does() -> None:
    for command in COMMANDS:
        shown = CliRunner().invoke(build(), [command.__name__, "--help"], env={"COLUMNS": "120"})
        assert shown.exit_code == 0
        assert "--json" in shown.stdout and (command.__doc__ or "").split(";")[0][:30] in shown.stdout
    tables = [["tables", *subcommand] for subcommand in ([], ["add"], ["list"], ["show"], ["delete"])]
    for command in (["datasets"], ["datasets", "add"], ["datasets", "remove"], *tables):
        shown = CliRunner().invoke(build(), [*command, "--help"], env={"COLUMNS": "120"})
        assert shown.exit_code == 0 and "--json" in shown.stdout


# --- devices --------------------------------------------------------------------------------------------------


def device(name: str = "pi", **changes: Any) -> dict[str, Any]:
    seen = {"space": "darts", "cells": 8, "channels": 16, "input": [3, 32, 32], "classes": 10, "n": 40}
    return {
        "name": name,
        "sha256": "a" * 64,
        "created_at": "2026-01-01T00:00:00Z",
        "device": "cpu:Cortex-A72",
        "protocol": {"batch": 1, "threads": 4, "dtype": "float32", "runtime": "torch 2.13.0"},
        "parts": 41,
        "predicts": ["latency_ms"],
        "power_w": None,
        "latency_validation": [{**seen, "tau": 0.912, "mape": 3.21, "tau_repeat": 0.954}],
        "energy_validation": [],
        "measured_at": None,
        "notes": "",
        **changes,
    }


def test_devices_as_a_table_and_as_json(script: Script) -> None:
    untried = device("toaster", latency_validation=[], predicts=["latency_ms", "energy_mj"])
    script.on("GET", "/v1/devices", Reply({"items": [device(), untried], "next": None}))
    shown = run(script, "devices")
    assert shown.exit_code == 0, shown.stderr
    flat = " ".join(shown.stdout.replace("│", " ").split())
    assert "pi" in flat and "cpu:Cortex-A72" in flat
    assert "latency, darts: 0.91 (0.95), 3.2 %" in flat and "unknown" in flat
    assert [each["name"] for each in json.loads(run(script, "devices", "--json").stdout)] == ["pi", "toaster"]
    script.on("GET", "/v1/devices", Reply({"items": [], "next": None}))
    assert "skyline device profile" in run(script, "devices").stdout


def test_a_device_is_added_shown_and_removed(script: Script, tmp_path: Path) -> None:
    file = tmp_path / "pi.yaml"
    file.write_text("name: pi\nparts: [{op: add, inputs: 2, outputs: 2, size: [8, 8], ms: 1e-3}]\n")
    script.on("GET", "/v1/devices", Reply({"items": [], "next": None}))
    script.on("POST", "/v1/devices", Reply(device(), 201))
    done = run(script, "devices", "add", str(file))
    assert done.exit_code == 0, done.stderr
    assert json.loads(script.asked[-1].body)["parts"][0]["ms"] == 0.001
    assert (
        "device pi: 41 parts; latency of 40 held-out networks of darts: tau 0.91 (measured twice: 0.95)" in done.stdout
    )
    assert "{name: latency_ms, device: pi}" in done.stdout
    whole = {**device(power_w=4.2), "profile": {"name": "pi", "parts": []}}
    script.on("GET", "/v1/devices/pi", Reply(whole))
    shown = run(script, "devices", "show", "pi").stdout
    assert "batch 1, 4 threads, float32, torch 2.13.0" in shown and "4.2 W busy" in shown
    assert json.loads(run(script, "devices", "show", "pi", "--json").stdout) == whole["profile"]
    script.on("DELETE", "/v1/devices/pi", Reply(status=204))
    assert "pi is removed; jobs that named it go on" in run(script, "devices", "remove", "pi").stdout
    done = run(script, "devices", "remove", "moon")
    assert done.exit_code == 2 and "404" in done.stderr
    missing = run(script, "devices", "add", str(tmp_path / "none.json"))
    assert missing.exit_code == 2 and "none.json is no valid profile: it cannot be read" in missing.stderr


def test_a_profile_that_is_replaced_is_named(script: Script, tmp_path: Path) -> None:
    file = tmp_path / "pi.yaml"
    file.write_text("name: pi\n")
    script.on("GET", "/v1/devices", Reply({"items": [device("a"), device(sha256="b" * 64)], "next": None}))
    script.on("POST", "/v1/devices", Reply(device(), 200))
    done = run(script, "devices", "add", str(file))
    assert "replaced the profile of 'pi' (bbbbbbbbbbbb, cpu:Cortex-A72); jobs that were posted with it" in done.stdout
    script.on("GET", "/v1/devices", Reply({"items": [device()], "next": None}))
    same = run(script, "devices", "add", str(file))
    assert same.exit_code == 0 and "replaced" not in same.stdout


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is empty; a mapping such as 'name: ...', 'device: ...', 'parts: ...' is needed"),
        ("- a", "it holds a list; a mapping such as 'name: ...'"),
        ("{", "line 1, column 2: "),
    ],
)
def test_a_broken_profile_is_called_one(script: Script, tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "pi.json"
    file.write_text(content)
    done = run(script, "devices", "add", str(file))
    assert done.exit_code == 2 and "is no valid profile: " + why in " ".join(done.stderr.split())
