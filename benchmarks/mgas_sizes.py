"""MGAS at four sizes beside its foils: test error against parameters, on CIFAR-10's images.

    python -m benchmarks.mgas_sizes --data FOLDER [--methods mgas ops ...] [--first 0] [--seeds 3] [--epochs 36]
        [--trained 6] [--cache build/search-quality]

FOLDER holds ``cifar10_full_jpeg.npz``. Images are made half as large (16 x 16); networks have three cells of two nodes
and eight channels, and four ops to an edge (skip, max pool, sep_conv_3x3, dil_conv_3x3). Every search sees the same
``IMAGES`` training and as many validation images for ``epochs`` epochs; every network that it finds is trained from
scratch by one recipe on ``RETRAINED`` images (weight masks held), and tested on all 10,000 test images. A size is a
number of parameters that a network stays below. Methods:

    mgas               operations, filters and weights, one descending run for all sizes
    ops                its operation level alone
    ratios-even, ratios-ops, ratios-fine       its commits keep fixed shares (``RATIOS``), thresholds do not learn
    width              the network that ``ops`` finds for the largest size, its cells uniformly narrower
    entrannas          what EnTranNAS derives, with as many channels as a size leaves room for
    rc-darts           rc-darts (reconstructed), a bound for each size, channels as below
    mgas-no-regrow, mgas-no-reprune, mgas-one-stage, mgas-no-weights      mgas with one part off

EnTranNAS and rc-darts search with eight channels as well. Their networks have two ops to a node: for rc-darts the
targets have the fewest channels with which its dearest network is above the largest size. Rows are kept in the cache as
they come. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.own_scores import run
from benchmarks.quality.images import few, halved
from benchmarks.quality.statistics import estimate, paired
from benchmarks.rows import Row, RowFile, seeded
from nas_core import settings
from nas_core.algorithms.entrannas import EnTranNas
from nas_core.algorithms.mgas import Mgas
from nas_core.algorithms.rc_darts import RcDarts
from nas_core.architecture import Architecture, Genotype, Skeleton, even, genotype_from_json, genotype_to_json
from nas_core.costs import count
from nas_core.data import Splits, first_drawn
from nas_core.evaluation import Evaluator
from nas_core.events import Progress, Propose
from nas_core.granularity.layout import base_widths
from nas_core.masks import Masks
from nas_core.objectives.error import Error
from nas_core.objectives.params import Params
from nas_core.recipe import Recipe
from nas_core.search import Axes, Budget, Problem, drive
from nas_core.spaces.darts import DartsCells
from nas_core.training import seed_of
from nas_core.training.networks import Training, misclassified

OPS = ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3")
TWO = DartsCells(cells=3, channels=8, nodes=2, normal_ops=OPS, reduce_ops=OPS)
FREE = replace(TWO, fan_in="free", levels="cell", filters=True)
SIZES = (24_000.0, 18_000.0, 13_000.0, 10_000.0)
"""Parameters; the full network of ``FREE`` has 39,594."""
IMAGES, RETRAINED = 2_500, 6_000
MGAS: Mapping[str, Any] = {
    "targets": SIZES,
    "batch": 96,
    "lr": 0.05,
    "initial_epochs": 1,
    "commit_every": 1,
    "lambda_start": 0.002,
    "lambda_factor": 1.3,
    "few_ops": 2,
    "alpha_lr": 5.0,
    "rho": (0.85, 0.85, 0.85),
}
RATIOS: Mapping[str, Mapping[str, float]] = {
    "ratios-even": {"ops": 0.9, "filters": 0.95, "weights": 0.95},
    "ratios-ops": {"ops": 0.8, "filters": 0.98, "weights": 0.98},
    "ratios-fine": {"ops": 0.95, "filters": 0.85, "weights": 0.85},
}
GRANULAR: Mapping[str, Mapping[str, Any]] = {
    "mgas": {},
    "ops": {"filters": False, "weights": False},
    **{name: {"fixed_ratios": shares} for name, shares in RATIOS.items()},
    "mgas-no-regrow": {"regrow": 0.0},
    "mgas-no-reprune": {"reprune": False},
    "mgas-one-stage": {"stages": 1},
    "mgas-no-weights": {"weights": False},
}
TWO_INPUTS: Mapping[str, Any] = {"batch": 96, "lr": 0.05, "alpha_lr": 0.01, "fused": True}
BOUNDED: Mapping[str, Any] = {**TWO_INPUTS, "band": 0.2}
METHODS = ("mgas", "ops", *RATIOS, "width", "entrannas", "rc-darts")
ABLATIONS = ("mgas-no-regrow", "mgas-no-reprune", "mgas-one-stage", "mgas-no-weights")
RECIPE: Mapping[str, Any] = {"batch": 96, "lr": 0.1}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Found:
    """A network for a size."""

    architecture: Architecture
    masks: Masks | None = None

    @property
    def params(self) -> int:
        return count(self.architecture).params


Networks = list[Found | None]
"""One for each size; None where a method has none below it."""


@dataclass(frozen=True)
class World:
    """What every run shares."""

    images: Callable[[int], Splits]
    epochs: int
    trained: int

    def problem(self, space: DartsCells, seed: int, target: Skeleton | None = None) -> Problem[Any]:
        splits = self.images(seed)
        skeleton = space.skeleton(splits.input, splits.classes)
        return Problem(
            space=space,
            axes=Axes({"error": Error(), "params": Params()}),
            skeleton=skeleton,
            targets=(target or skeleton,),
            budget=Budget(200, self.epochs),
            seed=seed,
            rng=np.random.default_rng(seed),
            device=CPU,
            splits=few(splits, IMAGES, seed),
        )


def by_size(candidates: Sequence[Found]) -> Networks:
    """The dearest below each size, of equally dear ones the latest."""
    found: Networks = []
    for size in SIZES:
        below = [(each.params, place) for place, each in enumerate(candidates) if each.params < size]
        found.append(candidates[max(below)[1]] if below else None)
    return found


def granular(world: World, name: str, seed: int) -> tuple[Networks, Row]:
    """mgas, or a variant of it."""
    problem = world.problem(FREE, seed)
    algorithm = settings.parse(Mgas, {**MGAS, **GRANULAR[name]}, "mgas")
    candidates: list[Found] = []
    lines: list[dict[str, float]] = []

    def answer(asked: Any) -> Iterator[Any]:
        if isinstance(asked, Propose):
            masks = asked.masks or (None,) * len(asked.genotypes)
            candidates.extend(
                Found(Architecture(genotype, problem.skeleton), mask)
                for genotype, mask in zip(asked.genotypes, masks, strict=True)
            )
        yield from Evaluator(problem)(asked)

    for event in drive(algorithm.search(problem), answer):
        if isinstance(event, Progress):
            lines.append({"epoch": event.step, **event.metrics})
            print(f"  {name} {event.phase} {lines[-1]}", file=sys.stderr, flush=True)
    return by_size(candidates), {"progress": lines}


def narrowed(world: World, seed: int, largest: Genotype) -> tuple[Networks, Row]:
    """One network, every cell narrower by the same factor."""
    skeleton = world.problem(FREE, seed).skeleton
    usual = base_widths(largest.types, skeleton)

    def at(scale: float) -> Found:
        types = {
            name: replace(
                cell,
                width=max(2, even(scale * (cell.width or usual[name]))),
                edges=tuple(replace(edge, width=None) for edge in cell.edges),
            )
            for name, cell in largest.types.items()
        }
        return Found(Architecture(Genotype("darts", types), skeleton))

    return by_size([at(scale) for scale in np.linspace(1.0, 0.2, 81)]), {}


def with_channels(genotype: Genotype, like: Skeleton) -> list[Found]:
    """A network with all the channels that could fit, from few to many."""
    return [
        Found(Architecture(genotype, TWO.skeleton(like.input, like.classes, channels=channels)))
        for channels in range(2, 65, 2)
    ]


def entrannas(world: World, seed: int) -> tuple[Networks, Row]:
    problem = world.problem(TWO, seed)
    engine = settings.parse(EnTranNas, dict(TWO_INPUTS), "entrannas").engine(problem)
    run(engine)
    (derived,) = engine.relaxation.derive()
    return by_size(with_channels(derived, problem.skeleton)), {}


def bounded(world: World, seed: int) -> tuple[Networks, Row]:
    """rc-darts."""
    skeleton = world.problem(TWO, seed).skeleton
    dearest = with_channels(TWO.extreme(skeleton, "params", True), skeleton)
    target = next(each.architecture.skeleton for each in dearest if each.params > SIZES[0])
    least = count(Architecture(TWO.extreme(target, "params", False), target)).params
    sets = [{"params": {"max": max(size, least)}} for size in SIZES]
    problem = world.problem(TWO, seed, target)
    engine = settings.parse(RcDarts, {**BOUNDED, "bounds": sets}, "rc-darts").engine(problem)
    run(engine)
    found = [Found(Architecture(genotype, target)) for genotype in engine.derived.values()]
    return by_size(found), {"channels": target.channels}


def verified(world: World, found: Found, seed: int) -> Row:
    """Trained from scratch: error on all test images, percent, and what the network has."""
    splits = world.images(seed)
    images = first_drawn(splits.train_and_validation, RETRAINED, seed_of(seed, "retrained"))
    training = Training(
        found.architecture,
        Recipe(epochs=world.trained, **RECIPE),
        images,
        splits.augmentation,
        seed_of(seed, "retraining"),
        CPU,
        masks=found.masks,
    )
    while not training.finished:
        training.epoch()
    wrong = misclassified(training.network, splits.test, CPU)
    removed = 0 if found.masks is None else found.masks.removed
    types = found.architecture.genotype.types
    return {
        "test_error": 100 * wrong / splits.test.size,
        "params": found.params,
        "nonzero": found.params - removed,
        "ops": sum(len(cell.edges) for cell in types.values()),
        "widths": [types[name].width for name in found.architecture.skeleton.cells],
        "genotype": genotype_to_json(found.architecture.genotype),
        "channels": found.architecture.skeleton.channels,
    }


def searched(world: World, method: str, seed: int, largest: Callable[[], Genotype]) -> Row:
    """One search, and its networks trained."""
    began = time.process_time()
    if method in GRANULAR:
        networks, more = granular(world, method, seed)
    elif method == "width":
        networks, more = narrowed(world, seed, largest())
    else:
        networks, more = {"entrannas": entrannas, "rc-darts": bounded}[method](world, seed)
    seconds = time.process_time() - began
    trained: dict[str, Row] = {}
    lines: list[Row | None] = []
    for found in networks:
        if found is None:
            lines.append(None)
            continue
        name = found.architecture.hash
        if name not in trained:
            trained[name] = verified(world, found, seed)
        lines.append(trained[name])
    return {"seconds": seconds, "networks": lines, **more}


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    file, images = RowFile(given.cache / "mgas_sizes.jsonl"), halved(given.data)
    world = World(images, given.epochs, given.trained)
    rows: dict[str, list[Row]] = {name: [] for name in given.methods}

    def row(method: str, seed: int) -> Row:
        key = {
            "method": method,
            "seed": seed,
            "epochs": given.epochs,
            "trained": given.trained,
            "sizes": SIZES,
            "images": [IMAGES, RETRAINED],
            "settings": _settings(method),
        }
        return file.row(key, partial(searched, world, method, seed, partial(largest, seed)))

    def largest(seed: int) -> Genotype:
        return genotype_from_json(row("ops", seed)["networks"][0]["genotype"])

    for seed in range(given.first, given.first + given.seeds):
        for method in given.methods:
            rows[method].append(row(method, seed))
            found = rows[method][-1]
            shown = [
                "none" if each is None else f"{each['test_error']:.1f} % at {each['params']}"
                for each in found["networks"]
            ]
            print(f"seed {seed} {method:16s} {', '.join(shown)}; search {found['seconds']:.0f} s", flush=True)
    print(json.dumps({"benchmark": "mgas_sizes", "sizes": SIZES, "results": _summary(rows)}))
    return 0


def _settings(method: str) -> Mapping[str, Any]:
    """Of the search whose networks it trains."""
    if method in GRANULAR:
        return {**MGAS, **GRANULAR[method]}
    return {"width": MGAS, "entrannas": TWO_INPUTS, "rc-darts": BOUNDED}[method]


def _summary(rows: Mapping[str, list[Row]]) -> dict[str, Any]:
    """By method and size: medians, and by how much mgas has the lower error, seed by seed where both have a network."""
    found: dict[str, Any] = {}
    for method, some in rows.items():
        lines = []
        for place in range(len(SIZES)):
            own = [row["networks"][place] for row in some]
            there = [each for each in own if each is not None]
            line: dict[str, Any] = {"networks": len(there)}
            if there:
                line["test_error"] = estimate([each["test_error"] for each in there]).to_json()
                line |= {
                    name: float(np.median([each[name] for each in there])) for name in ("params", "nonzero", "ops")
                }
            mine = [row["networks"][place] for row in rows.get("mgas", [])]
            both = [(o["test_error"], m["test_error"]) for o, m in zip(own, mine, strict=False) if o and m]
            if both and method != "mgas":
                line["mgas_less_by"] = paired(*map(list, zip(*both, strict=True))).to_json()
            lines.append(line)
        found[method] = {"sizes": lines, "search_seconds": estimate([row["seconds"] for row in some]).to_json()}
    return found


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.set_defaults(seeds=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *ABLATIONS])
    parser.add_argument("--epochs", type=int, default=36, help="of each search")
    parser.add_argument("--trained", type=int, default=6, help="epochs of each network")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
