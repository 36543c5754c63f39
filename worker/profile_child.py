"""``python -m worker.profile_child PARENT REQUEST``: measures a device profile, JSON on standard output.

A process of its own for its environment: what a worker's attempts measure in holds for profiles, too (worker.template).
REQUEST is JSON: ``space``, ``settings`` of it, ``widths``, ``input``, ``classes``, ``name``, ``device``, ``batch``,
``threads``, ``seconds``, ``train``, ``held_out``, ``power_w``, ``seed``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.architecture import Skeleton
from nas_core.devices import device_of
from nas_core.errors import NasCoreError, ProfileError
from nas_core.profiles import DeviceProfile
from nas_core.profiling import PART_SHARE, Bench, Profilable, measure_profile
from nas_core.settings import parse
from nas_core.spaces import spaces
from worker.control import die_with
from worker.quiet import Room

REFUSED = 2


def measured(request: Mapping[str, Any]) -> DeviceProfile:
    """With the machine to itself, as far as our own workers go. Raises NasCoreError."""
    made, skeletons = asked(request)
    device, seconds = device_of(request["device"]), request["seconds"]
    bench = Bench(device, request["batch"], request["threads"], PART_SHARE * seconds, seconds)
    room = Room()
    try:
        with room.alone():
            return measure_profile(
                request["name"],
                request["space"],
                made,
                skeletons,
                bench,
                train=request["train"],
                held_out=request["held_out"],
                seed=request["seed"],
                power_w=request["power_w"],
                say=lambda text: print(text, file=sys.stderr, flush=True),
            ).profile
    finally:
        room.close()


def asked(request: Mapping[str, Any]) -> tuple[Profilable, list[Skeleton]]:
    """The space, and its networks' skeletons. Raises NasCoreError."""
    made = parse(spaces[request["space"]], request["settings"], f"space '{request['space']}'")
    if not isinstance(made, Profilable):
        raise ProfileError(f"space '{request['space']}' does not list its parts: it has no 'layout'")
    channels, height, width = request["input"]
    return made, [made.skeleton((channels, height, width), request["classes"], channels=w) for w in request["widths"]]


def main(arguments: Sequence[str]) -> int:
    """The exit code; 0 once the profile is written."""
    die_with(int(arguments[0]))
    try:
        profile = measured(json.loads(arguments[1]))
    except NasCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    print(json.dumps(profile.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
