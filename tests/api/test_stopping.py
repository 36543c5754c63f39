"""Signals that end ``skyline serve``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from api.commands import stopping_by_signal


@pytest.mark.parametrize(
    ("former", "stops"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)], ids=["a terminal", "nohup"]
)
def test_a_closed_terminal_stops_it_unless_told_otherwise(former: Callable[..., Any], stops: bool) -> None:
    halt, before = Event(), signal.signal(signal.SIGHUP, former)
    try:
        with stopping_by_signal(halt, Event()):
            os.kill(os.getpid(), signal.SIGHUP)
            assert halt.is_set() == stops
        assert signal.getsignal(signal.SIGHUP) == former
    finally:
        signal.signal(signal.SIGHUP, before)
