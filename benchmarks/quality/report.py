"""Rows of all seeds to a Markdown page, a JSON object and the panels of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.picture import Panel, Point
from benchmarks.quality.statistics import Estimate, estimate, paired
from benchmarks.rows import Row

BASELINES = {"random": "random:{signal}", "nsga2": "nsga2:{signal}", "pymoo": "pymoo:{signal}", "FLOPs": "flops"}
"""What a search is compared with, seed by seed: by heading, the method."""
EQUAL_COST = "random, equal cost"


@dataclass(frozen=True)
class Results:
    """Rows by cost column, method and seed; ``equal`` holds random search at the cost of each search's last row."""

    rows: Mapping[str, Mapping[str, Mapping[int, Sequence[Row]]]]
    equal: Mapping[str, Mapping[str, Mapping[int, Row]]]

    def finals(self, cost: str, method: str, what: str) -> dict[int, float]:
        return {seed: float(rows[-1][what]) for seed, rows in self.rows[cost].get(method, {}).items()}

    def at(self, cost: str, method: str, evaluations: int, what: str) -> list[float]:
        """By seed, of those that have a row of so many evaluations."""
        found = self.rows[cost].get(method, {}).values()
        return [float(row[what]) for rows in found for row in rows if row["evaluations"] == evaluations]


def summary(results: Results, cost: str, method: str) -> dict[str, Any]:
    """Medians with intervals of the last rows, the way there, and differences to the baselines seed by seed."""
    mine = results.finals(cost, method, "hypervolume")
    found: dict[str, Any] = {
        what: estimate(list(results.finals(cost, method, what).values())).to_json()
        for what in ("hypervolume", "regret", "multiply_adds", "seconds", "evaluations")
    }
    marks = sorted({row["evaluations"] for rows in results.rows[cost][method].values() for row in rows})
    ways = {mark: results.at(cost, method, mark, "hypervolume") for mark in marks}
    spent = {mark: results.at(cost, method, mark, "multiply_adds") for mark in marks}
    found["by_evaluations"] = [
        {"evaluations": mark, "multiply_adds": estimate(spent[mark]).median, **estimate(ways[mark]).to_json()}
        for mark in marks
        if len(ways[mark]) == len(mine)
    ]
    found["seeds"] = {str(seed): round(value, 5) for seed, value in mine.items()}
    against = {}
    if ":" in method:
        for name, other in BASELINES.items():
            theirs = results.finals(cost, other.format(signal=method.split(":")[1]), "hypervolume")
            if other.format(signal=method.split(":")[1]) != method and theirs:
                against[name] = _difference(mine, theirs)
        equal = {seed: float(row["hypervolume"]) for seed, row in results.equal[cost].get(method, {}).items()}
        if equal:
            against[EQUAL_COST] = _difference(mine, equal)
    found["against"] = {name: value.to_json() for name, value in against.items() if value is not None}
    return found


def _difference(mine: Mapping[int, float], theirs: Mapping[int, float]) -> Estimate | None:
    both = [seed for seed in mine if seed in theirs]
    return paired([mine[seed] for seed in both], [theirs[seed] for seed in both]) if both else None


def markdown_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """One cost column: a line for each method."""
    names = [*BASELINES, EQUAL_COST]
    lines = [
        "| method | seeds | evaluations | multiply-adds | processor s | hypervolume | regret, points | "
        + " | ".join(f"less {name}" for name in names)
        + " |",
        "|---|---|---|---|---|---|---|" + "---|" * len(names),
    ]
    for method, found in summaries.items():
        differences = [_signed(found["against"].get(name)) for name in names]
        volume, regret = found["hypervolume"], found["regret"]
        cells = [
            f"`{method}`",
            str(volume["seeds"]),
            f"{found['evaluations']['median']:.0f}",
            f"{found['multiply_adds']['median']:.1e}" if found["multiply_adds"]["median"] else "0",
            f"{found['seconds']['median']:.1f}",
            f"{volume['median']:.3f} ({volume['low']:.3f} to {volume['high']:.3f})",
            f"{regret['median']:.2f}",
            *differences,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def anytime_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """One cost column: the median hypervolume of each search at each budget."""
    searches = {method: found for method, found in summaries.items() if ":" in method}
    marks = sorted({step["evaluations"] for found in searches.values() for step in found["by_evaluations"]})
    lines = ["| evaluations | " + " | ".join(map(str, marks)) + " |", "|---|" + "---|" * len(marks)]
    for method, found in searches.items():
        by_mark = {step["evaluations"]: step["median"] for step in found["by_evaluations"]}
        lines.append(f"| `{method}` | " + " | ".join(f"{by_mark[m]:.3f}" if m in by_mark else "" for m in marks) + " |")
    return "\n".join(lines) + "\n"


def panel(cost: str, summaries: Mapping[str, Mapping[str, Any]]) -> Panel:
    curves = {
        method: [
            Point(step["multiply_adds"], step["low"], step["median"], step["high"]) for step in found["by_evaluations"]
        ]
        for method, found in summaries.items()
        if ":" in method
    }
    levels = {method: found["hypervolume"]["median"] for method, found in summaries.items() if ":" not in method}
    return Panel(cost, curves, levels)


def _signed(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return ""
    return f"{difference['median']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"


def correlation_table(correlations: Mapping[str, Any], costs: Sequence[str]) -> str:
    """Spearman's rank correlation of each signal with the truth."""
    lines = [
        "| signal | all cells | " + " | ".join(f"tenths by `{cost}`" for cost in costs) + " |",
        "|---|---|" + "---|" * len(costs),
    ]
    for signal, found in correlations.items():
        tenths = [
            f"{sum(values) / len(values):.3f} ({min(values):.2f} to {max(values):.2f})"
            for values in (found["deciles"][cost] for cost in costs)
        ]
        lines.append(f"| `{signal}` | {found['overall']:.3f} | " + " | ".join(tenths) + " |")
    return "\n".join(lines) + "\n"


def page(document: Mapping[str, Any], picture: str) -> str:
    """The Markdown page of a run."""
    settings, costs = document["settings"], list(document["costs"])
    parts = [
        "# Search quality on NAS-Bench-201\n",
        "Made by `python -m benchmarks.search_quality`; do not edit. [What is measured, and how](README.md).\n",
        f"Commit `{document['commit']}`. {settings['seeds']} seeds; medians, in brackets 95 % bootstrap "
        f"intervals. Searches of {settings['evaluations']} evaluations at most, populations of "
        f"{settings['population']}. True values are of `{settings['truth']}`.\n",
        f"![Tight hypervolume against multiply-adds spent]({picture})\n",
        "## Rank correlation with the truth\n",
        "Spearman, over all connected cells, and the mean (least to largest) of the ten tenths by a cost column.\n",
        correlation_table(document["correlations"], costs),
    ]
    for cost, found in document["costs"].items():
        parts += [f"## `{cost}`\n", markdown_table(found)]
        if any(":" in method for method in found):
            parts += ["By evaluations, medians:\n", anytime_table(found)]
    return "\n".join(parts)
