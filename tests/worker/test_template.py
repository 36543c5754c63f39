"""The process that attempts are made from: real processes, forked, found dead, left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.waiting import until
from worker.child import FORKS
from worker.supervise import Child
from worker.template import Ended, Reserve, Template, environment

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


def template(reserve: Reserve) -> Template:
    """Its template; made here, since pytest changes the environment between a fixture and its test."""
    if reserve._template is None:
        reserve.fill()
    assert reserve._template is not None
    return reserve._template


def end_of(child: Child) -> Ended:
    """The attempt's end: its task does not exist, which is the first thing it finds."""
    ended = child.wait(SECONDS)
    assert ended is not None
    child.close()
    assert ended.code == 1 and "NoResultFound" in child.log_path.read_text()
    return ended


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def test_it_makes_one_attempt_after_another_and_their_output_goes_to_the_logs_of_the_tasks(
    reserve: Reserve, folder: Path
) -> None:
    process = psutil.Process(template(reserve).process.pid)
    until("its name", lambda: process.name() == "skyline-spare", SECONDS)
    reserve.fill()
    assert template(reserve).process.pid == process.pid, "there is never more than one"
    pids = set()
    for _ in range(2):
        child = Child(uuid4(), 1, reserve)
        ended = end_of(child)
        assert child.making.template.process.pid == process.pid
        assert 0 < ended.cpu_seconds < 60 and ended.peak_memory_mb > 50
        pids.add(child.making.pid)
    assert len(pids) == 2 and process.pid not in pids and None not in pids
    if FORKS:  # it has computed nothing that a fork would break
        assert process.num_threads() <= (os.cpu_count() or 1), "OpenBLAS starts its own at import; PyTorch's come later"
        libraries = {Path(part.path).name for part in process.memory_maps()}
        assert any("torch_cpu" in name for name in libraries) and not any("libcuda.so" in name for name in libraries)
    made = template(reserve)
    made._line.end.close()
    until("its end", lambda: made.poll() is not None, SECONDS)
    assert made.ended is not None and made.ended.code == 0, "without an order it ends well"
    assert (folder / "logs" / "w.spare.log").read_text() == ""


def test_all_processes_of_a_worker_have_one_environment(reserve: Reserve) -> None:
    fresh = Template(environment(), template(reserve).output)
    processes = [psutil.Process(made.process.pid) for made in (template(reserve), fresh)]
    until(
        "an environment: none is seen in the midst of exec",
        lambda: all(process.environ() for process in processes),
        SECONDS,
    )
    one, other = (process.environ() for process in processes)
    fresh.discard()
    assert one == other and one["MALLOC_TRIM_THRESHOLD_"] == str(2**30)


def test_a_dead_one_is_not_used(reserve: Reserve) -> None:
    dead = template(reserve).process
    dead.kill()
    until("death", lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE, SECONDS)
    child = Child(uuid4(), 1, reserve)
    assert child.making.template.process.pid != dead.pid
    end_of(child)


def test_one_that_dies_with_the_order_in_its_hands_costs_no_attempt(reserve: Reserve) -> None:
    process = template(reserve).process
    process.send_signal(signal.SIGSTOP)
    child = Child(uuid4(), 1, reserve)
    process.kill()
    end_of(child)
    assert child.making.template.process.pid != process.pid


def test_one_that_cannot_import_leaves_its_last_words_in_the_log_of_the_attempt(
    reserve: Reserve, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('a broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child(uuid4(), 1, reserve)
    ended = child.wait(SECONDS)
    child.close()
    assert ended is not None and ended.code == 1
    assert "a broken installation" in child.log_path.read_text()


def test_one_that_is_asked_to_stop_before_it_took_the_order_is_not_replaced(reserve: Reserve) -> None:
    process = template(reserve).process
    process.send_signal(signal.SIGSTOP)
    child = Child(uuid4(), 1, reserve)
    child.making.template.signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert child.stop().code == -signal.SIGTERM
    assert child.making.template.process.pid == process.pid
    child.close()


@pytest.mark.skipif(not FORKS, reason="attempts are forked on Linux alone")
def test_an_attempt_has_a_group_of_its_own_and_dies_with_its_template(reserve: Reserve) -> None:
    child = Child(uuid4(), 1, reserve)
    process = child.making.template.process
    until("the attempt", lambda: child.making.poll() is not None or child.making.pid is not None, SECONDS)
    assert child.making.pid is not None
    own = psutil.Process(child.making.pid)
    own.suspend()
    assert os.getpgid(own.pid) == own.pid != os.getpgid(process.pid)
    process.kill()
    until("death", lambda: name_of(own) == "" or own.status() == psutil.STATUS_ZOMBIE, SECONDS)
    child.stop()
    child.close()


@pytest.mark.skipif(not FORKS, reason="attempts are forked on Linux alone")
def test_a_template_that_does_not_answer_is_killed_with_its_attempt(reserve: Reserve) -> None:
    child = Child(uuid4(), 1, reserve)
    until("the attempt", lambda: child.making.poll() is not None or child.making.pid is not None, SECONDS)
    assert child.making.pid is not None
    psutil.Process(child.making.pid).suspend()
    child.making.template.process.send_signal(signal.SIGSTOP)
    ended = child.stop()
    assert (ended.code, ended.cpu_seconds) == (-signal.SIGKILL, None), "its account is not the template's"
    child.close()


@pytest.mark.skipif(not FORKS, reason="attempts are forked on Linux alone")
def test_an_order_that_is_not_taken_goes_to_another_template(reserve: Reserve, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = template(reserve).process
    until("its name", lambda: psutil.Process(stopped.pid).name() == "skyline-spare", SECONDS)
    stopped.send_signal(signal.SIGSTOP)
    child = Child(uuid4(), 1, reserve)
    monkeypatch.setattr("worker.supervise.ORDER_SECONDS", 0.2)
    until("another", lambda: child.wait(0.1) is not None or child.making.template.process.pid != stopped.pid, SECONDS)
    monkeypatch.setattr("worker.supervise.ORDER_SECONDS", SECONDS)
    end_of(child)
    assert child.making.template.process.pid != stopped.pid


def at_fork(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs ``what`` in every attempt, a moment after its beginning."""
    text = "import os, subprocess, sys, threading\nif 'worker.child' in sys.orig_argv:\n    "
    text += f"os.register_at_fork(after_in_child=lambda: threading.Timer(0.02, lambda: {what}).start())\n"
    (folder / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))


@pytest.mark.skipif(not FORKS, reason="attempts are forked on Linux alone")
def test_what_an_attempt_leaves_behind_ends_with_it(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    at_fork(tmp_path, f"open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))", monkeypatch)
    end_of(Child(uuid4(), 1, reserve))
    left = psutil.Process(int(note.read_text())) if note.read_text() else None
    until("its death", lambda: left is None or name_of(left) == "" or left.status() == psutil.STATUS_ZOMBIE, SECONDS)
    assert left is not None


@pytest.mark.skipif(not FORKS, reason="attempts are forked on Linux alone")
def test_an_exit_that_the_attempt_did_not_tell_is_a_death(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever a plug-in makes of its process."""
    told = tmp_path / "code"
    at_fork(tmp_path, f"os._exit(int(open({str(told)!r}).read()))", monkeypatch)
    for code in (0, 70, 75, 76):
        told.write_text(str(code))
        child = Child(uuid4(), 1, reserve)
        ended = child.wait(SECONDS)
        child.close()
        assert ended is not None and ended.code == 1, code


def test_other_settings_or_old_age_discard_it(reserve: Reserve, monkeypatch: pytest.MonkeyPatch) -> None:
    first = template(reserve).process
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "2")
    reserve.fill()
    second = template(reserve).process
    assert second.pid != first.pid and first.returncode == -signal.SIGKILL
    monkeypatch.setattr("worker.template.OLD_SECONDS", 0.0)
    third, waited = reserve.take()
    assert second.returncode == -signal.SIGKILL and third.process.pid != second.pid and not waited


def test_a_worker_can_be_told_to_keep_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYLINE_WORKER_SPARE", "0")
    none = Reserve()
    none.fill()
    assert none._template is None
    made, waited = none.take()
    assert not waited
    none.fill()
    assert none._template is None and made.process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="needs a parent-death signal")
def test_it_dies_with_its_supervisor(folder: Path) -> None:
    program = (
        "import time; from worker.template import Reserve; r = Reserve(); r.fill();"
        "print(r._template.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        left = psutil.Process(int(supervisor.stdout.readline()))
        until("its name", lambda: left.name() == "skyline-spare", SECONDS)
        supervisor.kill()
    until("death", lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, SECONDS)
