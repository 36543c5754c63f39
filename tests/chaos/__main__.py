"""``make chaos``: every kind of fault at random moments, on both databases, and a table of what it took to recover.

    python -m tests.chaos [--points 10] [--databases sqlite,postgresql] [--faults child,pool]
        [--algorithms nsga2,darts] [--rows FILE]

``--points`` are faults of each kind on each database under each algorithm, half of them in search, half in
verification. With ``--rows`` what is done is kept and not done again. Ends with a table and one line of JSON; a folder
of a failed campaign stays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.chaos.campaign import ALGORITHMS, PHASES, Campaign
from tests.chaos.world import FAULTS, HASTY, World

SEEDS = (7, 11, 13)
MOST_JOBS = 40
"""A kind of fault that needs more jobs for its points has something wrong."""


def campaign(database: str, fault: str, algorithm: str, points: int, folder: Path) -> list[dict[str, Any]]:
    """Jobs until each phase has had its share of the faults."""
    wanted = {PHASES[0]: points - points // 2, PHASES[1]: points // 2}
    rows: list[dict[str, Any]] = []
    with World(folder, database) as world:
        ordeal = Campaign(world, seed=sum(map(ord, database + fault)), algorithm=algorithm)
        for number in range(MOST_JOBS):
            left = {phase: count - sum(row["phase"] == phase for row in rows) for phase, count in wanted.items()}
            if not any(left.values()):
                return rows
            plan = {phase: [fault] * count for phase, count in left.items()}
            blows = ordeal.run(plan, SEEDS[number % len(SEEDS)])
            for blow in blows:
                facts = {"after": blow.after_seconds, "recovery": blow.recovery_seconds, "job": number}
                rows.append(
                    {"database": database, "fault": fault, "algorithm": algorithm, "phase": blow.phase, **facts}
                )
            print(
                f"{database:10} {fault:15} {algorithm:14} {len(rows)}/{points} faults, job {number + 1} unchanged",
                flush=True,
            )
    raise AssertionError(f"{MOST_JOBS} jobs had room for {len(rows)} of {points} faults")


def _named(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["database"], row["fault"], row["algorithm"]


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By database, fault and algorithm: how many, and the median and longest recovery in seconds."""
    lines = []
    for name in dict.fromkeys(map(_named, rows)):
        own = [row for row in rows if _named(row) == name]
        seconds = [row["recovery"] for row in own]
        line: dict[str, Any] = dict(zip(("database", "fault", "algorithm"), name, strict=True))
        line["jobs"] = len({row["job"] for row in own})
        line |= {phase: sum(row["phase"] == phase for row in own) for phase in PHASES}
        lines.append({**line, "recovery_median": statistics.median(seconds), "recovery_longest": max(seconds)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--algorithms", default="nsga2", help=f"of {','.join(ALGORITHMS)}")
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    rows = (
        [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows and given.rows.exists() else []
    )
    parts = [list(given.databases.split(",")), list(given.faults.split(",")), list(given.algorithms.split(","))]
    for database, fault, algorithm in itertools.product(*parts):
        if any(_named(row) == (database, fault, algorithm) for row in rows):
            continue
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        folder.chmod(0o755)  # a PostgreSQL started by root runs as another user
        print(f"{database}, {fault}: {FAULTS[fault]} (in {folder})", flush=True)
        fresh = campaign(database, fault, algorithm, given.points, folder / "world")
        shutil.rmtree(folder)
        rows += fresh
        if given.rows:
            given.rows.parent.mkdir(parents=True, exist_ok=True)
            with given.rows.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in fresh)
    lines = table(rows)
    head = f"{'database':11}{'fault':16}{'algorithm':15}{'jobs':>5}{'search':>8}{'verify':>8}"
    print(f"{head}{'median s':>10}{'longest s':>11}")
    for line in lines:
        seconds = f"{line['recovery_median']:10.1f}{line['recovery_longest']:11.1f}"
        print(
            f"{line['database']:11}{line['fault']:16}{line['algorithm']:15}{line['jobs']:5}"
            f"{line['searching']:8}{line['verifying']:8}{seconds}"
        )
    print(json.dumps({"settings": HASTY, "unchanged": True, "faults": lines}))


if __name__ == "__main__":
    main()
