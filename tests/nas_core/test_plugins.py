"""Users' own files: every kind of thing, and every way of being broken."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from nas_core import settings
from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.datasets import datasets
from nas_core.errors import PluginError
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluated, Evaluation
from nas_core.objectives import objectives
from nas_core.plugins import GROUP, REGISTRIES, Plugin, load, sources, use
from nas_core.search import Axes, Budget, Problem, drive, start
from nas_core.spaces import spaces
from skyline.schemas import JobSpec
from tests import documents

GOOD = """
from typing import ClassVar
from nas_core.objectives import objectives
from nas_core.settings import settings
from nas_core.values import Value

@objectives.register("good")
@settings
class Good:
    unit: ClassVar[str] = "g"
    direction: ClassVar[str] = "minimize"
    source: ClassVar[str] = "measured"
    factor: float = 1.0
    def measure(self, architectures, device):
        return [Value(1.0, self.unit, "measured") for _ in architectures]
"""


@pytest.fixture(autouse=True)
def known() -> Iterator[dict[str, list[str]]]:
    """What is known before a test, and again afterwards."""
    before = {registry.what: dict(registry) for registry in REGISTRIES}
    modules = set(sys.modules)
    yield {what: [*classes] for what, classes in before.items()}
    for registry in REGISTRIES:
        registry.restore(before[registry.what])
    for name in set(sys.modules) - modules:
        if name.startswith(("skyline_plugin_", "team_")):
            del sys.modules[name]


def names() -> dict[str, list[str]]:
    return {registry.what: [*registry] for registry in REGISTRIES}


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def loaded(*wanted: str | Path) -> list[Plugin]:
    return [load(source) for source in sources(wanted)]


def searched(spec: JobSpec) -> list[Evaluation]:
    """All that a small search of a job finds."""

    def made(registry: Any, part: Any) -> Any:
        return settings.parse(registry[part.name], part.settings, part.name)

    space, algorithm = made(spaces, spec.space), made(algorithms, spec.algorithm)
    splits = made(datasets, spec.dataset).splits(Path("/nowhere"), spec.seed, spec.dataset.fraction)
    axes = Axes({part.effective_key: made(objectives, part) for part in spec.objectives})
    skeleton = space.skeleton(splits.input, splits.classes)
    problem: Problem[Any] = Problem(
        space=space,
        axes=axes,
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(spec.budget.evaluations, spec.budget.epochs),
        seed=spec.seed,
        rng=np.random.default_rng(spec.seed),
        device=torch.device("cpu"),
        splits=splits,
    )
    events = drive(start(algorithm, problem), Evaluator(problem))
    return [event.evaluation for event in events if isinstance(event, Evaluated)]


# --- what documents show ----------------------------------------------------------------------------------------------


def test_the_examples_of_contributing_are_plug_ins_too(tmp_path: Path, one_thread: None) -> None:
    shown = documents.write("CONTRIBUTING.md", tmp_path)
    assert set(shown) == {"aging", "weight_bytes", "chains", "stripes"}
    assert [(plugin.adds, plugin.error) for plugin in loaded(*shown.values())] == [
        ((("algorithm", "aging"),), None),
        ((("objective", "weight_bytes"),), None),
        ((("space", "chains"),), None),
        ((("data set", "stripes"),), None),
    ]
    form = settings.form(spaces["chains"])["properties"]
    assert form["cells"]["description"] == "Cells of the searched network." and form["cells"]["maximum"] == 100
    spec = JobSpec.model_validate(
        {
            "space": {"name": "chains", "cells": 3, "channels": 2},
            "dataset": {"name": "stripes"},
            "objectives": ["error", "weight_bytes"],
            "algorithm": {"name": "aging", "population": 4, "sample": 2, "evaluate": {"epochs": 2, "batch": 32}},
            "budget": {"evaluations": 6},
        }
    )
    found = searched(spec)
    assert len(found) == 6 and all(evaluation.failure is None for evaluation in found)
    space = settings.parse(spaces["chains"], spec.space.settings, "space")
    for evaluation in found:
        space.check(evaluation.genotype)
        architecture = Architecture(evaluation.genotype, space.skeleton((1, 8, 8), 2))
        value = evaluation.values[0]["weight_bytes"]
        assert (value.value, value.unit, value.kind) == (4 * count(architecture).params, "B", "exact")
    assert min(evaluation.values[0]["error"].value for evaluation in found) < 0.3, "stripes are easily told apart"


def test_the_examples_of_the_how_to_run_together(tmp_path: Path, one_thread: None) -> None:
    page = "docs/howto/plugins.md"
    shown = documents.write(page, tmp_path)
    assert len(shown) == 5
    assert {what for plugin in use(*shown.values()) for what, _ in plugin.adds} == {each.what for each in REGISTRIES}
    assert len(shown["carbon"].read_text().splitlines()) <= 35, "about twenty lines of its own, beside imports"
    spec = JobSpec.model_validate(yaml.safe_load(documents.job(page)))
    found = searched(spec)
    assert len(found) == 6 and all(evaluation.failure is None for evaluation in found)
    values = [evaluation.values[0]["carbon"] for evaluation in found]
    assert {(value.unit, value.kind, value.detail["grid"]) for value in values} == {("g", "predicted", 50)}
    assert all(value.value > 0 for value in values)


# --- where they come from ---------------------------------------------------------------------------------------------


def test_a_file_is_run_anew_each_time(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    use(path)
    first, stat = objectives["good"], path.stat()
    assert first().factor == 1.0
    path.write_text(GOOD.replace("1.0\n", "2.0\n"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # no cache could tell it from the one before
    use(path)
    assert objectives["good"]().factor == 2.0
    assert not (tmp_path / "__pycache__").exists()
    path.write_text(GOOD.replace('"good"', '"other"'))
    use(path)
    assert "good" not in objectives and "other" in objectives


def test_each_is_wanted_once_under_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    one, other = write(tmp_path, GOOD), write(tmp_path / "deep", GOOD.replace('"good"', '"other"'))
    found = sources([one, str(one), other, f"{tmp_path}/deep/../mine.py"])
    assert [(source.name, source.key) for source in found] == [("mine.py", str(one)), (str(other), str(other))]
    assert [plugin.adds for plugin in map(load, found)] == [(("objective", "good"),), (("objective", "other"),)]


def test_a_module_by_its_name_or_as_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, GOOD, "team_one.py")
    write(tmp_path, GOOD.replace('"good"', '"offered"'), "team_two.py")
    distribution = tmp_path / "team-1.0.dist-info"
    distribution.mkdir()
    write(distribution, "Metadata-Version: 2.1\nName: team\nVersion: 1.0\n", "METADATA")
    write(distribution, f"[{GROUP}]\nours = team_two\ngone = team_three\n", "entry_points.txt")
    gone, ours, one = loaded("team_one")
    assert (ours.name, ours.adds) == ("ours", (("objective", "offered"),))
    assert (one.name, one.adds) == ("team_one", (("objective", "good"),))
    assert gone.error == "ModuleNotFoundError: No module named 'team_three'"
    assert [plugin.adds for plugin in loaded("team_one")][-1] == one.adds, "imported before, it is still its own"


def test_in_a_notebook_the_first_that_is_broken_raises(tmp_path: Path) -> None:
    assert use(write(tmp_path, GOOD))[0].adds == (("objective", "good"),)
    with pytest.raises(PluginError, match=r"plug-in 'bad\.py' cannot be used: ZeroDivisionError: .* \(line 2\)"):
        use(write(tmp_path, "\n1 / 0\n", "bad.py"))


# --- broken in every way ----------------------------------------------------------------------------------------------


def objective(**changes: str) -> str:
    """A plug-in's text with lines changed by what they begin with."""
    lines = []
    for line in GOOD.splitlines():
        key = line.strip().partition(":")[0].partition("(")[0].removeprefix("def ")
        lines.append(changes.get(key, line))
    return "\n".join(lines)


PREFIX = "from nas_core.{package} import {package}\nfrom nas_core.settings import settings\n"
DATASET = """
@datasets.register("birds")
@settings
class Birds:
    facts = {facts}
    {field}
    @classmethod
    def presence(cls, root): ...
    def splits(self, root, seed, fraction=1.0, progress=None): ...
"""


def dataset(facts: str, field: str = "") -> str:
    return PREFIX.format(package="datasets") + DATASET.format(facts=facts, field=field)


def algorithm(needs: str) -> str:
    body = '@algorithms.register("mine")\n@settings\nclass Mine:\n    needs = {needs}\n    def search(self, *_): ...\n'
    return "import typing\n" + PREFIX.format(package="algorithms") + body.format(needs=needs)


def preset(job: str) -> str:
    body = '@presets.register("ours")\nclass Ours:\n    source = "us"\n    job = {job}\n'
    return "from nas_core.presets import presets\n" + body.format(job=job)


BROKEN = {
    "raises": ("\n\nraise KeyError('no such key')", r"KeyError: 'no such key' \(line 3\)"),
    "raises without words": ("raise RuntimeError", r"RuntimeError: no reason given \(line 1\)"),
    "ends the process": ("import sys\nsys.exit('enough')", r"SystemExit: enough \(line 2\)"),
    "is no Python": ("def broken(:", r"SyntaxError: invalid syntax \(mine.py, line 1\)"),
    "is no text": ("\udcff", "cannot be decoded|SyntaxError|UnicodeDecodeError"),
    "needs what is not here": ("import a_thing_that_is_not", "ModuleNotFoundError: No module named 'a_thing_that"),
    "registers nothing": ("x = 1", "it registers nothing; decorate a class"),
    "takes a name": (GOOD.replace('"good"', '"error"'), "ValueError: objective 'error' is registered twice"),
    "a name that cannot be written": (GOOD.replace('"good"', '"my own"'), "objective 'my own': a name is a letter"),
    "no class": (PREFIX.format(package="objectives") + "objectives.register('f')(len)", "objective 'f' is .*no class"),
    "no form": (
        GOOD.replace("@settings", ""),
        "'good' has no form for its settings; decorate it with @settings, .*Unable to generate",
    ),
    "a type that nobody knows": (GOOD.replace("factor: float", "factor: Nothing"), "Nothing"),
    "a default that is no number": (
        GOOD.replace("= 1.0", "= float('inf')"),
        "has no form .*ValueError: Out of range float",
    ),
    "no unit": (objective(unit="    pass"), "objective 'good': 'unit' is missing; wanted is text"),
    "an odd direction": (objective(direction="    direction = 'up'"), "'direction' is 'up'; wanted is one of minimize"),
    "an odd source": (objective(source="    source = 'guess'"), "'source' is 'guess'; wanted is one of data, exact, "),
    "nothing that measures": (GOOD.replace("def measure", "def look"), "'measure' is missing; wanted is a method"),
    "exact without resource": (
        GOOD.replace('= "measured"', '= "exact"').replace("def measure", "def value"),
        "'resource' is missing; wanted is one of params, macs",
    ),
    "exact with half a scale": (
        GOOD.replace(
            '= "measured"', '= "exact"\n    resource: ClassVar[str] = "macs"\n    scale: ClassVar[float] = 0.5'
        ).replace("def measure", "def value"),
        "'scale' is 0.5; wanted is a whole number",
    ),
    "facts of two sizes": (dataset("{'input': [8, 8], 'classes': 2}"), "'facts' is {'input'.*wanted is 'input'"),
    "facts without classes": (dataset("{'input': [1, 8, 8]}"), "'facts' is .*'classes'"),
    "facts of nothing": (dataset("{}"), "'facts' is {}; wanted is .*a setting 'path'"),
    "facts that are no JSON": (dataset("{'input': [1, 8, 8], 'classes': 2, 'mean': {1}}"), "'facts' is "),
    "facts that are none": (dataset("5"), "'facts' is 5"),
    "an algorithm of nothing": (algorithm("5"), "'needs' is 5; wanted is what its space must be"),
    "a Protocol that cannot be asked": (
        algorithm("type('P', (typing.Protocol,), {})"),
        "'needs' is .*; wanted is what its space must be",
    ),
    "a preset of no job": (preset("5"), "preset 'ours': 'job' is 5; wanted is fields by part of a job"),
    "a preset of an odd part": (preset("{'resources': {}}"), "'job' is {'resources'.*wanted is .*budget, verify"),
    "a preset of half a part": (preset("{'budget': 5}"), "'job' is {'budget': 5}"),
    "a preset that is no JSON": (preset("{'budget': {'epochs': {1}}}"), "'job' is "),
    "a preset from nowhere": (preset("{}").replace("source", "origin"), "preset 'ours': 'source' is missing"),
    "a space without ends": (
        PREFIX.format(package="spaces") + "@spaces.register('line')\n@settings\nclass Line:\n    pass\n",
        "space 'line': 'skeleton' is missing",
    ),
}


@pytest.mark.parametrize(("text", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_one_says_why_and_keeps_no_other_from_being_loaded(
    text: str, why: str, tmp_path: Path, known: dict[str, list[str]]
) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    broken, other = loaded(path, write(tmp_path, GOOD.replace('"good"', '"fine"'), "fine.py"))
    assert broken.error is not None and broken.adds == ()
    assert re.search(why, broken.error), broken.error
    assert "\n" not in broken.error and len(broken.error) < 700
    assert other.error is None
    assert names() == {**known, "objective": sorted([*known["objective"], "fine"])}


@pytest.mark.parametrize("end", ["1 / 0", "raise SystemExit(3)", "objectives.restore({})\nraise ValueError"])
def test_what_it_did_to_the_names_before_it_broke_is_undone(
    end: str, tmp_path: Path, known: dict[str, list[str]]
) -> None:
    (broken,) = loaded(write(tmp_path, f"{GOOD}\n{end}\n"))
    assert broken.error is not None
    assert names() == known


def test_one_of_two_things_that_is_broken_takes_the_other_along(tmp_path: Path, known: dict[str, list[str]]) -> None:
    second = GOOD.replace('"good"', '"second"').replace('"minimize"', '"up"')
    (broken,) = loaded(write(tmp_path, GOOD + second))
    assert broken.error == "objective 'second': 'direction' is 'up'; wanted is one of minimize, maximize"
    assert names() == known


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (broken,) = loaded(tmp_path / "nowhere.py")
    assert broken.error == f"there is no file {tmp_path / 'nowhere.py'}"
    (broken,) = loaded("~nobody-has-this-name/mine.py")
    assert broken.error is not None and "there is no file" in broken.error


def test_the_same_name_in_two_files_is_the_first_ones(tmp_path: Path) -> None:
    one, two = loaded(write(tmp_path, GOOD), write(tmp_path, GOOD, "two.py"))
    assert one.error is None
    assert two.error is not None and two.error.startswith("ValueError: objective 'good' is registered twice")
    assert objectives["good"].__module__.split("_mine_py_")[0].startswith("skyline_plugin_")
