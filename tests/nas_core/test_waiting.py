"""How often the host waits for the device: never in a training step, so that a GPU's queue does not run dry.

Counted on the CPU, where the same operations run: those that hand a tensor's value to Python or to another operation's
shape, and copies that wait. Not counted: PyTorch's own copies to where a tensor is already, and the step counts of
Adam, which it keeps on the CPU.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nas_core import settings
from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture
from nas_core.data import Augmentation
from nas_core.evaluation import Evaluator
from nas_core.recipe import Recipe
from nas_core.search import drive, start
from nas_core.training import Training
from tests.contracts.problems import SPACE, problem, splits

pytestmark = pytest.mark.usefixtures("one_thread")

READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim", "bincount"}
TORCH, ADAM = f"{os.sep}torch{os.sep}", os.path.join("torch", "optim", "adam.py")
PARTS = splits()


def asked_by(*parts: str) -> bool:
    """Whether a file so named is among the callers, Python's and PyTorch's dispatching left out."""
    frame = sys._getframe(2)
    while frame is not None and "pytest" not in frame.f_code.co_filename:
        if any(part in frame.f_code.co_filename for part in parts):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Waits(TorchFunctionMode):
    """Copies to a named place that wait until they are done."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if function in (torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.cuda, torch.tensor):
            self.counted[function.__name__] += 1
        elif function is torch.Tensor.to and not given.get("non_blocking"):
            places = [each for each in (*args[1:], given.get("device")) if isinstance(each, torch.device | str)]
            caller = sys._getframe(1).f_code.co_filename
            self.counted["to"] += bool(places) and TORCH not in caller
        return function(*args, **given)


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations for whose result the host must wait."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = counted

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name in READS and not asked_by(ADAM):
            self.counted[name] += 1
        if name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1]):
            self.counted["index by truth"] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[Counter[str]]:
    counted: Counter[str] = Counter()
    with Waits(counted), Reads(counted):
        yield counted


def an_epoch_of_training(images: int) -> Counter[str]:
    architecture = Architecture(SPACE.sample(np.random.default_rng(0)), SPACE.skeleton(PARTS.input, PARTS.classes, 4))
    recipe = Recipe(epochs=2, batch=8, lr=0.1, drop_path=0.2, augment=True, cutout=2)
    changes = Augmentation(padding=1, flip=True)
    run = Training(architecture, recipe, PARTS.train.part(range(images)), changes, 0, torch.device("cpu"))
    run.epoch()
    with counting() as counted:
        run.epoch()
    return counted


def an_epoch_of_darts(images: int) -> Counter[str]:
    made = problem()
    changed = replace(
        made.splits, train=PARTS.train.part(range(images)), augmentation=Augmentation(padding=1, flip=True)
    )
    object.__setattr__(made, "splits", changed)
    # the plain supernet, as on a GPU, where waiting costs
    search = start(settings.parse(algorithms["darts"], {"batch": 8, "fused": False}, "darts"), made)
    with counting() as counted:
        for _ in drive(search, Evaluator(made)):
            pass
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [an_epoch_of_training, an_epoch_of_darts])
def test_more_steps_wait_no_more_often(epoch: Callable[[int], Counter[str]]) -> None:
    short, long = epoch(16), epoch(48)
    assert long == short
    assert sum(short.values()) > 0, "the loss of an epoch at least is read"


def test_what_waits_is_counted() -> None:
    with counting() as counted:
        tensor = torch.arange(4.0)
        float(tensor.sum())
        tensor.to("cpu")
        tensor.to(torch.device("cpu"), non_blocking=True)
        tensor[tensor > 1]
    assert counted["_local_scalar_dense"] == 1 and counted["to"] == 1 and counted["index by truth"] == 1
