"""How fast a step of the supernet is, beside the layout that the papers' code has, and what each optimisation is worth.

    python -m benchmarks.supernet_step [--batches 16 64] [--threads 2] [--repeats 5] [--seeds 0 1 2] [--processor-time]

A step is forward, backward (weights and gates) and an update by SGD, C=16, L=8, images of 3x32x32, float32. The
reference below is DARTS as published (arXiv 1806.09055): NCHW, op by op, every op computed, weighted and added. What
is compared has the same weights and must have the same loss to 1e-4. Rows take turns in every repeat, the least time
counts. DARTS' rows add one optimisation after another:

    reference        NCHW, op by op
    channels-last    the plain supernet, whose maps lie in channels-last order
    fused            the fused executor (nas_core/supernet/fused.py), all its convolutions and pools as torch has them
    windows, phases, pools        kernels that oneDNN is fast with
    compiled         depthwise and pointwise convolutions by our own kernels (nas_core/chains.c); windows and
                     phases have nothing left to do. Without a C compiler this row is the one before
    update           SGD's own fused kernel

EnTranNAS (arXiv 2101.11342) has two Engine-cells, the first of each type, features are shared over targets, the others
run the cell derived from alpha, which is drawn by each seed; its rows are means over seeds. Memory is what is kept for
the backward pass, weights left out, distinct storages. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_core.compiled import chains
from nas_core.devices import MIB
from nas_core.spaces.darts import DARTS_OPS, TYPES, DartsCells
from nas_core.supernet import Supernet
from nas_core.supernet.fused import ELSEWHERE, Ways, fuse
from worker.template import ALLOCATOR

SPACE = DartsCells(cells=8, channels=16)
SELECTING = replace(SPACE, normal_ops=DARTS_OPS[1:], reduce_ops=DARTS_OPS[1:])
"""EnTranNAS' ops: no ``none``."""
SKELETON = SPACE.skeleton((3, 32, 32), 10)
SAME = 1e-4
SPEEDUP = {"darts": 3.0, "entrannas": 12.0}
SAVING = 4.5


# --- the published layout -------------------------------------------------------------------------------------------


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


class HalfReduce(nn.Module):
    """Factorized reduce."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.second = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        out: Tensor = self.norm(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], dim=1))
        return out


class Nothing(nn.Module):
    """The op ``none``."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """One candidate, as published."""

    def convolutions(kernel: int, stride: int, dilation: int) -> list[nn.Module]:
        padding = dilation * (kernel // 2)
        return [
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm(channels),
        ]

    match name.split("_"):
        case ["none"]:
            return Nothing(stride)
        case ["skip", _]:
            return HalfReduce(channels, channels) if stride == 2 else nn.Identity()
        case ["max", *_]:
            return nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(channels))
        case ["avg", *_]:
            return nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(channels))
        case ["dil", _, size]:
            return nn.Sequential(*convolutions(int(size[0]), stride, 2))
        case [_, _, size]:
            return nn.Sequential(*convolutions(int(size[0]), stride, 1), *convolutions(int(size[0]), 1, 1))
    raise ValueError(f"unknown op '{name}'")


class ReferenceCell(nn.Module):
    """A relaxed cell: every node sums the weighted ops of all nodes before it."""

    def __init__(self, inputs: tuple[int, int], channels: int, reduction: bool, halved: bool) -> None:
        super().__init__()
        self.first = HalfReduce(inputs[0], channels) if halved else self._squeeze(inputs[0], channels)
        self.second = self._squeeze(inputs[1], channels)
        self.edges = nn.ModuleList(
            nn.ModuleList(operation(name, channels, 2 if reduction and source < 2 else 1) for name in DARTS_OPS)
            for _, source in SPACE.edges
        )

    @staticmethod
    def _squeeze(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs))

    def forward(self, first: Tensor, second: Tensor, gates: Tensor) -> Tensor:
        states = [self.first(first), self.second(second)]
        edge = 0
        for node in range(2, 6):
            mixed = []
            for source in range(node):
                ops: Any = self.edges[edge]
                mixed.append(sum(weight * op(states[source]) for weight, op in zip(gates[edge], ops, strict=True)))
                edge += 1
            states.append(sum(mixed[1:], start=mixed[0]))
        return torch.cat(states[2:], dim=1)


class Reference(nn.Module):
    """The search network of DARTS with the weights of ``original``, in NCHW."""

    def __init__(self, original: Supernet) -> None:
        super().__init__()
        width = 3 * SKELETON.channels
        stem_norm = nn.BatchNorm2d(width, track_running_stats=False)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), stem_norm)
        inputs, channels, halved = (width, width), SKELETON.channels, False
        self.cells = nn.ModuleList()
        for kind in SKELETON.cells:
            channels *= 2 if kind == "reduce" else 1
            self.cells.append(ReferenceCell(inputs, channels, kind == "reduce", halved))
            inputs, halved = (inputs[1], 4 * channels), kind == "reduce"
        self.classifier = nn.Linear(inputs[1], SKELETON.classes)
        with torch.no_grad():
            for mine, theirs in zip(self.parameters(), original.parameters(), strict=True):
                mine.copy_(theirs)

    def forward(self, x: Tensor, gates: Mapping[str, Tensor]) -> Tensor:  # (N, 3, H, W) -> (N, classes)
        before = last = self.stem(x)
        for kind, cell in zip(SKELETON.cells, self.cells, strict=True):
            before, last = last, cell(before, last, gates[kind])
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))
        return logits


# --- what is compared -----------------------------------------------------------------------------------------------


@dataclass
class Step:
    """One row: a network, its gates and its optimiser."""

    weights: nn.Module
    logits: Callable[[Tensor], Tensor]
    gates: list[Tensor]
    order: torch.memory_format = torch.channels_last
    fused_update: bool = False
    clock: ClassVar[Any] = staticmethod(time.perf_counter)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(
            self.weights.parameters(), lr=1e-4, momentum=0.9, weight_decay=3e-4, fused=self.fused_update or None
        )

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(images.contiguous(memory_format=self.order)), labels)

    def __call__(self, images: Tensor, labels: Tensor) -> float:
        """Seconds of one step."""
        for gate in self.gates:
            gate.grad = None
        self.optimizer.zero_grad(set_to_none=True)
        began = self.clock()
        self.loss(images, labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        seconds: float = self.clock() - began
        return seconds


def supernet(space: DartsCells, share: bool = False, ways: Ways | None = None, seed: int = 0) -> Supernet:
    """Always the same weights, in channels-last order; ``ways``: run by the fused executor."""
    torch.manual_seed(seed)
    made = space.supernet(SKELETON, share_features=share)
    made = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made if ways is None else fuse(made, ways)


def strengths(space: DartsCells, seed: int) -> dict[str, Tensor]:
    """Softmax of alpha drawn from a normal distribution, (edges, ops) by type."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(space.edges), len(space.normal_ops)
    return {name: torch.randn(shape, generator=generator).softmax(dim=1).requires_grad_() for name in TYPES}


def darts(ways: Ways | None, fused_update: bool = False) -> Step:
    net, gates = supernet(SPACE, ways=ways), strengths(SPACE, 0)
    return Step(net, lambda x: net(x, gates), list(gates.values()), fused_update=fused_update)


def reference() -> Step:
    net, gates = Reference(supernet(SPACE)), strengths(SPACE, 0)
    return Step(net, lambda x: net(x, gates), list(gates.values()), order=torch.contiguous_format)


def entrannas(seed: int, share: bool, ways: Ways | None, fused_update: bool = False) -> Step:
    """Engine-cells at the first place of each type."""
    net, gates = supernet(SELECTING, share, ways), strengths(SELECTING, seed)
    derived = SELECTING.selection(SELECTING.derive({name: gate.detach().numpy() for name, gate in gates.items()}))
    kinds = SKELETON.cells
    engines = [kinds.index(kind) == place for place, kind in enumerate(kinds)]
    mixing = [gates[kind] if engine else None for kind, engine in zip(kinds, engines, strict=True)]
    active = [None if engine else derived[kind] for kind, engine in zip(kinds, engines, strict=True)]
    return Step(net, lambda x: net(x, mixing, active), list(gates.values()), fused_update=fused_update)


WAYS = {
    "fused": ELSEWHERE,
    "windows": replace(ELSEWHERE, windows=True),
    "phases": Ways(pools=False, compiled=False),
    "pools": Ways(compiled=False),
    "compiled": Ways(),
}
"""One more each."""
DARTS: Mapping[str, Callable[[], Step]] = {
    "reference": reference,
    "channels-last": lambda: darts(None),
    **{name: lambda ways=ways: darts(ways) for name, ways in WAYS.items()},  # type: ignore[misc]
    "update": lambda: darts(Ways(), fused_update=True),
}


def saved(step: Step, images: Tensor, labels: Tensor) -> int:
    """Bytes kept for the backward pass: distinct storages, those of the weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in step.weights.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = step.loss(images, labels)
    found = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    del loss
    return found


def compared(rows: Mapping[str, Callable[[], Step]], batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds (least), loss of the first step and saved MiB per image, by row."""
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn((batch, *SKELETON.input), generator=generator), torch.arange(batch) % SKELETON.classes
    steps = {name: make() for name, make in rows.items()}
    found = {}
    for name, step in steps.items():
        found[name] = {
            "loss": step.loss(images, labels).item(),
            "saved_mib_an_image": saved(step, images[:2], labels[:2]) / 2 / MIB,
            "seconds": float("inf"),
        }
    for _ in range(repeats + 1):  # the first is a warm-up that a least time forgets
        for name, step in steps.items():
            found[name]["seconds"] = min(found[name]["seconds"], step(images, labels))
    return found


def measured(batch: int, repeats: int, seeds: list[int]) -> dict[str, Any]:
    ours = Ways(), True
    rows = dict(DARTS)
    for seed in seeds:
        rows[f"entrannas plain {seed}"] = lambda seed=seed: entrannas(seed, True, None)  # type: ignore[misc]
        rows[f"entrannas unshared {seed}"] = lambda seed=seed: entrannas(seed, False, *ours)  # type: ignore[misc]
        rows[f"entrannas {seed}"] = lambda seed=seed: entrannas(seed, True, *ours)  # type: ignore[misc]
    found = compared(rows, batch, repeats)
    lines = {name: found[name] for name in DARTS}
    for name in ("entrannas plain", "entrannas unshared", "entrannas"):
        some = [found[f"{name} {seed}"] for seed in seeds]
        lines[name] = {key: fmean(row[key] for row in some) for key in some[0]}
    base, before = lines["reference"], 0.0
    for name, line in lines.items():
        line["times_faster"] = base["seconds"] / line["seconds"]
        line["times_less_memory"] = base["saved_mib_an_image"] / line["saved_mib_an_image"]
        if name in DARTS:
            line["own_share"] = max(before - line["seconds"], 0.0) / base["seconds"] if before else 0.0
            before = line["seconds"]
        share = f", own share {100 * line['own_share']:4.1f} %" if "own_share" in line else ""
        print(
            f"batch {batch} {name:18s} {line['seconds']:7.3f} s {line['times_faster']:6.2f} x faster, "
            f"{line['saved_mib_an_image']:6.1f} MiB an image, {line['times_less_memory']:5.2f} x less{share}",
            flush=True,
        )
    same = [abs(found[name]["loss"] - base["loss"]) for name in DARTS]
    same += [abs(found[f"entrannas {seed}"]["loss"] - found[f"entrannas plain {seed}"]["loss"]) for seed in seeds]
    return {"batch": batch, "rows": lines, "largest_difference_of_losses": max(same)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="of one thread, where others use the machine too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of EnTranNAS' alpha")
    given = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):  # as in a worker's attempts
        words = [sys.executable, "-m", "benchmarks.supernet_step", *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, **ALLOCATOR})
    if given.processor_time:
        given.threads, Step.clock = 1, staticmethod(time.process_time)
    torch.set_num_threads(given.threads)
    found = [measured(batch, given.repeats, given.seeds) for batch in given.batches]
    checks = {
        "losses_are_equal": all(each["largest_difference_of_losses"] <= SAME for each in found),
        "darts_is_fast": all(each["rows"]["update"]["times_faster"] >= SPEEDUP["darts"] for each in found),
        "entrannas_is_fast": all(each["rows"]["entrannas"]["times_faster"] >= SPEEDUP["entrannas"] for each in found),
        "entrannas_is_small": all(each["rows"]["entrannas"]["times_less_memory"] >= SAVING for each in found),
    }
    versions = {
        "torch": torch.__version__,
        "threads": given.threads,
        "repeats": given.repeats,
        "processor_time": given.processor_time,
        "compiled": chains() is not None,
    }
    print(json.dumps({"benchmark": "supernet_step", **versions, "checks": checks, "batches": found}))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
