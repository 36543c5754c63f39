"""Tables of values: read whole or not at all, every fault with its line; looked up exactly."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.algorithms.nsga2 import Nsga2
from nas_core.algorithms.random_search import RandomSearch
from nas_core.architecture import Architecture, genotype_to_json
from nas_core.data import without_images
from nas_core.errors import MissingRowError, TableError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated, Propose
from nas_core.objectives.params import Params
from nas_core.search import Axes, Budget, Problem, drive, start
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.nasbench201 import BENCHMARK_OPS, EDGES, NasBench201, genotype_of, is_connected, to_arch
from nas_core.tables import LISTED, Column, Contents, MalformedTableError, Table, Tabulated, read

SPACE = NasBench201(cells=5, channels=2, normal_ops=("none", "conv_3x3"))
SKELETON = SPACE.skeleton((3, 8, 8), 10)
CELLS = [to_arch(genotype) for genotype in SPACE.every()]
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
Row = list[Any]


def values(arch: str) -> tuple[float, float]:
    """An accuracy in percent that grows with the convolutions, and a cost that grows with them, too."""
    convolutions = arch.count("nor_conv_3x3")
    return 50 + 5 * convolutions + arch.find("none") / 100, 2.5 * convolutions + len(arch) / 1000


def table_rows() -> list[Row]:
    return [[arch, *values(arch), "not looked at"] for arch in CELLS]


def text_of(rows: Sequence[Row], header: Sequence[str] = ("arch", "acc", "ms", "note")) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def contents(text: str | None = None, **changes: Any) -> Contents:
    arguments = {"key": "arch", "columns": ["acc", "ms"], "space": SPACE, "skeleton": SKELETON, **changes}
    return read(text_of(table_rows()) if text is None else text, **arguments)


def made(found: Contents, directions: Sequence[str] = ("maximize", "minimize")) -> Table:
    units = dict(zip(found.ends, ("%", "ms"), strict=True))
    columns: dict[str, Column] = {
        name: Column(units[name], direction, *found.ends[name])  # type: ignore[arg-type]
        for name, direction in zip(found.ends, directions, strict=True)
    }
    return Table("nb201", "f" * 64, SKELETON, columns, found.hashes, found.numbers)


def faults(text: str, **changes: Any) -> list[str]:
    with pytest.raises(MalformedTableError) as refused:
        contents(text, **changes)
    return [str(fault) for fault in refused.value.faults]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_what_was_read_is_looked_up() -> None:
    found = contents()
    assert (found.rows, found.left_out, found.missing) == (len(CELLS), 0, 0)
    table = made(found)
    for genotype in SPACE.every():
        architecture = Architecture(genotype, SKELETON)
        numbers = [table.number(column, architecture) for column in ("acc", "ms")]
        assert numbers == list(values(to_arch(genotype)))
    costs = [values(arch)[1] for arch in CELLS]
    assert found.ends["ms"] == (min(costs), max(costs))


def test_the_order_of_rows_changes_nothing() -> None:
    assert contents(text_of(table_rows()[::-1])) == contents()


def test_a_byte_order_mark_blank_lines_and_spaces_do_no_harm() -> None:
    lines = text_of([[f" {row[0]} ", *row[1:]] for row in table_rows()]).splitlines()
    assert contents("\ufeff" + "\n\n".join(lines)) == contents()


def test_genotypes_as_json_and_hashes_name_architectures_as_well() -> None:
    rows = table_rows()
    for row, genotype in zip(rows[:20], SPACE.every(), strict=False):
        row[0] = json.dumps(genotype_to_json(genotype))
    for row, genotype in zip(rows[-20:], list(SPACE.every())[-20:], strict=True):
        row[0] = Architecture(genotype, SKELETON).hash
    rows[25][0] = json.dumps({"arch": rows[25][0]})
    assert contents(text_of(rows)) == contents()


def test_of_the_whole_benchmark_what_the_space_has_not_is_left_out() -> None:
    assert not is_connected(["none"] * 6)
    found = contents(text_of([*table_rows(), [DEAD, "", "", ""]]))
    assert (found.rows, found.left_out, found.missing) == (len(CELLS), 1, 0)
    assert found.numbers == contents().numbers


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows[3].__setitem__(1, "nan"), ["line 5, column 'acc': got 'nan'; expected a finite number"]),
        (lambda rows: rows[3].__setitem__(2, "-inf"), ["line 5, column 'ms': got '-inf'; expected a finite number"]),
        (lambda rows: rows[3].__setitem__(2, ""), ["line 5, column 'ms': got nothing; expected a finite number"]),
        (lambda rows: rows[3].__setitem__(2, "fast"), ["line 5, column 'ms': got 'fast'; expected a finite number"]),
        (lambda rows: rows[3].__setitem__(2, "1_0"), ["line 5, column 'ms': got '1_0'; expected a finite number"]),
        (lambda rows: rows[3].pop(), ["line 5: got 3 fields; expected 4, as the header has"]),
        (
            lambda rows: rows.append([CELLS[0], 1, 1, ""]),
            [f"line {len(CELLS) + 2}, column 'arch': got the architecture of line 2 again; expected one row for each"],
        ),
        (
            lambda rows: rows[3].__setitem__(0, "|x~0|"),
            ["line 5, column 'arch': got '|x~0|' ('|x~0|' is no cell of NAS"],
        ),
        (lambda rows: rows[3].__setitem__(0, '{"arch"'), ["line 5, column 'arch': got '{\"arch\"' (no JSON:"]),
        (lambda rows: rows[3].__setitem__(0, "0" * 64), ["line 5, column 'arch': got '000"]),
        (
            lambda rows: rows.pop(7),
            [f"the table: got {len(CELLS) - 1} of {len(CELLS)} architectures; without a row: {CELLS[7]}; exp"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(change: Callable[[list[Row]], Any], expected: list[str]) -> None:
    rows = table_rows()
    change(rows)
    found = faults(text_of(rows))
    assert len(found) == len(expected)
    for fault, beginning in zip(found, expected, strict=True):
        assert fault.startswith(beginning), fault


def test_every_fault_is_told_up_to_a_number() -> None:
    rows = table_rows()
    for row in rows[: LISTED + 5]:
        row[1] = "nan"
    with pytest.raises(MalformedTableError, match="and 5 more like these") as refused:
        contents(text_of(rows))
    assert [fault.line for fault in refused.value.faults] == list(range(2, LISTED + 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1, column 'arch': got a header that has it not: nothing"),
        ("arch,acc\n", "line 1, column 'ms': got a header that has it not: arch, acc"),
        ("arch,acc,ms,acc\n", "line 1, column 'acc': got a header that has it twice"),
        ("arch,acc,ms\n", "the table: got no row of the space"),
        (f"arch,acc,ms\n{DEAD},1,2\n", "the table: got no row of the space, as in: the cell"),
        ('arch,acc,ms\n"x,1,2\n', "line 2: got what is no CSV (unexpected end of data)"),
    ],
)
def test_a_text_that_is_no_table(text: str, expected: str) -> None:
    assert faults(text)[0].startswith(expected)


def test_a_partial_table_says_what_it_lacks() -> None:
    found = contents(text_of(table_rows()[:10]), partial=True)
    assert (found.rows, found.missing) == (10, len(CELLS) - 10)
    table = made(found)
    missing = list(SPACE.every())[10]
    with pytest.raises(MissingRowError, match=r"table 'nb201' has no row for \|") as refused:
        table.number("acc", Architecture(missing, SKELETON))
    assert CELLS[10] in str(refused.value)
    there = next(SPACE.every())
    other = SPACE.skeleton((3, 8, 8), 10, cells=8)
    with pytest.raises(MissingRowError):
        table.number("acc", Architecture(there, other))


def test_spaces_that_cannot_be_counted_through_have_tables_too() -> None:
    space = DartsCells(cells=3, channels=2, nodes=2)
    skeleton = space.skeleton((1, 8, 8), 10)
    rng = np.random.default_rng(0)
    some = [space.sample(rng) for _ in range(3)]
    rows = [[json.dumps(genotype_to_json(genotype)), 90, 1, ""] for genotype in some]
    rows[2][0] = Architecture(some[2], skeleton).hash
    found = contents(text_of(rows), space=space, skeleton=skeleton)
    assert (found.rows, found.missing) == (3, None)
    larger = DartsCells(cells=3, channels=2, nodes=3).sample(rng)
    rows[1][0] = json.dumps(genotype_to_json(larger))
    (fault,) = faults(text_of(rows), space=space, skeleton=skeleton)
    assert fault.startswith("line 3, column 'arch'") and fault.endswith("expected an architecture of the space")


def test_a_space_counts_its_cells() -> None:
    assert (NasBench201().size(), SPACE.size()) == (15_625 - 341, len(CELLS))
    every = [ops for ops in product(BENCHMARK_OPS[:3], repeat=len(EDGES)) if is_connected(ops)]
    assert [genotype_of(ops) for ops in every] == list(NasBench201(normal_ops=BENCHMARK_OPS[:3]).every())


# --- objectives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "quality", "number", "share", "ends"),
    [
        (Column("%", "maximize", 40, 90), "error", 75, 0.25, (0.1, 0.6)),
        (Column("%", "maximize", 40, 90), "accuracy", 75, 0.75, (0.4, 0.9)),
        (Column("%", "minimize", 10, 60), "error", 25, 0.25, (0.1, 0.6)),
        (Column("fraction", "maximize", 0.4, 0.9), "error", 0.75, 0.25, (0.1, 0.6)),
        (Column("fraction", "minimize", 0.1, 0.6), "accuracy", 0.25, 0.75, (0.4, 0.9)),
    ],
)
def test_an_error_and_an_accuracy_are_fractions(
    column: Column, quality: str, number: float, share: float, ends: tuple[float, float]
) -> None:
    found = column.quality(quality)
    assert (found.unit, found.direction) == ("", "maximize" if quality == "accuracy" else "minimize")
    assert (found.low, found.high) == pytest.approx(ends)
    assert column.share(quality, number) == pytest.approx(share)


@pytest.mark.parametrize(
    "column", [Column("ms", "minimize", 1, 2), Column("%", "maximize", -1, 50), Column("fraction", "maximize", 0, 1.5)]
)
def test_other_columns_say_no_error(column: Column) -> None:
    with pytest.raises(TableError, match="an error is taken from a column in '%' from 0 to 100 or in 'fraction'"):
        column.quality("error")


def test_values_say_where_they_are_from() -> None:
    table = made(contents())
    architecture = Architecture(next(SPACE.every()), SKELETON)
    accuracy, cost = values(to_arch(architecture.genotype))
    detail = {"table": "nb201", "sha256": "f" * 64}
    error = Tabulated(table, "acc", "error").value(architecture)
    assert error.to_json() == {
        "value": (100 - accuracy) / 100,
        "unit": "",
        "kind": "tabular",
        **detail,
        "column": "acc",
    }
    ms = Tabulated(table, "ms").value(architecture)
    assert ms.to_json() == {"value": cost, "unit": "ms", "kind": "tabular", **detail, "column": "ms"}
    with pytest.raises(TableError, match="has no column 'mj'; it has acc, ms"):
        Tabulated(table, "mj")
    with pytest.raises(TableError, match="is in 'ms'"):
        Tabulated(table, "ms", "error")


# --- searching --------------------------------------------------------------------------------------------------------


def problem(table: Table, evaluations: int = 30, seed: int = 0) -> Problem[Any]:
    return Problem(
        space=SPACE,
        axes=Axes({"error": Tabulated(table, "acc", "error"), "ms": Tabulated(table, "ms"), "params": Params()}),
        skeleton=SKELETON,
        targets=(SKELETON,),
        budget=Budget(evaluations, 1),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=torch.device("cpu"),
        splits=without_images((3, 8, 8), 10),
    )


def searched(algorithm: Any, problem: Problem[Any]) -> list[Any]:
    return list(drive(start(algorithm, problem), Evaluator(problem)))


@pytest.mark.parametrize("algorithm", [Nsga2(population=4), RandomSearch(batch=4)])
def test_a_search_trains_nothing(algorithm: Any) -> None:
    table = made(contents())
    events = searched(algorithm, problem(table))
    proposals = [event for event in events if isinstance(event, Propose)]
    assert {event.train for event in proposals} == {None} and not any(event.unscored for event in proposals)
    evaluations = [event.evaluation for event in events if isinstance(event, Evaluated)]
    assert len(evaluations) == 30 and not any(evaluation.failure for evaluation in evaluations)
    for evaluation in evaluations:
        (found,) = evaluation.values
        assert {key: value.kind for key, value in found.items()} == {
            "error": "tabular",
            "ms": "tabular",
            "params": "exact",
        }
        assert found["ms"].value == values(to_arch(evaluation.genotype))[1]
    again = [event.evaluation for event in searched(algorithm, problem(table)) if isinstance(event, Evaluated)]
    assert again == evaluations


def test_without_a_row_a_candidate_fails_with_that_reason() -> None:
    table = made(contents(text_of(table_rows()[:20]), partial=True))
    events = searched(RandomSearch(), problem(table, evaluations=len(CELLS)))
    evaluations = [event.evaluation for event in events if isinstance(event, Evaluated)]
    failed = [evaluation for evaluation in evaluations if evaluation.failure]
    assert len(evaluations) == len(CELLS) and len(failed) == len(CELLS) - 20
    for evaluation in failed:
        assert evaluation.failure == f"table 'nb201' has no row for {to_arch(evaluation.genotype)}"


def test_a_search_goes_on_from_a_checkpoint_as_if_it_had_not_stopped() -> None:
    table = made(contents())
    whole = searched(Nsga2(population=4), problem(table))
    states = [event.state for event in whole if isinstance(event, Checkpoint)]
    rest = problem(table)
    resumed = list(drive(start(Nsga2(population=4), rest, states[2]), Evaluator(rest)))
    seen = [event.evaluation for event in resumed if isinstance(event, Evaluated)]
    assert seen == [event.evaluation for event in whole if isinstance(event, Evaluated)][-len(seen) :]
