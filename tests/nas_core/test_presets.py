"""Presets as data: what each names is there and takes the settings; the papers' supernets have the papers' ops."""

from __future__ import annotations

import pytest

from nas_core.algorithms import algorithms
from nas_core.algorithms.tnd_nas import Run, TndNas
from nas_core.presets import PARTS, presets
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas.jobs import Budget, TargetSpec, VerifySpec
from tests.contracts.problems import problem

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


@pytest.mark.parametrize(
    ("name", "normal", "channels", "epochs", "warm"),
    [("paper-cifar10", 10, 16, 25, 15), ("paper-cifar100", 9, 24, 16, 8)],
)
def test_a_search_has_the_papers_stages(name: str, normal: int, channels: int, epochs: int, warm: int) -> None:
    job = {part: {key: value for key, value in own.items() if key != "name"} for part, own in presets[name].job.items()}
    space = parse(spaces["darts"], job["space"], name)
    run = Run(parse(TndNas, job["algorithm"], name), problem(space=space, epochs=job["budget"]["epochs"]))
    assert run.supernet.shapes == {"normal": (14, normal), "reduce": (14, 6)}
    assert [cell.cell_type for cell in run.supernet.cells] == ["normal", "reduce", "normal", "reduce", "normal"]
    assert run.supernet.skeleton.channels == channels
    assert [(run.stages.length(stage), run.stages.warm(stage)) for stage in range(3)] == [(epochs, warm)] * 3
    assert run.settings.normal_left == (6, 3, 1) and run.settings.reduce_left == (4, 2, 1)
