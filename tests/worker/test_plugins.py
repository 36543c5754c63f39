"""Plug-ins of a worker: named by the environment, described by a process that they may hang or end, and seen anew."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch

from nas_core.objectives import objectives
from nas_core.plugins import REGISTRIES
from nas_core.presets import presets
from skyline.schemas import JobSpec
from store import catalog, jobs, tasks
from store.models import Event, Task
from store.session import reading, unit_of_work
from worker import inspection, keeper, loading, plugins
from worker.__main__ import prepare
from worker.attempt import Attempt
from worker.catalog import publication as described
from worker.control import StopFlag
from worker.identity import Identity
from worker.quiet import Room

GOOD = """
from typing import ClassVar
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value

print("a plug-in may print")

@objectives.register("{name}")
@settings
class Good:
    '''As good as it gets.'''
    unit: ClassVar[str] = "g"
    direction: ClassVar[str] = "minimize"
    source: ClassVar[str] = "measured"
    factor: float = 1.0
    '''Times one.'''
    def measure(self, architectures, device):
        return [Value(1.0, self.unit, "measured") for _ in architectures]
"""
BIRDS = """
import os, time
from nas_core.datasets import Presence, datasets
from nas_core.settings import settings

@datasets.register("birds")
@settings
class Birds:
    facts = {"input": [1, 8, 8], "classes": 2}
    @classmethod
    def presence(cls, root):
        DO
    def splits(self, root, seed, fraction=1.0, progress=None): ...
"""


@pytest.fixture
def folder(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SKYLINE_WORKER_NAME", "w")
    before = {registry.what: dict(registry) for registry in REGISTRIES}
    yield environment
    for registry in REGISTRIES:
        registry.restore(before[registry.what])


def want(patch: pytest.MonkeyPatch, folder: Path, **files: str) -> dict[str, Path]:
    """Writes plug-ins and names them to the worker, in this order."""
    paths = {name: folder / f"{name}.py" for name in files}
    for name, text in files.items():
        paths[name].write_text(text, encoding="utf-8")
    patch.setenv(plugins.VARIABLE, ",".join(map(str, paths.values())))
    return paths


def reported(publication: dict[str, Any]) -> dict[str, tuple[list[str], str | None]]:
    entries = [entry for entry in publication["entries"] if entry["kind"] == "plugin"]
    return {entry["name"]: (entry["workers"]["w"]["adds"], entry["workers"]["w"]["error"]) for entry in entries}


def test_the_environment_names_files_and_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    assert plugins.wanted() == [] and plugins.state() == ()
    monkeypatch.setenv(plugins.VARIABLE, f" a.py, team.objectives{os.pathsep}/b/c.py,,")
    assert plugins.wanted() == ["a.py", "team.objectives", "/b/c.py"]


def test_an_edited_file_is_another_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = want(monkeypatch, tmp_path, mine="a = 1")["mine"]
    states = [plugins.state()]
    path.write_text("a = 12")
    states.append(plugins.state())
    path.unlink()
    states.append(plugins.state())
    assert len(set(states)) == 3 and plugins.state() == states[-1]


def test_options_win_over_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NAME", "DEVICE", "THREADS", "QUEUES"):
        monkeypatch.setenv(f"SKYLINE_WORKER_{name}", "")  # put back afterwards, whatever is set meanwhile
    monkeypatch.setenv(plugins.VARIABLE, "/a.py")
    prepare(["--name", "w"])
    assert plugins.wanted() == ["/a.py"]
    prepare(["--name", "w", "--plugins", "/b.py,/c.py", "--plugins", "team"])
    assert plugins.wanted() == ["/b.py", "/c.py", "team"]


# --- the process that describes ---------------------------------------------------------------------------------------


def test_presets_are_published_ours_and_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from nas_core.presets import presets\n@presets.register('ours')\nclass Ours:\n    '''As we do.'''\n"
    want(monkeypatch, folder, mine=f"{text}    source, job = 'us', {{'verify': {{'epochs': 3}}}}\n")
    found = {entry.name: entry for entry in described().entries if entry.kind == "preset"}
    assert set(found) == {*presets, "ours"} and found["paper-cifar10"].facts["job"] == presets["paper-cifar10"].job
    ours = {"source": "us", "job": {"verify": {"epochs": 3}}, "plugin": "mine.py"}
    assert (found["ours"].summary, found["ours"].facts, found["ours"].settings) == ("As we do.", ours, {})


@pytest.mark.slow
def test_whatever_plug_ins_do_the_host_is_described(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "PLUGIN_SECONDS", 2.0)
    hang = "import time\nwhile True:\n    time.sleep(60)\n"
    want(
        monkeypatch,
        folder,
        prints=GOOD.format(name="prints")
        + "import os\nos.write(1, b'{\"plugin\": null}\\n')\nos.system('echo more')\n",
        hangs=hang,
        ends="import os\nos._exit(0)\n",
        crashes="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        exits="import sys\nsys.exit(1)\n",
        asks="input()\n",
        stays=GOOD.format(name="stays")
        + "import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n",
        looks=GOOD.format(name="looks") + BIRDS.replace("DO", "return 1 / 0"),
        last=GOOD.format(name="last"),
    )
    publication = inspection.inspect_host()
    assert reported(publication) == {
        "prints.py": (["objective 'prints'"], None),
        "hangs.py": ([], "the process that loaded it did not end within 2 s"),
        "ends.py": ([], "the process that loaded it ended with code 0"),
        "crashes.py": ([], "the process that loaded it was killed by SIGSEGV"),
        "exits.py": ([], "SystemExit: 1 (line 2)"),
        "asks.py": ([], "EOFError: EOF when reading a line (line 1)"),
        "stays.py": (["objective 'stays'"], None),
        "looks.py": (["objective 'looks'"], "data set 'birds': ZeroDivisionError: division by zero (line 31)"),
        "last.py": (["objective 'last'"], None),
    }
    by_name = {(entry["kind"], entry["name"]): entry for entry in publication["entries"]}
    assert {"darts", "nsga2", "digits", "latency_ms"} < {name for _, name in by_name}
    assert ("dataset", "birds") not in by_name
    last = by_name["objective", "last"]
    assert last["facts"] == {"unit": "g", "direction": "minimize", "source": "measured", "plugin": "last.py"}
    assert last["summary"] == "As good as it gets." and "factor" in last["settings"]["properties"]
    assert "plugin" not in by_name["objective", "error"]["facts"]
    flops = by_name["objective", "flops"]["facts"]
    assert (flops["resource"], flops["scale"]) == ("macs", 2)
    remarks = [*plugins.remarks(publication)]
    assert "plug-in 'last.py' adds objective 'last'" in remarks
    assert "warning: plug-in 'exits.py' cannot be used: SystemExit: 1 (line 2)" in remarks


@pytest.mark.slow
def test_a_process_that_fails_by_itself_is_no_plug_ins_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**inspection.environment(), "SKYLINE_WORKER_THREADS": "many"}
    monkeypatch.setattr(inspection, "environment", lambda: environment)
    with pytest.raises(RuntimeError, match=r"(?s)python -m worker\.catalog ended with code 1; it printed:.*'many'"):
        inspection.inspect_host()


# --- the keeper -------------------------------------------------------------------------------------------------------


def publication(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"entries": [*entries], "device": "cpu", "threads": 1, "memory_gb": 1.0, "versions": {}}


def plugin_entry(name: str, *adds: str, error: str | None = None) -> dict[str, Any]:
    part = {"w": {"adds": [*adds], "error": error}}
    return {"kind": "plugin", "name": name, "summary": "", "settings": {}, "facts": {}, "workers": part}


def names_published() -> set[str]:
    with reading() as session:
        return {entry["name"] for entry in catalog.entries(session)}


def test_a_look_that_takes_long_does_not_stop_the_heartbeat(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(identity: Identity) -> dict[str, Any]:
        assert go.wait(60)
        return publication(plugin_entry("late.py", "objective 'late'"))

    monkeypatch.setattr(keeper, "publication_of", lambda identity: publication(plugin_entry("early.py")))
    path = want(monkeypatch, folder, mine="a = 1")["mine"]
    keeping = keeper.Keeper()
    keeping._round()
    assert names_published() == {"early.py"}
    monkeypatch.setattr(keeper, "publication_of", slow)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.0)
    path.write_text("a = 12")
    before = seen_at()
    keeping._round()
    keeping._round()
    assert names_published() == {"early.py"} and seen_at() > before
    go.set()
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 60.0)
    keeping._round()
    assert names_published() == {"late.py"}


def seen_at() -> Any:
    with reading() as session:
        ((worker, live),) = catalog.workers(session)
        assert live
        return worker.seen_at


def test_the_log_tells_what_became_of_them_and_only_news(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = plugin_entry("good.py", "objective 'good'"), plugin_entry("bad.py", error="KeyError: 'x'")
    keeping = keeper.Keeper()
    keeping._publish(publication(good, bad))
    assert capsys.readouterr().err.splitlines() == [
        "plug-in 'good.py' adds objective 'good'",
        "warning: plug-in 'bad.py' cannot be used: KeyError: 'x'",
    ]
    keeping._publish(publication(good, plugin_entry("bad.py", "space 'bad'")))
    assert capsys.readouterr().err.splitlines() == ["plug-in 'bad.py' adds space 'bad'"]


def test_a_look_that_fails_is_had_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping = keeper.Keeper()

    def fails(identity: Identity) -> dict[str, Any]:
        raise RuntimeError("no room")

    monkeypatch.setattr(keeper, "publication_of", fails)
    with pytest.raises(RuntimeError, match="no room"):
        keeping._round()
    monkeypatch.setattr(keeper, "publication_of", lambda identity: publication(plugin_entry("mine.py")))
    keeping._round()
    assert names_published() == {"mine.py"}


def test_one_who_drains_publishes_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "publication_of", lambda identity: publication(plugin_entry("mine.py")))
    keeping = keeper.Keeper()
    keeping._round()
    keeping.drain()
    want(monkeypatch, folder, mine="a = 1")
    keeping._round()
    with reading() as session:
        assert catalog.is_draining(session, "w"), "a publication would have taken it back"


# --- the process that runs --------------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "space": {"name": "darts"},
    "algorithm": {"name": "random"},
    "dataset": {"name": "digits"},
    "objectives": ["error", "good"],
}


def published(*parts: tuple[str, str, str | None]) -> None:
    entries = [
        {
            "kind": kind,
            "name": name,
            "summary": "",
            "settings": {},
            "facts": {} if plugin is None else {"plugin": plugin},
            "workers": {},
        }
        for kind, name, plugin in parts
    ]
    with unit_of_work() as session:
        catalog.publish(session, {"name": "w", "host": "here", "queues": ["search.cpu"]}, publication(*entries))


OURS = [
    ("space", "darts", None),
    ("algorithm", "random", None),
    ("dataset", "digits", None),
    ("objective", "error", None),
]


@pytest.fixture
def attempt(folder: Path) -> Attempt:
    """Of a search that names the objective ``good``."""
    published(*OURS, ("objective", "good", "mine.py"))
    spec = JobSpec.model_validate(SPEC)
    with unit_of_work() as session:
        job = jobs.create(session, spec.model_dump(mode="json"), "", {})
        task = session.query(Task).filter_by(job_id=job.id).one()
        claimed = tasks.claim(session, task.id, "w", "cpu", 1, 60, 3)
    assert claimed is not None
    flag = object.__new__(StopFlag)  # without the signal's handler
    return Attempt(
        claimed.task_id, claimed.fence, job.id, None, spec, {}, torch.device("cpu"), flag, Room(folder / "quiet")
    )


def warnings(job_id: UUID) -> list[str]:
    with reading() as session:
        rows = session.query(Event).filter_by(job_id=job_id, type="warning").all()
        return [row.data["text"] for row in rows]


def test_what_the_job_names_is_loaded_and_no_more(
    attempt: Attempt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "raise AssertionError('nobody needs it')"
    want(monkeypatch, folder, first=other, mine=GOOD.format(name="good"), last=other)
    assert loading.provide(attempt, "export.onnx") and "good" not in objectives, "it needs nothing"
    assert loading.provide(attempt, "search")
    assert "good" in objectives and warnings(attempt.job_id) == []


def test_what_the_catalog_does_not_know_yet_is_looked_for(
    attempt: Attempt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(*OURS)
    want(monkeypatch, folder, broken="1 / 0", mine=GOOD.format(name="good"))
    assert loading.provide(attempt, "search") and "good" in objectives


def test_what_was_of_no_use_to_the_catalog_is_not_run_here(
    attempt: Attempt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(monkeypatch, folder, hangs="import threading; threading.Event().wait()", mine="1 / 0")
    reports = [plugin_entry("hangs.py", error="did not end within 60 s"), plugin_entry("mine.py", "objective 'good'")]
    good = {"kind": "objective", "name": "good", "facts": {"plugin": "mine.py"}, "workers": {}}
    with unit_of_work() as session:
        entries = [*reports, {"summary": "", "settings": {}, **good}]
        catalog.publish(session, {"name": "w", "host": "here", "queues": ["search.cpu"]}, publication(*entries))
    assert not loading.provide(attempt, "search")
    (said,) = warnings(attempt.job_id)
    assert "plug-in 'mine.py' cannot be used: ZeroDivisionError" in said
    assert "plug-in 'hangs.py' cannot be used: did not end within 60 s" in said


def test_where_it_cannot_be_loaded_the_task_is_left_to_others(
    attempt: Attempt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(monkeypatch, folder, mine="1 / 0")
    assert not loading.provide(attempt, "search")
    assert warnings(attempt.job_id) == [
        "worker w leaves this to others: it has no objective 'good' "
        "(plug-in 'mine.py' cannot be used: ZeroDivisionError: division by zero (line 1))"
    ]
    with unit_of_work() as session:
        assert catalog.lacking(session, ["w"], [("objective", "good"), ("objective", "error")]) == {
            "w": [("objective", "good")]
        }
        assert tasks.end(session, attempt.task_id, attempt.fence, status="queued", end="drained")
        assert tasks.claim(session, attempt.task_id, "w", "cpu", 1, 60, 3) is None
        assert "w has no objective 'good'" in (jobs.waiting_for(session, jobs.get(session, attempt.job_id)) or "")
