"""synflow (``nas_core.proxies``) as a signal: a score of an untrained network without any image."""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.quality.oracle import TRAINING, Answer, Floats, Spent
from nas_core.architecture import Architecture
from nas_core.proxies import Untrained
from nas_core.spaces.nasbench201 import NasBench201, from_arch

SKELETON = NasBench201().skeleton((3, 32, 32), 10)
"""The benchmark's own network."""


class SynflowSignal:
    """Minus synflow of the benchmark's network, by row of the table; each cell is built and scored once.

    The weights are those of seed 0 for every cell: a search draws its chance elsewhere.
    """

    preparation = Spent()

    def __init__(self, archs: tuple[str, ...], macs: Floats, file: Path) -> None:
        """``file`` keeps what was scored, one JSON list [row, score, processor seconds] a line."""
        self.archs, self.macs, self.file = archs, macs, file
        self._known: dict[int, tuple[float, float]] = {}
        if file.exists():
            for line in file.read_text().splitlines():
                row, score, seconds = json.loads(line)
                self._known[row] = score, seconds

    def __call__(self, row: int) -> Answer:
        if row not in self._known:
            start = time.process_time()
            score = Untrained(Architecture(from_arch(self.archs[row]), SKELETON)).synflow(0)
            self._known[row] = -score, time.process_time() - start
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.write(json.dumps([row, *self._known[row]]) + "\n")
        score, seconds = self._known[row]
        return Answer(score, Spent(float(TRAINING * self.macs[row]), seconds))
