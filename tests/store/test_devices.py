"""Devices: a name has one profile at a time; a profile that was noted stays."""

from __future__ import annotations

from typing import Any

import pytest

from store import cursors, devices
from store.errors import InvalidCursorError, NotFoundError, TooManyDevicesError
from store.session import now, reading, unit_of_work

PROFILE = {"name": "pi", "parts": [{"op": "add", "ms": 0.1}]}


def put(name: str = "pi", sha256: str = "a" * 64, profile: dict[str, Any] | None = None) -> bool:
    with unit_of_work() as session:
        return devices.put(session, name, sha256, PROFILE if profile is None else profile)


def test_what_was_put_is_there() -> None:
    assert put()
    with reading() as session:
        row = devices.get(session, "pi")
        assert (row.name, row.sha256) == ("pi", "a" * 64)
        assert abs((now(session) - row.created_at).total_seconds()) < 60
        assert devices.profile(session, "a" * 64).profile == PROFILE
        assert devices.find(session, "PI") is None, "names differ by case"
        assert devices.listed(session) == {"pi": "a" * 64}


def test_the_same_again_changes_nothing_and_another_profile_takes_its_place() -> None:
    assert put() and not put()
    assert put(sha256="b" * 64, profile={**PROFILE, "power_w": 3.0})
    with reading() as session:
        assert devices.get(session, "pi").sha256 == "b" * 64
        assert devices.profile(session, "a" * 64).profile == PROFILE, "jobs have noted it"
    assert put(), "and back again"


def test_a_profile_outlives_its_name() -> None:
    put()
    with unit_of_work() as session:
        devices.delete(session, "pi")
    with reading() as session:
        assert devices.listed(session) == {}
        assert devices.profile(session, "a" * 64).profile == PROFILE
        for missing in (lambda: devices.get(session, "pi"), lambda: devices.profile(session, "c" * 64)):
            with pytest.raises(NotFoundError):
                missing()
    with pytest.raises(NotFoundError, match="no device 'pi'"), unit_of_work() as session:
        devices.delete(session, "pi")


def test_pages_by_name() -> None:
    names = [f"pi-{number}" for number in range(5)]
    for name in reversed(names):
        put(name)
    with reading() as session:
        first, cursor = devices.page(session, limit=2)
        second, following = devices.page(session, cursor=cursor, limit=3)
    assert [device.name for device, _ in [*first, *second]] == names
    assert following is None and all(kept.profile == PROFILE for _, kept in second)
    for wrong in ("nonsense", cursors.pack(3), cursors.pack("a", "b")):
        with pytest.raises(InvalidCursorError), reading() as session:
            devices.page(session, cursor=wrong)


def test_there_is_an_end_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "MOST", 2)
    put("one")
    put("two")
    with pytest.raises(TooManyDevicesError, match="2 devices have a profile, the most there may be; delete one"):
        put("three")
    assert put("two", "b" * 64), "one that is there may have another profile"
