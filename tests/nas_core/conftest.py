"""Hypothesis without deadlines: how long an example takes says nothing on a busy machine. Data that is not ours."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture
def nasbench201(request: pytest.FixtureRequest) -> Path:
    """The benchmark's table, which is not part of the repository."""
    folder = request.config.getoption("--nas-data")
    if folder is None:
        pytest.skip("NAS-Bench-201's table is not here; give its folder: pytest --nas-data FOLDER")
    path: Path = folder / "nasbench201.csv.gz"
    if not path.is_file():
        pytest.fail(f"there is no {path.name} in {folder}; give the folder that holds it, or leave --nas-data out")
    return path
