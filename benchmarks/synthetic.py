"""Candidates as a search tells of them, without a search: real architectures, made-up values with full provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_core.architecture import Genotype, Skeleton
from nas_core.settings import parse
from nas_core.spaces import spaces
from nas_core.values import Value
from skyline.schemas import JobSpec

SPEC: dict[str, Any] = JobSpec.model_validate(
    {
        "name": "benchmark",
        "space": {"name": "darts", "cells": 8, "channels": 16},
        "dataset": {"name": "digits"},
        "objectives": ["error", "params", "latency_ms"],
        "algorithm": {"name": "nsga2"},
        "reference_point": {"error": 0.9, "params": 2_000_000, "latency_ms": 40},
    }
).model_dump(mode="json")

Points = NDArray[np.float64]
_SPACE = parse(spaces["darts"], {"cells": 8, "channels": 16}, "space")
SKELETON: Skeleton = _SPACE.skeleton((1, 8, 8), 10)


def genotypes(count: int, seed: int = 0) -> Iterator[Genotype]:
    """Distinct members of the DARTS space (two in 10**18 draws are alike)."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _SPACE.sample(rng)


def values(
    error: float, params: float, latency: float, *, verified: bool = False, cheap: bool = False
) -> dict[str, Value]:
    """What a candidate is found to have, with the protocol behind each number as the service records it.

    ``cheap``: as a supernet and a predictor say, whose numbers may be written some at a time.
    """
    trained = {"epochs": 20, "seeds": 1, "split": "select", "n": 500}
    seen = {"epochs": 2, "seeds": 1, "split": "validation", "n": 1000, "subset": 6000, "batch": 64}
    measured = {
        "device": "cpu: Intel(R) Xeon(R) CPU @ 2.80GHz, 2 cores",
        "batch": 1,
        "dtype": "float32",
        "runtime": "torch 2.8.0",
        "threads": 1,
        "at": "2026-01-01T00:00:00+00:00",
        "n": 60,
        "rounds": 12,
        "q25": latency * 0.98,
        "iqr": latency * 0.04,
        "standard_error": latency * 0.004,
    }
    return {
        "error": Value(error, "", "supernet" if cheap else "trained", trained if verified else seen),
        "params": Value(float(round(params)), "", "exact", {"counter": "trainable parameters"}),
        "latency_ms": Value(latency, "ms", "predicted" if cheap else "measured", measured),
    }


def converging(count: int, seed: int = 0) -> Points:
    """(count, 3): error, params, latency in order of arrival, as of a search that gets better and slower to improve.

    Latency follows params with a scatter, error falls with params; of 5,000 some 450 are not dominated.
    """
    rng = np.random.default_rng(seed)
    size = rng.random(count)
    speed = np.clip(size + rng.normal(0, 0.05, count), 0.02, None)
    worse = rng.exponential(0.3, count) / (1 + np.arange(count) / 500)
    error = 0.04 + 0.3 * (1 - size) ** 2 * np.exp(-speed) + worse
    return np.column_stack([error, 200_000 + 1_000_000 * size, 2 + 10 * speed])


def with_front(count: int, members: int, seed: int = 0) -> tuple[Points, NDArray[np.int64]]:
    """((count, 3), (members,)): as above, where exactly the points named are not dominated."""
    rng = np.random.default_rng(seed)
    place = np.sort(rng.choice(count, members, replace=False))
    share = rng.permutation(np.linspace(0, 1, members))
    best = np.column_stack([0.05 + 0.3 * (1 - share) ** 2, 200_000 + 1_000_000 * share, 2 + 10 * share])
    points = best[rng.integers(members, size=count)] * (1.001 + rng.exponential(0.2, (count, 3)))
    points[place] = best
    return points, place
