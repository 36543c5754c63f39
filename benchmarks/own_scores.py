"""Differentiable searches that score their networks themselves, run to their end outside of a service."""

from __future__ import annotations

from nas_core.differentiable import Engine
from nas_core.events import Evaluation, Price, Progress, Propose
from nas_core.search import drive


def run(engine: Engine) -> list[dict[str, float]]:
    """Metrics of every epoch; what was derived stands in ``engine.derived``."""

    def answer(asked: Propose | Price) -> list[Evaluation]:
        assert isinstance(asked, Propose)
        return [Evaluation(genotype, (known,)) for genotype, known in zip(asked.genotypes, asked.known, strict=True)]

    return [dict(event.metrics) for event in drive(engine.search(), answer) if isinstance(event, Progress)]
