"""rc-darts in the space darts: what searching levels and connections buys, beside networks that people made.

    python -m benchmarks.rc_darts_levels --data FOLDER [--variants 1 3 cell 1+c ...] [--first 0] [--seeds 1]
        [--epochs 3] [--trained 6] [--cache build/search-quality]

FOLDER holds ``cifar10_full_jpeg.npz``. Images are made half as large (16 x 16); networks have five cells of two nodes
and eight channels. A variant is one search of rc-darts, with one cell of each type (``1``), one for each part of the
stack (``3``) or one for each position (``cell``), and with what prepares a cell's inputs searched as well (``+c``). Its
eight bounds are upper ones at 20, 40, 60 and 80 % of the range of ``1`` in parameters and in multiply-adds, each with a
lower one of 0.8 of it; all variants have the same. Rivals are MobileNetV2 (arXiv 1801.04381) and ShuffleNetV2 (arXiv
1807.11164) for small images, at the widths that come nearest to these bounds in parameters from below.

Every network is trained from scratch by one recipe on ``RETRAINED`` images and tested on all 10,000 test images; rows
are kept in the cache as they come. In the end one inference of every network of the first seed (one image, one thread)
is timed, in turns. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.own_scores import run
from benchmarks.quality.images import few, halved
from benchmarks.quality.statistics import spearman
from benchmarks.rows import Row, RowFile, seeded
from nas_core import settings
from nas_core.algorithms.rc_darts import RcDarts
from nas_core.architecture import Architecture, genotype_from_json, genotype_to_json
from nas_core.costs import count
from nas_core.counting import module_cost
from nas_core.data import Augmentation, Split, Splits, first_drawn
from nas_core.measuring import time_interleaved
from nas_core.network import Network
from nas_core.objectives.error import Error
from nas_core.objectives.macs import Macs
from nas_core.objectives.params import Params
from nas_core.pareto import hypervolume, non_dominated
from nas_core.recipe import Recipe
from nas_core.search import Axes, Budget, Problem
from nas_core.spaces.darts import DartsCells
from nas_core.training import seed_of
from nas_core.training.networks import cosine, learn_at, misclassified

SPACE = DartsCells(cells=5, channels=8, nodes=2)
VARIANTS: Mapping[str, DartsCells] = {
    f"{levels}{'+c' if connection else ''}": replace(SPACE, levels=levels, connection=connection)
    for connection in (False, True)
    for levels in (1, 3, "cell")
}
SHARES = (0.2, 0.4, 0.6, 0.8)
FILLED = 0.8
"""Of an upper bound, the lower one: so short a search would take cheap ops alone."""
COSTS: tuple[Literal["params", "macs"], ...] = ("params", "macs")
IMAGES, RETRAINED = 2_000, 6_000
STEPS: Mapping[str, Any] = {"batch": 96, "lr": 0.05, "alpha_lr": 0.01}
WARM = 8
"""Epochs before any bound."""
RECIPE: Mapping[str, Any] = {"batch": 96, "lr": 0.1}
CPU = torch.device("cpu")


# --- networks that people made ------------------------------------------------------------------------------------


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Of MobileNetV2 (figure 3): wider by six, depthwise, narrow again without a ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, wider: int) -> None:
        super().__init__()
        hidden = inputs * wider
        widen = [*_conv(inputs, hidden), nn.ReLU6()] if wider > 1 else []
        self.layers = nn.Sequential(
            *widen, *_conv(hidden, hidden, 3, stride, hidden), nn.ReLU6(), *_conv(hidden, outputs)
        )
        self.keeps = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.keeps else out


def mobilenet(width: float, classes: int) -> nn.Module:
    """MobileNetV2 (table 2) for small images: of its five strides of 2 the last two are left."""

    def wide(channels: int) -> int:
        return max(4, round(channels * width / 4) * 4)

    layers: list[nn.Module] = [*_conv(3, wide(32), 3), nn.ReLU6()]
    inputs = wide(32)
    for wider, channels, times, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 1),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for place in range(times):
            layers.append(InvertedResidual(inputs, wide(channels), 1 if place else stride, wider))
            inputs = wide(channels)
    last = wide(1280)
    return nn.Sequential(
        *layers, *_conv(inputs, last), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)
    )


class ShuffleUnit(nn.Module):
    """Of ShuffleNetV2 (figure 3 c, d): half of the channels pass by; with a stride both halves are computed."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        taken = inputs if stride == 2 else half
        self.stride = stride
        self.layers = nn.Sequential(
            *_conv(taken, half),
            nn.ReLU(),
            *_conv(half, half, 3, stride, half),
            *_conv(half, half),
            nn.ReLU(),
        )
        self.side = (
            nn.Sequential(*_conv(inputs, inputs, 3, 2, inputs), *_conv(inputs, half), nn.ReLU())
            if stride == 2
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        passed, taken = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        both = torch.stack([self.side(passed), self.layers(taken)], dim=2)  # (N, C / 2, 2, H, W): shuffled
        return both.flatten(1, 2)


def shufflenet(width: float, classes: int) -> nn.Module:
    """ShuffleNetV2 (table 5) for small images: a stem of stride 1, no pooling, three stages as published."""

    def wide(channels: int) -> int:
        return max(4, round(channels * width / 4) * 4)

    inputs = wide(24)
    layers: list[nn.Module] = [*_conv(3, inputs, 3), nn.ReLU()]
    for channels, times in ((116, 4), (232, 8), (464, 4)):
        for place in range(times):
            layers.append(ShuffleUnit(inputs, wide(channels), 1 if place else 2))
            inputs = wide(channels)
    last = wide(1024)
    return nn.Sequential(
        *layers, *_conv(inputs, last), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)
    )


RIVALS: Mapping[str, Callable[[float, int], nn.Module]] = {"mobilenet-v2": mobilenet, "shufflenet-v2": shufflenet}
WIDTHS = [round(0.02 * place, 2) for place in range(2, 76)]


def params_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def widths(make: Callable[[float, int], nn.Module], sizes: Sequence[float], classes: int) -> list[float]:
    """The widths that come nearest to sizes in parameters from below; none where the narrowest is above."""
    found = {width: params_of(make(width, classes)) for width in WIDTHS}
    below = [[width for width, params in found.items() if params <= size] for size in sizes]
    return sorted({max(some) for some in below if some})


# --- searches and trainings -----------------------------------------------------------------------------------------


def bounds_of(splits: Splits) -> list[dict[str, dict[str, float]]]:
    """The same for all variants."""
    skeleton = SPACE.skeleton(splits.input, splits.classes)
    found: list[dict[str, dict[str, float]]] = []
    for key in COSTS:
        low, high = (
            getattr(count(Architecture(SPACE.extreme(skeleton, key, dearest), skeleton)), key)
            for dearest in (False, True)
        )
        upper = [float(low + share * (high - low)) for share in SHARES]
        found += [{key: {"min": FILLED * most, "max": most}} for most in upper]
    return found


def searched(splits: Splits, variant: str, seed: int, epochs: int) -> Row:
    """The networks of one search, one for each bound."""
    began, space = time.process_time(), VARIANTS[variant]
    skeleton = space.skeleton(splits.input, splits.classes)
    sets = bounds_of(splits)
    total = WARM + epochs * len(sets)
    problem: Problem[Any] = Problem(
        space=space,
        axes=Axes({"error": Error(), "params": Params(), "macs": Macs()}),
        skeleton=skeleton,
        targets=(skeleton,),
        budget=Budget(1_000, total),
        seed=seed,
        rng=np.random.default_rng(seed),
        device=CPU,
        splits=few(splits, IMAGES, seed),
    )
    given = {**STEPS, "bounds": sets, "warmup": WARM / total}
    engine = settings.parse(RcDarts, given, "rc-darts").engine(problem)
    run(engine)
    networks = []
    for bounds in sets:
        ((key, limit),) = bounds.items()
        holding = []
        for genotype in engine.derived.values():
            costs = count(Architecture(genotype, skeleton))
            if limit["min"] <= getattr(costs, key) <= limit["max"]:
                holding.append((engine.error(genotype), genotype))
        best = min(holding, key=lambda each: each[0], default=None)
        networks.append(None if best is None else genotype_to_json(best[1]))
    return {"networks": networks, "seconds": time.process_time() - began}


def trained(network: nn.Module, splits: Splits, seed: int, epochs: int) -> float:
    """Test error, percent, of any network by the one recipe, from scratch."""
    recipe = Recipe(epochs=epochs, **RECIPE)
    images: Split = first_drawn(splits.train_and_validation, RETRAINED, seed_of(seed, "retrained"))
    augmentation: Augmentation = splits.augmentation
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    order, step, steps = torch.Generator().manual_seed(seed), 0, epochs * (images.size // recipe.batch)
    for _ in range(epochs):
        for batch, labels in images.batches(recipe.batch, order, augmentation, CPU):
            learn_at(optimizer, cosine(step, steps, recipe.lr))
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(batch), labels).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            step += 1
    return 100.0 * misclassified(network, splits.test, CPU) / splits.test.size


def made(line: Row, splits: Splits) -> nn.Module:
    """The network of a line, with fresh weights."""
    if "genotype" in line:
        skeleton = VARIANTS[line["method"]].skeleton(splits.input, splits.classes)
        return Network(Architecture(genotype_from_json(line["genotype"]), skeleton))
    return RIVALS[line["method"]](line["width"], splits.classes)


def verified(line: Row, splits: Splits, seed: int, epochs: int) -> Row:
    began = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        network = made(line, splits)
    params, macs = module_cost(network, splits.input)
    error = trained(network, splits, seed_of(seed, "retraining"), epochs)
    return {
        **line,
        "params": params,
        "macs": macs,
        "test_error": error,
        "seconds": time.process_time() - began,
    }


def _distinct(genotypes: Sequence[Any]) -> list[Any]:
    found: dict[str, Any] = {json.dumps(genotype, sort_keys=True): genotype for genotype in genotypes}
    return list(found.values())


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    file, images = RowFile(given.cache / "rc_darts_levels.jsonl"), halved(given.data)
    lines: dict[int, list[Row]] = {}
    held: dict[str, list[bool]] = {variant: [] for variant in given.variants}
    for seed in range(given.first, given.first + given.seeds):
        splits = images(seed)
        wanted: list[Row] = []
        for variant in given.variants:
            key = {"search": variant, "seed": seed, "epochs": given.epochs, "images": IMAGES, "steps": dict(STEPS)}
            row = file.row(key, partial(searched, splits, variant, seed, given.epochs))
            print(f"seed {seed} {variant}: searched in {row['seconds']:.0f} s", flush=True)
            there = [genotype for genotype in row["networks"] if genotype is not None]
            held[variant] += [genotype is not None for genotype in row["networks"]]
            wanted += [{"method": variant, "genotype": genotype} for genotype in _distinct(there)]
        sizes = [bounds["params"]["max"] for bounds in bounds_of(splits)[: len(SHARES)]]
        for name, make in RIVALS.items():
            wanted += [{"method": name, "width": width} for width in widths(make, sizes, splits.classes)]
        lines[seed] = []
        for line in wanted:
            key = {"network": line, "seed": seed, "trained": given.trained, "images": RETRAINED}
            row = file.row(key, partial(verified, line, splits, seed, given.trained))
            lines[seed].append(row)
            print(
                f"seed {seed} {row['method']:14s} {row['params']:7d} params {row['macs'] / 1e6:6.2f} M multiply-adds: "
                f"{row['test_error']:.1f} %",
                flush=True,
            )
    bounds = {variant: f"{sum(some)} of {len(some)}" for variant, some in held.items()}
    print(
        json.dumps(
            {"benchmark": "rc_darts_levels", "held": bounds, **_summary(lines, images(given.first), given.latency)}
        )
    )
    return 0


def _summary(lines: Mapping[int, Sequence[Row]], splits: Splits, latency: bool) -> dict[str, Any]:
    """Fronts of (error, cost) and their hypervolumes, costs in units of the dearest network of all."""
    first = next(iter(lines.values()))
    if latency:
        networks = [made(line, splits).eval() for line in first]
        timings = time_interleaved(networks, [torch.randn(1, *splits.input) for _ in networks], CPU, 1)
        for line, timing in zip(first, timings, strict=True):
            line["latency_ms"] = 1000 * timing.median
    found: dict[str, Any] = {}
    for key in COSTS:
        largest = max(line[key] for some in lines.values() for line in some)
        for name in dict.fromkeys(line["method"] for line in first):
            volumes, points = [], []
            for some in lines.values():
                own = np.array([[line["test_error"], line[key] / largest] for line in some if line["method"] == name])
                volumes.append(hypervolume(own, [100.0, 1.0]) / 100.0)
                points.append(own[non_dominated(own)].round(4).tolist())
            found.setdefault(name, {})[key] = {"hypervolume": volumes, "front": points}
    if latency:
        by_cost = {
            key: spearman([line[key] for line in first], [line["latency_ms"] for line in first]) for key in COSTS
        }
        kept = ("method", "params", "macs", "latency_ms", "test_error")
        found["latency"] = {"spearman": by_cost, "networks": [{key: line[key] for key in kept} for line in first]}
    return found


def _arguments() -> argparse.Namespace:
    parser = seeded(__doc__)
    parser.set_defaults(seeds=1)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=3, help="of a search, for each bound")
    parser.add_argument("--trained", type=int, default=6, help="epochs of each network")
    parser.add_argument("--latency", action="store_true", help="time inferences: nothing else should run meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
