"""Data-parallel search: two processes come to what one process comes to at the same batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core import checkpoint, settings
from nas_core.algorithms import algorithms
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint
from nas_core.groups import ALONE
from nas_core.search import drive
from tests.contracts.problems import problem
from tests.contracts.test_algorithms import shown

ROOT = Path(__file__).parents[2]
SEARCH = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
import torch.distributed as dist
from nas_core.parallel import Processes
from tests.nas_core.test_parallel import searched
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
for number, (name, given, shared) in enumerate(json.loads(sys.argv[3])):
    searched(name, given, folder / f"{number}-{rank}.pt", Processes(shared))
dist.destroy_process_group()
"""
DARTS: dict[str, Any] = {"batch": 16, "alpha_lr": 0.01}
SEARCHES: list[tuple[str, dict[str, Any], bool]] = [
    ("darts", DARTS, True),
    ("darts", {**DARTS, "order": "second", "resource_weights": [0.5]}, True),
    ("entrannas", DARTS, True),
    ("darts", DARTS, False),
]
"""Algorithm, its settings, whether norms take their statistics of both processes' images."""
NORMS = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch import nn
from nas_core.parallel import Processes
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
given = torch.load(folder / "given.pt", weights_only=True)
group = Processes()
net = nn.Sequential(*(nn.BatchNorm2d(3, affine=affine, track_running_stats=False) for affine in (True, False)))
net.load_state_dict(given["net"])
net = net.double()
group.join(net)
assert list(net.state_dict()) == list(given["net"])
x = group.part(given["x"], torch.zeros(len(given["x"])))[0].clone().requires_grad_()
out = net(x)
(out * group.part(given["slopes"], torch.zeros(len(given["x"])))[0]).sum().backward()
gradients = [p.grad for p in net.parameters()]
group.add(gradients)
assert [group.any(rank == which) for which in (0, 1, 2)] == [True, True, False]
try:
    group.part(torch.zeros(1), torch.zeros(1))
except ValueError as error:
    assert "a batch of 1 images cannot be shared by 2 processes" in str(error)
else:
    raise AssertionError
torch.save({"out": out.detach(), "x": x.grad, "gradients": gradients}, folder / f"{rank}.pt")
dist.destroy_process_group()
"""


def searched(name: str, given: dict[str, Any], path: Path, group: Any = ALONE) -> None:
    """Writes the last checkpoint and all events of a small search."""
    on = problem(epochs=1, seeds=1)
    object.__setattr__(on, "group", group)
    algorithm = settings.parse(algorithms[name], given, name)
    events, state = [], {}
    for event in drive(algorithm.search(on), Evaluator(on)):
        events.append(repr(shown(event)))
        if isinstance(event, Checkpoint):
            state = dict(event.state)
    checkpoint.save({"state": state, "events": events}, path)


def both(code: str, folder: Path, *arguments: str) -> None:
    """Runs two processes, which meet in the folder."""
    started = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(rank), str(folder), *arguments], cwd=ROOT)
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=200) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All searches, one after the other in the same two processes; files NUMBER-RANK.pt."""
    folder = tmp_path_factory.mktemp("two")
    both(SEARCH, folder, json.dumps(SEARCHES))
    return folder


def records(number: int, by_two: Path, folder: Path) -> list[dict[str, Any]]:
    """Of one process alone, of the first and of the second of two."""
    name, given, _ = SEARCHES[number]
    searched(name, given, folder / "alone.pt")
    return [checkpoint.load(path) for path in (folder / "alone.pt", *(by_two / f"{number}-{rank}.pt" for rank in "01"))]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_two_processes_find_the_alpha_of_one(number: int, by_two: Path, tmp_path: Path) -> None:
    alone, first, second = records(number, by_two, tmp_path)
    assert first["events"] == second["events"]
    mine, theirs, others = (found["state"]["relaxation"]["alpha"] for found in (alone, first, second))
    assert farthest(theirs, others) == 0
    assert farthest(mine, theirs) < 1e-5 and float(mine["normal"].abs().max()) > 0.01
    weights = [found["state"]["learner"]["supernet"] for found in (alone, first)]
    assert farthest(*weights) < 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_with_statistics_of_their_own_they_find_another(by_two: Path, tmp_path: Path) -> None:
    alone, first, second = records(3, by_two, tmp_path)
    mine, theirs, others = (found["state"]["relaxation"]["alpha"] for found in (alone, first, second))
    assert farthest(theirs, others) == 0 and first["events"] == second["events"]
    assert farthest(mine, theirs) > 1e-4


@pytest.mark.slow
def test_shared_norms_are_the_norm_of_the_whole_batch(tmp_path: Path) -> None:
    """Values and gradients, in float64, on parts of different size."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(5, 3, 4, 2, generator=generator, dtype=torch.float64) * 3 + 7).requires_grad_()
    slopes = torch.randn(5, 3, 4, 2, generator=generator, dtype=torch.float64)
    net = nn.Sequential(
        nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3, affine=False, track_running_stats=False)
    ).double()
    nn.init.normal_(net[0].weight, 1, 0.2)
    nn.init.normal_(net[0].bias, 0, 0.2)
    torch.save({"x": x.detach(), "slopes": slopes, "net": net.state_dict()}, tmp_path / "given.pt")
    both(NORMS, tmp_path)
    out = net(x)
    (out * slopes).sum().backward()
    assert x.grad is not None
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(found["out"], out[rank::2], atol=1e-12)
        assert torch.allclose(found["x"], x.grad[rank::2], atol=1e-10)
        for gradient, parameter in zip(found["gradients"], net.parameters(), strict=True):
            assert torch.allclose(gradient, parameter.grad, atol=1e-10)
