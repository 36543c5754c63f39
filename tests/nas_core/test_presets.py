"""Presets as data: what each names is there and takes the settings; the papers' supernets have the papers' ops."""

from __future__ import annotations

import pytest

from nas_core.algorithms import algorithms
from nas_core.algorithms.entrannas import EnTranNas, Transit
from nas_core.algorithms.mgas import Mgas
from nas_core.algorithms.tnd_nas import TndNas
from nas_core.costs import sites
from nas_core.granularity.layout import as_derived, full_types
from nas_core.granularity.measure import Counted, total
from nas_core.presets import PARTS, presets
from nas_core.progressive import Run
from nas_core.settings import parse
from nas_core.spaces import spaces
from nas_core.spaces.darts import DARTS_OPS
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
    assert run.weights.supernet.shapes == {"normal": (14, normal), "reduce": (14, 6)}
    assert [cell.cell_type for cell in run.weights.supernet.cells] == ["normal", "reduce", "normal", "reduce", "normal"]
    assert run.weights.supernet.skeleton.channels == channels
    assert [(run.stages.length(stage), run.stages.warm(stage)) for stage in range(3)] == [(epochs, warm)] * 3
    assert run.settings.normal_left == (6, 3, 1) and run.settings.reduce_left == (4, 2, 1)


def test_the_extended_space_has_more_ops_than_darts() -> None:
    job = presets["darts-extended"].job["space"]
    space = parse(spaces["darts"], {key: value for key, value in job.items() if key != "name"} | {"channels": 2}, "it")
    assert set(DARTS_OPS) < set(space.ops("normal")) and len(space.ops("reduce")) == 15
    net = space.supernet(space.skeleton((3, 16, 16), 2, cells=3))
    assert len(net.cells[0].ops) == 14 * 14


def test_mgas_on_imagenet_counts_from_a_network_above_its_target() -> None:
    job = presets["mgas-imagenet"].job
    space = parse(spaces["darts"], {key: value for key, value in job["space"].items() if key != "name"}, "it")
    skeleton = space.skeleton((3, 224, 224), 1000)
    full = as_derived(full_types(space, skeleton), skeleton)
    assert total(Counted("macs"), full, skeleton, whole=True) > 600e6 == job["algorithm"]["targets"][0]
    settings = parse(Mgas, {key: value for key, value in job["algorithm"].items() if key != "name"}, "it")
    assert (settings.train_share, settings.validation_share) == (0.2222, 0.0556)


def test_the_search_on_imagenet_has_its_stem_and_its_shares() -> None:
    job = {
        part: {key: value for key, value in own.items() if key != "name"}
        for part, own in presets["imagenet"].job.items()
    }
    space = parse(spaces["darts"], job["space"], "imagenet")
    skeleton = space.skeleton((3, 224, 224), 1000)
    where = sites({name: space.cell(name) for name in ("normal", "reduce")}, skeleton)
    assert where[0].size_in == (28, 28)
    algorithm = parse(EnTranNas, job["algorithm"], "imagenet")
    on = problem(epochs=job["budget"]["epochs"])
    engine = algorithm.engine(on)
    assert isinstance(engine.relaxation, Transit) and engine.settings.warmup_epochs < on.budget.epochs
    assert engine.train.size == round(0.1 / 0.45 * on.splits.train.size)
    assert engine.validation.size == round(0.025 / 0.45 * on.splits.validation.size)
