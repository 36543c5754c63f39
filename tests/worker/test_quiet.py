"""Measuring and training on one host: never at once, and nobody waits for ever."""

import fcntl
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from worker import quiet
from worker.quiet import Room

SECONDS = 30


def train(folder: Path, pipe: Connection) -> None:
    """Trains until told to end; answers each 'step' with whether a measurement was going on beside it."""
    room = Room(folder)
    pipe.send("in")
    while pipe.recv() == "step":
        room._looked = 0.0  # look now, not a quarter of a second later
        room.pass_measurers()
        pipe.send((folder / "measuring").exists())
    room.close()


def measure(folder: Path, pipe: Connection) -> None:
    room = Room(folder)
    pipe.send("in")
    pipe.recv()
    with room.alone():
        (folder / "measuring").touch()
        pipe.send("alone")
        pipe.recv()
        (folder / "measuring").unlink()
    pipe.send("done")
    room.close()


def receive(pipe: Connection) -> object:
    assert pipe.poll(SECONDS), "the other process did not answer"
    return pipe.recv()


@pytest.mark.slow
def test_a_measurement_waits_for_training_and_training_for_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    (mine, theirs), (ours, other) = context.Pipe(), context.Pipe()
    trainer = context.Process(target=train, args=(tmp_path, theirs))
    measurer = context.Process(target=measure, args=(tmp_path, other))
    trainer.start()
    measurer.start()
    assert receive(mine) == "in" and receive(ours) == "in"
    mine.send("step")
    assert receive(mine) is False
    ours.send("go")
    assert not ours.poll(0.5), "it measures although the other trains"
    mine.send("step")  # leaves the room at this step ...
    assert receive(ours) == "alone"
    assert not mine.poll(0.5), "it trains although the other measures"
    ours.send("end")
    assert receive(ours) == "done"
    assert receive(mine) is False  # ... and comes back when the measurement is over
    mine.send("end")
    for process in (trainer, measurer):
        process.join(SECONDS)
        assert process.exitcode == 0


def test_one_who_is_alone_in_the_room_measures_at_once(tmp_path: Path) -> None:
    room = Room(tmp_path)
    with room.alone():
        other = os.open(tmp_path / "room.lock", os.O_RDWR)
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        os.close(other)
    assert held
    room.pass_measurers()
    room.close()
    assert quiet.LOOK_SECONDS > 0


def test_one_that_hangs_does_not_keep_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "STEP_SECONDS", 0.2)
    monkeypatch.setattr(quiet, "MEASURE_SECONDS", 0.2)
    stopped = Room(tmp_path)  # in the room, and never looks at the gate again
    measured = []
    measuring = Room(tmp_path)
    with measuring.alone():
        measured.append("beside the one that hangs")
        other = Room(tmp_path)  # one who comes meanwhile, and finds that this measurement does not end either
        other.pass_measurers()
        with other.alone():
            measured.append("beside both")
        other.close()
    assert len(measured) == 2
    measuring.close()
    stopped.close()
    fresh = Room(tmp_path)  # nothing is left locked
    monkeypatch.setattr(quiet, "STEP_SECONDS", 0.0)
    with fresh.alone():
        pass
    fresh.close()
