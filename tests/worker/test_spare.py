"""The process in reserve: real processes, handed over, found dead, left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from worker import spare
from worker.spare import Reserve, Runner
from worker.supervise import Child, Ended

pytestmark = pytest.mark.slow

SECONDS = 60.0


@pytest.fixture
def folder(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKYLINE_WORKER_NAME", "w")
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "1")
    return environment


@pytest.fixture
def reserve(folder: Path) -> Iterator[Reserve]:
    made = Reserve()
    yield made
    made.empty()


def runner(reserve: Reserve) -> Runner:
    """Its spare; made here, since pytest changes the environment between a fixture and its test."""
    if reserve._spare is None:
        reserve.fill()
    assert reserve._spare is not None
    return reserve._spare


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.02)


def end_of(child: Child) -> Ended:
    """The attempt's end: its task does not exist, which is the first thing it finds."""
    ended = child.wait(SECONDS)
    assert ended is not None
    child.close()
    assert ended.code == 1 and "NoResultFound" in child.log_path.read_text()
    return ended


def test_it_takes_one_order_and_its_output_goes_to_the_log_of_the_task(reserve: Reserve, folder: Path) -> None:
    process = psutil.Process(runner(reserve).process.pid)
    until(lambda: process.name() == "skyline-spare", "its name")
    reserve.fill()
    assert runner(reserve).process.pid == process.pid, "there is never more than one"
    child = Child(uuid4(), 1, reserve)
    assert child._runner.process.pid == process.pid
    assert reserve.take() is None, "and it has one task at most"
    assert end_of(child).cpu_seconds > 0.5, "its imports are part of what the attempt took"
    assert (folder / "logs" / "w.spare.log").read_text() == ""


def test_all_processes_of_a_worker_have_one_environment(reserve: Reserve) -> None:
    fresh = Runner(spare.environment(), runner(reserve).output)
    one, other = (psutil.Process(made.process.pid).environ() for made in (runner(reserve), fresh))
    fresh.discard()
    assert one == other and one["MALLOC_TRIM_THRESHOLD_"] == str(2**30)


def test_a_dead_one_is_not_used(reserve: Reserve) -> None:
    dead = runner(reserve).process
    dead.kill()
    until(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE, "death")
    child = Child(uuid4(), 1, reserve)
    assert child._runner.process.pid != dead.pid
    end_of(child)


def test_one_that_dies_with_the_order_in_its_hands_costs_no_attempt(reserve: Reserve) -> None:
    process = runner(reserve).process
    process.send_signal(signal.SIGSTOP)
    child = Child(uuid4(), 1, reserve)
    process.kill()
    end_of(child)
    assert child._runner.process.pid != process.pid


def test_one_that_is_asked_to_stop_before_it_took_the_order_is_not_replaced(reserve: Reserve) -> None:
    runner(reserve)
    child = Child(uuid4(), 1, reserve)
    assert child.stop().code == -signal.SIGTERM
    child.close()


def test_other_settings_or_old_age_discard_it(reserve: Reserve, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runner(reserve).process
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "2")
    reserve.fill()
    second = runner(reserve).process
    assert second.pid != first.pid and first.returncode == -signal.SIGKILL
    monkeypatch.setattr(spare, "OLD_SECONDS", 0.0)
    assert reserve.take() is None
    assert second.returncode == -signal.SIGKILL


def test_a_worker_can_be_told_to_have_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_WORKER_SPARE", "0")
    none = Reserve()
    none.fill()
    assert none.take() is None


def test_without_an_order_it_ends_well(reserve: Reserve) -> None:
    runner(reserve).close()
    assert runner(reserve).process.wait(SECONDS) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs a parent-death signal")
def test_it_dies_with_its_supervisor(folder: Path) -> None:
    program = (
        "import time; from worker.spare import Reserve; r = Reserve(); r.fill();"
        "print(r._spare.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        left = psutil.Process(int(supervisor.stdout.readline()))
        until(lambda: left.name() == "skyline-spare", "its name")
        supervisor.kill()
    until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, "death")
