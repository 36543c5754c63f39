"""Presets as data: what each names is there and takes the settings; the papers' supernets have the papers' ops."""

from __future__ import annotations

import pytest

from nas_core.algorithms import algorithms
from nas_core.presets import PARTS, presets
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas.jobs import Budget, TargetSpec, VerifySpec

MODELS = {"target": TargetSpec, "budget": Budget, "verify": VerifySpec}


@pytest.mark.parametrize("name", [*presets])
def test_every_fragment_is_taken(name: str) -> None:
    job = presets[name].job
    assert set(job) <= set(PARTS) and presets[name].source and presets[name].__doc__
    for part, registry in (("space", spaces), ("algorithm", algorithms)):
        if part in job:
            given = {key: value for key, value in job[part].items() if key != "name"}
            parse(registry[job[part]["name"]], given, f"{part} of {name}")
    for part, model in MODELS.items():
        model.model_validate(job.get(part, {}))


@pytest.mark.parametrize(("name", "normal", "channels"), [("paper-cifar10", 10, 16), ("paper-cifar100", 9, 24)])
def test_the_first_supernet_has_the_papers_ops(name: str, normal: int, channels: int) -> None:
    job = presets[name].job
    space = parse(spaces["darts"], {key: value for key, value in job["space"].items() if key != "name"}, name)
    depth = job["algorithm"]["depths"][0]
    supernet = space.supernet(space.skeleton((3, 32, 32), 10, cells=depth))
    assert supernet.shapes == {"normal": (14, normal), "reduce": (14, 6)}
    assert [cell.cell_type for cell in supernet.cells] == ["normal", "reduce", "normal", "reduce", "normal"]
    assert supernet.skeleton.channels == channels
    left = {"normal": [normal, 6, 3, 1], "reduce": [6, 4, 2, 1]}
    for kind, ops in left.items():
        assert [len(space.ops(kind)), *job["algorithm"][f"{kind}_left"]] == ops
    assert job["budget"]["epochs"] % job["algorithm"]["stages"] == 0
