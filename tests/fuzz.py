"""How much is tried: a little in every run of the suite, as much as wished with SKYLINE_FUZZ_EXAMPLES (`make fuzz`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

THOROUGH = "SKYLINE_FUZZ_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("SKYLINE_FUZZ_EXAMPLES", "8"))
"""For each operation and property."""


def fuzzed(share: float = 1.0) -> settings:
    """The same examples in every run, so that a failure is one for everybody."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
