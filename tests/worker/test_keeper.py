"""When a keeper takes leases away, and when it spares them."""

from __future__ import annotations

import logging

import pytest

from worker import keeper


class Clock:
    def __init__(self) -> None:
        self.wall = self.steady = 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keeper, "time", clock)
    monkeypatch.setenv("SKYLINE_LEASE_SECONDS", "30")
    return clock


def test_it_takes_leases_from_its_first_round_on(clock: Clock) -> None:
    keeping = keeper.Keeper()
    for _ in range(5):
        assert keeping._may_reap()
        clock.go(7)


@pytest.mark.parametrize("seconds", [25.0, 3600.0, -3600.0])
def test_after_a_time_without_rounds_those_who_live_may_say_so(
    clock: Clock, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    keeping = keeper.Keeper()
    assert keeping._may_reap()
    clock.wall += seconds  # the clock was set, the host slept, the database was away
    with caplog.at_level(logging.WARNING):
        assert not keeping._may_reap()
    assert f"{seconds:.0f} s passed since the last look at leases" in caplog.text
    clock.go(15)
    assert not keeping._may_reap()
    clock.go(16)
    assert keeping._may_reap()


def test_where_every_round_is_slow_leases_are_taken_all_the_same(clock: Clock) -> None:
    keeping = keeper.Keeper()
    taken = []
    for _ in range(6):
        taken.append(keeping._may_reap())
        clock.go(29)
    assert taken == [True, False, False, True, True, True]
