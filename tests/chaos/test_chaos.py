"""A few of the faults of ``make chaos``, each kind once, on real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.world import FAULTS, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

PLANS = {
    "sqlite": {"searching": ["child", "all"], "verifying": ["pool", "broker flush"]},
    "postgresql": {"searching": ["worker", "database"], "verifying": ["broker restart", "api", "all"]},
}


def test_every_kind_of_fault_is_tried() -> None:
    assert {fault for plan in PLANS.values() for faults in plan.values() for fault in faults} == set(FAULTS)


@pytest.mark.parametrize("database", PLANS)
def test_faults_change_nothing(database: str, short_folder: Path) -> None:
    with World(short_folder / f"chaos-{database}", database) as world:
        blows = Campaign(world, seed=1).run(PLANS[database], seed=7)
    assert {blow.phase for blow in blows} == {"searching", "verifying"}
