"""A few of the faults of ``make chaos``, each kind once, on real processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.world import FAULTS, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

SEED, JOBS = 7, 4
"""A job may be through before all of its faults have come; the next has the rest. Of one seed, so that what they are
compared with is made once.
"""
PLANS = {
    "sqlite": {"searching": ["child", "all"], "verifying": ["pool", "broker flush"]},
    "postgresql": {"searching": ["worker", "database"], "verifying": ["broker restart", "api"]},
}


def test_every_kind_of_fault_is_tried() -> None:
    assert {fault for plan in PLANS.values() for faults in plan.values() for fault in faults} == set(FAULTS)


@pytest.mark.parametrize("database", PLANS)
def test_faults_change_nothing(database: str, short_folder: Path) -> None:
    left = {phase: [*faults] for phase, faults in PLANS[database].items()}
    with World(short_folder / f"chaos-{database}", database) as world:
        campaign = Campaign(world, seed=1)
        for _ in range(JOBS):
            blows = campaign.run(left, SEED)
            dealt = Counter(blow.phase for blow in blows)
            left = {phase: faults[dealt[phase] :] for phase, faults in left.items()}
            if not any(left.values()):
                return
    raise AssertionError(f"{JOBS} jobs had no room for {left}")
