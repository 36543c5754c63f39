"""Profiles of devices, as the service keeps them."""

from __future__ import annotations

from nas_core.profiles import DeviceProfile
from store import devices
from store.session import reading
from store.settings import settings


def stored_profile(sha256: str) -> DeviceProfile:
    """The one that a job noted; it outlives its device's name. Raises NotFoundError or ProfileError."""
    with reading(settings().outage_seconds) as session:
        return DeviceProfile.from_json(devices.profile(session, sha256).profile)
