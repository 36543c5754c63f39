"""Cores are shared by the workers of a host."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from store import catalog
from store.session import unit_of_work
from worker import threads
from worker.__main__ import prepare
from worker.identity import Identity

OPTIONS = ["--name", "mine"]


@pytest.fixture
def start(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Prepares a worker on a host of eight cores and returns its threads."""
    monkeypatch.setattr(threads, "cores", lambda: 8)
    for name in ("NAME", "DEVICE", "THREADS", "QUEUES"):
        monkeypatch.setenv(f"SKYLINE_WORKER_{name}", "")  # put back afterwards, whatever is set meanwhile

    def prepared(*options: str) -> int:
        prepare([*OPTIONS, *options])
        return Identity().threads

    return prepared


def register(name: str, used: int, host: str | None = None) -> None:
    published = {"entries": [], "device": "cpu", "threads": used, "memory_gb": 1.0, "versions": {}}
    with unit_of_work() as session:
        worker = {"name": name, "host": host or socket.gethostname(), "queues": ["search.cpu"]}
        catalog.publish(session, worker, published)


def test_alone_on_its_host_it_has_all_cores(start: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    register("mine", 8)  # itself, before it was started again
    assert start() == 8
    assert capsys.readouterr().err == ""


def test_beside_others_it_has_its_share(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register("one", 4)
    assert start() == 4
    assert capsys.readouterr().err == ""
    register("two", 8)
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "")  # another process
    assert start("--name", "third") == 2
    said = capsys.readouterr().err
    assert said.startswith("warning: 14 threads on 8 cores: 2 here, beside one (4), two (8);")
    assert "Start each with --slots 3, which is 2 threads" in said


def test_what_is_said_counts(start: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert start("--slots", "3") == 2
    assert start("--slots", "30") == 1
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "5")
    assert start() == 5
    assert start("--threads", "7") == 7
    monkeypatch.setenv("SKYLINE_WORKER_THREADS", "5")
    assert start("--slots", "2") == 4


def test_nonsense_is_refused(start: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--threads", "0"], ["--slots", "x"], ["--slots", "1", "--threads", "1"]):
        with pytest.raises(SystemExit):
            start(*options)
    said = capsys.readouterr().err
    assert "a whole number from 1 on is wanted; got '0'" in said and "not allowed with" in said


@pytest.mark.parametrize(
    ("limit", "left"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("10000000 100000", 64)]
)
def test_a_container_has_what_its_limit_says(
    limit: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(threads, "CGROUP", tmp_path / "cpu.max")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert threads.cores() == left
    monkeypatch.setattr(threads, "CGROUP", tmp_path / "nothing")
    assert threads.cores() == 64


@pytest.mark.slow
def test_a_gpu_that_is_not_here_ends_it_with_the_reason(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SystemExit) as ended:
        start("--device", "cuda:63")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "device 'cuda:63' is not here" in said and "CUDA_VISIBLE_DEVICES=63" in said and "nvidia-smi -L" in said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SystemExit):
        start("--device", "cuda:1")
    assert "leaves 1 CUDA devices" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        start("--device", "tpu")
    assert "known: cpu, cuda, cuda:<number>" in capsys.readouterr().err
