"""Counting from a file: published figures to the integer, two ways that agree, and a plain word for what cannot be."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import counting as benchmark
from nas_core.__main__ import main
from nas_core.architecture import Architecture, Genotype, genotype_to_json
from nas_core.costs import count
from nas_core.counting import Wanted, architecture_of, built_cost
from nas_core.spaces.darts import DartsCells, from_darts
from tests.nas_core.published import DARTS_V2, PUBLISHED, TND_NAS, TND_NAS_CIFAR100

SETTINGS = {
    "cifar10": ["--cells", "20", "--channels", "36", "--classes", "10", "--input", "3x32x32"],
    "imagenet": ["--cells", "14", "--channels", "48", "--classes", "1000", "--input", "3x224x224"],
    "search": ["--cells", "8", "--channels", "16", "--classes", "10", "--input", "3x32x32", "--stem", "cifar"],
}


def written(folder: Path, document: Any) -> str:
    path = folder / "genotype.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def counted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command prints."""
    assert main(["count", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What it says when it ends with 2."""
    try:
        code: Any = main(["count", *arguments])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return err


HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "counting.md"
EXAMPLES = re.findall(r"```json\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("document", EXAMPLES)
def test_examples_of_the_page_are_counted_and_built(
    document: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = counted(capsys, written(tmp_path, document), "--cells", "5", "--channels", "4", "--check")
    assert found["built"] == {"params": found["params"], "macs": found["macs"]}


@pytest.mark.parametrize("network", SETTINGS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_genotypes_count_as_published(
    name: str, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = PUBLISHED[name]["counts"][network]
    found = counted(capsys, written(tmp_path, PUBLISHED[name]["genotype"]), *SETTINGS[network])
    assert {key: found[key] for key in expected} == expected


MILLIONS = {  # by classes and width
    10: {16: 1.099, 24: 2.434, 36: 5.417, 48: 9.578},
    100: {16: 1.122, 24: 2.468, 36: 5.469, 48: 9.647},
}


@pytest.mark.parametrize(
    ("genotype", "classes", "channels", "millions"),
    [(TND_NAS, classes, width, many) for classes, widths in MILLIONS.items() for width, many in widths.items()]
    + [(TND_NAS_CIFAR100, 10, 16, 1.415), (TND_NAS_CIFAR100, 10, 24, 3.125)],
)
def test_cells_of_any_fan_in_count_as_published(
    genotype: Genotype,
    classes: int,
    channels: int,
    millions: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    size = ["--cells", "20", "--channels", str(channels), "--classes", str(classes), "--input", "3x32x32"]
    found = counted(capsys, written(tmp_path, genotype_to_json(genotype)), *size)
    assert round(found["params"] / 1e6, 3) == millions


@pytest.mark.slow
@pytest.mark.parametrize("space", benchmark.SPACES)
def test_the_table_equals_the_built_network_on_random_architectures(space: str) -> None:
    assert benchmark.compare(space, 10, seed=1)["different"] == 0


@pytest.mark.slow
def test_published_networks_as_built() -> None:
    architecture = architecture_of(json.dumps(DARTS_V2), Wanted(cells=20, channels=36))
    assert built_cost(architecture) == (3_349_342, 528_359_040)
    architecture = architecture_of(json.dumps(DARTS_V2), Wanted(14, 48, None, (3, 224, 224), 1000))
    assert built_cost(architecture) == (4_718_752, 529_911_552)


def test_parts_add_up_and_say_where_they_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = counted(capsys, written(tmp_path, DARTS_V2), *SETTINGS["cifar10"])
    parts = found["parts"]
    for key in ("params", "macs"):
        assert found[key] == parts["stem"][key] + sum(cell[key] for cell in parts["cells"]) + parts["classifier"][key]
    kinds = [cell["type"] for cell in parts["cells"]]
    assert [place for place, kind in enumerate(kinds) if kind == "reduce"] == [6, 13]
    assert parts["stem"] == {"params": 27 * 108 + 2 * 108, "macs": 27 * 108 * 1024}
    assert parts["classifier"] == {"params": 5770, "macs": 5760}
    assert {key: found[key] for key in ("space", "cells", "channels", "stem", "input", "classes")} == {
        "space": "darts",
        "cells": 20,
        "channels": 36,
        "stem": "cifar",
        "input": [3, 32, 32],
        "classes": 10,
    }


def test_a_whole_architecture_counts_as_it_stands_and_with_what_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = DartsCells()
    genotype = from_darts(DARTS_V2)
    file = written(tmp_path, Architecture(genotype, space.skeleton((1, 28, 28), 7, 5, 12)).to_json())

    def expected(*skeleton: Any) -> tuple[int, int]:
        cost = count(Architecture(genotype, space.skeleton(*skeleton)))
        return cost.params, cost.macs

    for options, skeleton in (
        ([], ((1, 28, 28), 7, 5, 12)),
        (["--channels", "20"], ((1, 28, 28), 7, 5, 20)),
        (["--cells", "8"], ((1, 28, 28), 7, 8, 12)),
        (["--input", "3x64x64", "--stem", "auto"], ((3, 64, 64), 7, 5, 12, "imagenet")),
        (["--cells", "5", "--classes", "100"], ((1, 28, 28), 100, 5, 12)),
    ):
        found = counted(capsys, file, *options)
        assert (found["params"], found["macs"]) == expected(*skeleton), options


def test_cells_of_types_of_their_own_change_width_but_not_depth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Architecture(from_darts(DARTS_V2), DartsCells().skeleton((3, 32, 32), 10, 3, 8)).to_json()
    whole["genotype"]["types"] = {"only": whole["genotype"]["types"]["normal"]}
    whole["skeleton"]["cells"] = ["only", "only"]
    file = written(tmp_path, whole)
    narrow, wide = counted(capsys, file), counted(capsys, file, "--channels", "16")
    assert narrow["params"] < wide["params"]
    assert "depth can only be changed where types are shared" in refused(capsys, file, "--cells", "9")


@pytest.mark.slow
def test_the_file_may_come_on_standard_input_and_be_counted_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(DARTS_V2)))
    found = counted(capsys, "-", "--check")
    assert found["built"] == {"params": found["params"], "macs": found["macs"]}
    assert (found["cells"], found["channels"]) == (8, 16)


def test_two_counts_that_differ_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nas_core.__main__.built_cost", lambda architecture: (1, 2))
    assert main(["count", written(tmp_path, DARTS_V2), "--check"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["built"] == {"params": 1, "macs": 2}
    assert "the table and the built network differ" in err


@pytest.mark.parametrize("given", ["argument", "file", "document"])
def test_an_arch_string_is_a_genotype(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Index 9930 of NAS-Bench-201: 1.289 M and 184.73 M as published, in the benchmark's own network by default."""
    arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    named = arch if given == "argument" else written(tmp_path, arch if given == "file" else {"arch": arch})
    found = counted(capsys, named, "--space", "nasbench201")
    assert (found["params"], found["macs"]) == (1_288_506, 184_730_240)
    assert (found["space"], found["cells"], found["channels"]) == ("nasbench201", 17, 16)
    assert counted(capsys, named, "--cells", "5", "--channels", "8")["params"] < found["params"]


@pytest.mark.slow
def test_it_runs_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from nas_core.__main__ import main; code = main(['count', sys.argv[1]]); "
        "assert 'torch' not in sys.modules; raise SystemExit(code)"
    )
    command = [sys.executable, "-c", program, written(tmp_path, DARTS_V2)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout)["params"] == 246_106


def with_op(op: str) -> dict[str, Any]:
    return {**DARTS_V2, "normal": [[op, 0], *DARTS_V2["normal"][1:]]}


def without_reduction() -> dict[str, Any]:
    document = genotype_to_json(TND_NAS)
    del document["types"]["reduce"]["reduction"]
    return document


@pytest.mark.slow
def test_who_stops_reading_has_what_they_wanted(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as after "| head -c 10"
    command = [sys.executable, "-m", "nas_core", "count", written(tmp_path, DARTS_V2)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("document", "options", "words"),
    [
        (with_op("warp_conv"), [], "unknown op 'warp_conv'; known: .*sep_conv_3x3"),
        ("{", [], "this is no JSON document"),
        ("[1, 2]", [], r"this is no JSON object, but '\[1, 2\]'"),
        ("[" * 100_000, [], "this is no JSON document"),
        ({}, [], "it has the fields none; expected a genotype"),
        ({**DARTS_V2, "normal": [["skip_connect", 0]]}, [], "'normal' lists 1 ops; two for each node are needed"),
        ({**DARTS_V2, "normal_concat": [2, 9]}, [], r"concat \[2, 9\] must name distinct nodes of 2..5"),
        ({**genotype_to_json(TND_NAS), "space": "cubes"}, [], "unknown space 'cubes'; known: darts"),
        (without_reduction(), [], "cell 'reduce' is not marked as a reduction"),
        ("|warp~0|", [], r"'\|warp~0\|' is no cell of NAS-Bench-201"),
        (
            "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            ["--cells", "19"],
            "cells: a stack of NAS-Bench-201 .*; got 19",
        ),
        (DARTS_V2, ["--space", "nasbench201"], "a genotype of space 'darts', not of 'nasbench201'; leave the space"),
        (DARTS_V2, ["--cells", "2"], "space 'darts': cells: Input should be greater than or equal to 3"),
        (DARTS_V2, ["--cells", "101"], "space 'darts': cells: Input should be less than or equal to 100"),
        (DARTS_V2, ["--channels", "1"], "space 'darts': channels: Input should be greater than or equal to 2"),
        (DARTS_V2, ["--classes", "1"], "a skeleton needs cells, channels >= 2, classes >= 2"),
        (DARTS_V2, ["--cells", "many"], "a whole number from 1 on is wanted; got 'many'"),
        (DARTS_V2, ["--cells", "-5"], "a whole number from 1 on is wanted; got '-5'"),
        (DARTS_V2, ["--input", "32x32"], "channels, height and width such as 3x32x32 are wanted; got '32x32'"),
        (DARTS_V2, ["--input", "3x0x32"], "a whole number from 1 on is wanted; got '0'"),
        (DARTS_V2, ["--input", "3x32x99999"], "at most 10000 is wanted; got '99999'"),
        (DARTS_V2, ["--stem", "none"], "invalid choice: 'none'"),
        (DARTS_V2, ["--space", "cubes"], "invalid choice: 'cubes'"),
    ],
)
def test_what_cannot_be_counted_is_said(
    document: Any, options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, written(tmp_path, document), *options)
    assert re.search(words, said), said


def test_files_that_cannot_be_read_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capsys, str(tmp_path / "none.json"))
    assert "directory" in refused(capsys, str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "can't decode" in refused(capsys, str(tmp_path / "binary"))
