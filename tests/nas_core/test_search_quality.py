"""The harness of search quality on a made-up table over all cells; the reference figures on the real one."""

from __future__ import annotations

import csv
import gzip
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import search_quality
from benchmarks.quality import methods, runs, supernet
from benchmarks.quality.handover import K, hand_over
from benchmarks.quality.oracle import Answer, Oracle, OutOfBudgetError, Spent, TableSignal
from benchmarks.quality.picture import Panel, Point, picture
from benchmarks.quality.reference import compare
from benchmarks.quality.statistics import by_decile, estimate, paired, spearman
from benchmarks.quality.supernet import RECIPE, Plan, SupernetSignal
from benchmarks.quality.zero_cost import SynflowSignal
from benchmarks.rows import Row, RowFile
from benchmarks.tight import FILE, Table, load_table
from nas_core import checkpoint
from nas_core.architecture import Architecture
from nas_core.counting import built_cost
from nas_core.data import Augmentation, Splits, tensor_splits
from nas_core.pareto import ranks
from nas_core.spaces.nasbench201 import BENCHMARK_OPS, EDGES, NasBench201, from_arch, genotype_of, is_connected, to_arch

COST = "ms"


@pytest.fixture(scope="module")
def table() -> Table:
    """All 15,625 cells: convolutions help and cost; noise differs from column to column."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(len(BENCHMARK_OPS))] * len(EDGES), indexing="ij"), axis=-1)
    cells = [[BENCHMARK_OPS[column] for column in row] for row in grid.reshape(-1, len(EDGES))]
    large, small = (np.array([ops.count(op) for ops in cells], float) for op in ("conv_3x3", "conv_1x1"))
    place = np.array([sum(index * (op == "conv_3x3") for index, op in enumerate(ops)) for ops in cells]) / 10
    accuracy = np.minimum(94.3, 88 + 1.2 * large + 0.5 * small + place / 2)

    def seen(deviation: float) -> np.ndarray:
        return accuracy - np.abs(rng.normal(0, deviation, len(cells)))

    columns = {
        "c10_test_acc": seen(0.2),
        "c10_valid_acc": seen(0.3) - 3,
        "e12_c10_valid_acc": seen(1.0) - 10,
        "flops_m": 7.78305 + 15 * (0.262144 * small + 2.359296 * large),
        COST: 2 + 3 * large + small + rng.random(len(cells)),
    }
    connected = np.array([is_connected(ops) for ops in cells])
    return Table(tuple(to_arch(genotype_of(ops)) for ops in cells), connected, columns)


def with_truth(table: Table, values: np.ndarray) -> Table:
    return Table(table.archs, table.connected, {**table.columns, "c10_test_acc": values})


# --- the hand-over --------------------------------------------------------------------------------------------------


def test_layers_are_peeled_and_the_last_one_is_thinned_evenly() -> None:
    front = [(9.0 - place, float(place)) for place in range(5)]  # (error, cost)
    second = [(9.5 - place / 2, place / 2 + 0.25) for place in range(9)]
    third = [(50.0, 50.0)]
    points = np.array(front + second + third)
    chosen = hand_over(points[:, 0], points[:, 1], 8)
    assert chosen == [0, 1, 2, 3, 4, 5, 9, 13]  # all of the front; ends and middle of the second layer


def test_a_hand_over_is_distinct_and_no_layer_is_passed_over() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 5, 19, 20, 21, 300):
        errors, costs = rng.integers(0, 9, size).astype(float), rng.integers(0, 9, size).astype(float)
        chosen = hand_over(errors, costs, ties=np.random.default_rng(2))
        assert len(chosen) == len(set(chosen)) == min(size, K)
        layers = ranks(np.column_stack([errors, costs]))
        assert layers[chosen].max() <= np.sort(layers)[min(size, K) - 1]
        for layer in range(layers[chosen].max()):
            assert set(np.flatnonzero(layers == layer)) <= set(chosen)
    assert hand_over(np.array([]), np.array([])) == []


def test_chance_decides_between_equal_points_and_nothing_else() -> None:
    costs = np.repeat(np.arange(40.0), 5)
    handed = [hand_over(-costs, costs, ties=np.random.default_rng(seed)) for seed in range(5)]
    assert len({tuple(sorted(places)) for places in handed}) > 1
    assert len({tuple(sorted(costs[places])) for places in handed}) == 1
    distinct = np.arange(200.0)
    handed = [hand_over(-distinct, distinct, ties=np.random.default_rng(seed)) for seed in range(5)]
    assert len({tuple(sorted(places)) for places in handed}) == 1


# --- the oracle -----------------------------------------------------------------------------------------------------


class Counted:
    """A signal that counts."""

    preparation = Spent(1000.0, 5.0)

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, row: int) -> Answer:
        self.asked.append(row)
        return Answer(float(row), Spent(10.0, 2.0))


@pytest.mark.slow
def test_an_oracle_charges_each_cell_once(table: Table) -> None:
    signal = Counted()
    oracle = Oracle(table, signal, table.columns[COST], 2)
    one, two, three = (int(row) for row in np.flatnonzero(table.connected)[:3])
    assert oracle(from_arch(table.archs[one])) == (float(one), table.columns[COST][one])
    assert oracle(from_arch(table.archs[one])) == (float(one), table.columns[COST][one])
    oracle(from_arch(table.archs[two]))
    assert signal.asked == oracle.asked == [one, two]
    assert [spent.multiply_adds for spent in oracle.spent] == [1010.0, 1020.0]
    assert oracle.spent[0].seconds >= 7.0
    with pytest.raises(OutOfBudgetError, match="budget of 2 cells is used up"):
        oracle(from_arch(table.archs[three]))
    assert oracle(from_arch(table.archs[two]))[0] == two  # what is known stays free


def test_an_oracle_refuses_disconnected_cells(table: Table) -> None:
    oracle = Oracle(table, Counted(), table.columns[COST], 5)
    with pytest.raises(ValueError, match="does not connect"):
        oracle(genotype_of(["none"] * 6))


def test_a_tables_signal_is_charged_with_the_training_behind_it(table: Table) -> None:
    signal = runs.table_signal(table, "e12")
    row = table.archs.index("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|")
    answer = signal(row)
    macs = 7_783_050 + 15 * (262_144 + 2_359_296) - 10
    assert answer.price.multiply_adds == pytest.approx(12 * 25_000 * 3 * macs)
    assert answer.score == 100 - table.columns["e12_c10_valid_acc"][row]
    assert runs.table_signal(table, "valid")(row).price.multiply_adds == pytest.approx(200 * 25_000 * 3 * macs)


# --- searches -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("searcher", list(methods.SEARCHES))
def test_searches_repeat_keep_their_budget_and_serve_smaller_ones(table: Table, searcher: str) -> None:
    if searcher.startswith("optuna"):
        pytest.importorskip("optuna", reason="Optuna comes with the extra 'bench'")
    bench, signal = runs.Bench.of(table, [COST]), runs.table_signal(table, "valid")

    def archs(budget: int, seed: int) -> dict[int, list[str]]:
        found = runs.run(bench, searcher, signal, COST, seed, budget)
        return {row["evaluations"]: row["archs"] for row in found}

    whole = archs(60, 3)
    assert list(whole) == [20, 50, 60]
    assert all(len(set(handed)) == K for handed in whole.values())
    assert archs(60, 3) == whole
    assert archs(60, 4) != whole
    assert archs(20, 3)[20] == whole[20]


def test_true_values_decide_nothing(table: Table) -> None:
    shuffled = with_truth(table, np.random.default_rng(5).permutation(table.columns["c10_test_acc"]))
    for method in ("nsga2:e12", "random:valid", "e12", "flops", "random-30"):
        handed = []
        for each in (table, shuffled):
            bench = runs.Bench.of(each, [COST])
            name, _, signal = method.partition(":")
            if signal:
                rows = runs.run(bench, name, runs.table_signal(each, signal), COST, 1, 40)
            elif method == "random-30":
                rows = runs.random_cells(bench, COST, 1, 30)
            else:
                column = each.columns["flops_m" if method == "flops" else "e12_c10_valid_acc"]
                rows = runs.rank_all(bench, COST, 1, -column, Spent())
            handed.append([row["archs"] for row in rows])
        assert handed[0] == handed[1], method


def test_a_better_signal_hands_over_better_cells(table: Table) -> None:
    bench = runs.Bench.of(table, [COST])
    noise = np.random.default_rng(0).random(len(table.archs))
    by_valid = runs.rank_all(bench, COST, 0, -table.columns["c10_valid_acc"], Spent())[0]
    by_noise = runs.rank_all(bench, COST, 0, noise, Spent())[0]
    assert by_valid["hypervolume"] > by_noise["hypervolume"] + 0.05
    assert by_valid["regret"] < by_noise["regret"]


def test_random_search_of_equal_cost_spends_no_more_and_hands_over_twenty(table: Table) -> None:
    bench, signal = runs.Bench.of(table, [COST]), runs.table_signal(table, "e12")
    whole = runs.run(bench, "random", signal, COST, 0, 100)[-1]
    for share in (0.0, 0.05, 0.5, 1.0):
        row = runs.equal_cost(bench, signal, COST, 0, 100, share * whole["multiply_adds"])
        assert row["multiply_adds"] <= share * whole["multiply_adds"]
        assert len(set(row["archs"])) == K
        assert abs(row["evaluations"] - 100 * share) < 15
    assert row["archs"] == whole["archs"]


# --- synflow --------------------------------------------------------------------------------------------------------


def test_synflow_prefers_what_has_more_to_flow_through_and_is_kept(table: Table, tmp_path: Path) -> None:
    signal = SynflowSignal(table.archs, np.ones(len(table.archs)), tmp_path / "scores.jsonl")
    rows = [table.archs.index(to_arch(genotype_of([op] * 6))) for op in ("skip_connect", "conv_1x1", "conv_3x3")]
    scores = [signal(row).score for row in rows]
    assert scores == sorted(scores, reverse=True)  # less is better
    again = SynflowSignal(table.archs, np.ones(len(table.archs)), tmp_path / "scores.jsonl")
    assert [again(row) for row in rows] == [signal(row) for row in rows]
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 3


# --- statistics -----------------------------------------------------------------------------------------------------


def tiny_images(seed: int) -> Splits:
    """Ten classes of noise, 32 x 32."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10

    return tensor_splits(part(200), part(20), 10, seed, 1.0, Augmentation(flip=True))


@pytest.mark.slow
def test_a_supernet_scores_with_what_it_kept_and_is_charged_for_its_training(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, supernet_epochs=2, batch=16, score_images=20)
    plan = Plan(recipe, channels=4)
    rows = np.flatnonzero(table.connected)[::6000].tolist()

    def unread(seed: int) -> Splits:
        raise AssertionError("everything is known")

    def answers(images: Callable[[int], Splits], folder: Path, wanted: list[int]) -> list[float]:
        signal = SupernetSignal(table, plan, images, folder)
        found = [signal(row) for row in wanted]
        assert all(answer.price.multiply_adds > 0 for answer in found)
        return [answer.score for answer in found]

    scores = answers(tiny_images, tmp_path, rows)
    assert all(0 < score < 1 for score in scores) and len(set(scores)) == 3
    assert answers(unread, tmp_path, rows) == scores
    assert answers(tiny_images, tmp_path / "again", rows[::-1]) == scores[::-1], "in another order, trained anew"

    # cut after its first epoch and gone on with
    monkeypatch.setattr(supernet, "KEEP_SECONDS", 0)
    true_save = checkpoint.save

    def cut(state: dict[str, Any], path: Path) -> None:
        true_save(state, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint, "save", cut)
        answers(tiny_images, tmp_path / "cut", rows)
    assert answers(tiny_images, tmp_path / "cut", rows) == scores

    signal = SupernetSignal(table, plan, tiny_images, tmp_path)
    images = 2 * (tiny_images(0).train.size // 16) * 16
    skeleton = NasBench201(cells=plan.cells, channels=plan.channels).skeleton((3, 8, 8), 10)
    built = [built_cost(Architecture(from_arch(table.archs[row]), skeleton))[1] for row in rows]
    assert [signal(row).price.multiply_adds for row in rows] == [20 * macs for macs in built]
    mean = signal.preparation.multiply_adds / (3 * images)
    assert built_cost(Architecture(genotype_of(["skip_connect"] * 6), skeleton))[1] < mean
    assert mean < built_cost(Architecture(genotype_of(["conv_3x3"] * 6), skeleton))[1]
    assert signal.preparation.seconds > 0
    assert SupernetSignal(table, replace(plan, seed=1), tiny_images, tmp_path).scores != signal.scores


def test_medians_and_intervals() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    found = estimate(values.tolist())
    half = 1.96 * 1.2533 / 20  # of the median of a normal sample
    assert found.median == pytest.approx(float(np.median(values)))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.25)
    assert estimate([3.0]).to_json() == {"median": 3.0, "low": 3.0, "high": 3.0, "seeds": 1}
    assert paired([2.0, 5.0, 9.0], [1.0, 4.0, 8.0]).low == 1.0  # seeds differ, the difference does not
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_rank_correlation() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(50)
    assert spearman(values, np.exp(5 * values)) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9486833)  # ties at their mean rank
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    costs = np.arange(50.0)
    tenths = by_decile(values, np.where(costs < 25, values, -values), costs)
    assert tenths == pytest.approx([1] * 5 + [-1] * 5)


# --- rows, picture, command -----------------------------------------------------------------------------------------


def test_rows_are_kept_and_found_again(tmp_path: Path) -> None:
    file, calls = tmp_path / "folder" / "rows.jsonl", []

    def compute() -> Row:
        calls.append(1)
        return {"value": len(calls)}

    first = RowFile(file)
    assert first.row({"seed": 1, "method": "a"}, compute)["value"] == 1
    assert first.row({"method": "a", "seed": 1}, compute)["value"] == 1
    second = RowFile(file)
    assert second.row({"seed": 1, "method": "a"}, compute)["value"] == 1
    assert second.row({"seed": 2, "method": "a"}, compute)["value"] == 2
    assert first.row({"seed": 3, "method": "a"}, compute)["value"] == 3
    assert [json.loads(line)["value"] for line in file.read_text().splitlines()] == [1, 2, 3]


def test_a_picture_draws_every_method_of_every_panel() -> None:
    points = [Point(1e15, 0.7, 0.8, 0.9), Point(1e17, 0.85, 0.9, 0.95)]
    panels = [Panel("one <ms>", {"a": points, "b": points[:1]}, {"c": 0.75}), Panel("two", {"a": points}, {})]
    root = ElementTree.fromstring(picture(panels, 0.65, "quality"))
    count = {tag: len(root.findall(f"{{http://www.w3.org/2000/svg}}{tag}")) for tag in ("polyline", "polygon")}
    assert count == {"polyline": 3, "polygon": 3}
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"one <ms>", "two", "a", "b", "c", "quality"} <= texts


def write(table: Table, folder: Path) -> None:
    with gzip.open(folder / FILE, "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arch", "connected", *table.columns])
        rows.writerows(zip(table.archs, table.connected.astype(int), *table.columns.values(), strict=True))


@pytest.mark.slow
def test_the_command_writes_its_page_and_goes_on_where_it_was_cut(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(table, tmp_path)
    listed = ["flops", "e12", "random-50", "random:e12", "nsga2:e12", "pymoo:e12"]
    cache, out = tmp_path / "cache", tmp_path / "out"

    def command(*seeds: str) -> dict[str, object]:
        arguments = ["--data", str(tmp_path), "--methods", *listed, "--costs", COST, "--evaluations", "40"]
        folders = ["--cache", str(cache), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["search_quality", *arguments, "--seeds", *seeds, *folders])
        assert search_quality.main() == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])  # type: ignore[no-any-return]

    command("1")
    first = (cache / "rows.jsonl").read_text()
    assert len(first.splitlines()) == len(listed)
    document = command("2")
    assert (cache / "rows.jsonl").read_text().startswith(first)
    found = document["costs"][COST]  # type: ignore[index]
    assert list(found) == listed
    assert found["nsga2:e12"]["hypervolume"]["seeds"] == 2
    assert set(found["nsga2:e12"]["against"]) == {"random", "pymoo", "FLOPs", "random, equal cost"}
    assert json.loads((out / "search-quality.json").read_text()) == document
    page = (out / "search-quality.md").read_text()
    assert all(f"`{method}`" in page for method in listed)
    assert "search-quality.svg" in page
    ElementTree.parse(out / "search-quality.svg")


@pytest.mark.parametrize("method", ["nsga3:e12", "nsga2:supernet"])  # no signal ever stands in for another
def test_the_command_names_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["search_quality", "--data", ".", "--methods", method])
    with pytest.raises(SystemExit):
        search_quality.main()
    assert f"unknown method '{method}'; known: flops" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--costs", "nosuch"], "'nosuch' is no cost column of the table; these are: flops_m, ms"),
        (["--costs", "c10_test_acc"], "'c10_test_acc' is no cost column"),
        (["--data", "/no/such/folder"], "/no/such/folder/nasbench201.csv.gz"),
    ],
)
def test_the_command_says_what_it_cannot_measure(
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    write(table, tmp_path)
    monkeypatch.setattr(sys, "argv", ["search_quality", "--data", str(tmp_path), "--costs", COST, *arguments])
    with pytest.raises(SystemExit) as end:
        search_quality.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


# --- the real table -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_reference_figures(nasbench201: Path) -> None:
    lines = compare(load_table(nasbench201.parent))
    assert len(lines) == 3 * (1 + 3 + 5)
    assert [line for line in lines if not line["met"]] == []
    # Where chance has no share, nothing but the figure itself will do.
    fixed = [line for line in lines if line["high"] - line["low"] < 0.02]
    assert len(fixed) >= 12
    assert all(line["within_tolerance"] for line in fixed)


@pytest.mark.slow
def test_multiply_adds_alone_correlate_with_the_truth_as_known(nasbench201: Path) -> None:
    table = load_table(nasbench201.parent)
    flops, truth = (table.columns[name][table.connected] for name in ("flops_m", "c10_test_acc"))
    assert spearman(flops, truth) == pytest.approx(0.756, abs=0.001)


def test_signals_are_of_validation(table: Table) -> None:
    assert all("valid_acc" in column for column, _ in runs.COLUMNS.values())
    assert isinstance(runs.table_signal(table, "e12"), TableSignal)
