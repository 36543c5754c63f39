"""Times networks side by side, so that what disturbs the machine disturbs all of them alike.

A back-to-back measurement gives each network its own share of the machine's moods, and the ranking is theirs. Here all
networks are visited in rounds, in another order each time. A visit is one sample: the median of the few inferences it
times. A round that was slow for all of them is taken out again (drift), which repeats better than medians or lower
quartiles of what the clock said, and rounds go on until the medians are known well enough.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.devices import synchronize
from nas_core.errors import DeviceError

clock = time.perf_counter

VISIT_SECONDS = 2e-3
"""A visit times at least one inference, and as many as fill this."""
FEWEST_ROUNDS = 9
MOST_ROUNDS = 400
WANTED_ERROR = 0.005
"""Rounds end when the standard error of every network's median is below this share of it, ..."""
SECONDS_PER_NETWORK = 0.6
"""... or when all networks together have used this much each, on the average."""
LEAST_ROUNDS = 3
"""Rounds made whatever they cost."""
WARM_UP_SECONDS = 0.02
"""Per network, before its first visit, and at least WARM_UP_INFERENCES."""
WARM_UP_INFERENCES = 3
FEWEST_FOR_DRIFT = 4
"""With fewer networks a round's common slowness cannot be told from theirs."""
Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one inference of one network, over visits."""

    median: float
    """Without the drift that all networks of the call had in common."""
    standard_error: float
    """Of that median."""
    q25: float
    """Lower quartile of what the clock said."""
    q75: float
    rounds: int
    inferences: int
    """Timed ones, over all rounds."""


def time_interleaved(
    networks: Sequence[nn.Module],
    inputs: Sequence[Tensor],
    device: torch.device,
    threads: int,
    seconds: float = SECONDS_PER_NETWORK,
    *,
    as_part: bool = False,
) -> list[Timing]:
    """Times an inference of each network on its input; both must be on the ``device`` already.

    Rounds go on until the medians are known well enough, or for ``seconds`` per network. ``as_part``: a visit is one
    inference, on an input that was written just before, as a part of a larger network finds it: caches hold what other
    parts left there.

    Changes the statistics of the networks' batch norms. Raises DeviceError when the clock gives no duration.
    """
    if not networks:
        return []
    visits = [_Visit(network, batch, device, as_part) for network, batch in zip(networks, inputs, strict=True)]
    rows: list[list[float]] = []
    with _undisturbed(threads), torch.inference_mode():
        for visit in visits:
            visit.prepare()
        order, shuffle = list(range(len(visits))), random.Random(0)
        end = clock() + seconds * len(visits)
        while not _enough(rows, late=clock() >= end):
            shuffle.shuffle(order)
            row = [math.nan] * len(visits)
            for place in order:
                row[place] = visits[place].sample()
            rows.append(row)
    samples = np.array(rows)
    if not (np.isfinite(samples).all() and (samples > 0).all()):
        raise DeviceError(f"the clock of {device} gave an inference of {samples.min()} s; it cannot measure it")
    medians, errors = _medians(without_drift(samples))
    lower, upper = np.quantile(samples, (0.25, 0.75), axis=0)
    return [
        Timing(
            float(medians[place]),
            float(errors[place]),
            float(lower[place]),
            float(upper[place]),
            len(rows),
            len(rows) * visit.repeats,
        )
        for place, visit in enumerate(visits)
    ]


def fresh(
    architectures: Sequence[Architecture],
    device: torch.device,
    batch: int,
    build: Callable[[Architecture], nn.Module] | None = None,
) -> tuple[list[nn.Module], list[Tensor]]:
    """Stand-alone networks on the device in channels-last order, and a batch of random images for each.

    ``build``: default nas_core.network.Network. PyTorch's global generator is not moved.
    """
    from nas_core.network import Network

    make, form = build or Network, torch.channels_last
    networks, batches = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for architecture in architectures:
            networks.append(make(architecture).to(device, memory_format=form))  # type: ignore[call-overload]
            batches.append(torch.randn((batch, *architecture.skeleton.input)).to(device, memory_format=form))
    return networks, batches


@contextmanager
def inferences(
    networks: Sequence[nn.Module], inputs: Sequence[Tensor], device: torch.device, threads: int
) -> Iterator[list[Callable[[], None]]]:
    """One call for each network that makes an inference and waits for it, on ``threads`` threads of the CPU."""

    def infer(network: nn.Module, batch: Tensor) -> None:
        network(batch)
        synchronize(device)

    with _undisturbed(threads), torch.inference_mode():
        for network, batch in zip(networks, inputs, strict=True):
            _normalise(network.eval(), batch)
        yield [partial(infer, network, batch) for network, batch in zip(networks, inputs, strict=True)]


def without_drift(samples: Samples) -> Samples:  # (rounds, networks), positive -> the same shape
    """Divides each round by how slow it was for the middle network; the middle round stays as it was."""
    if samples.shape[1] < FEWEST_FOR_DRIFT:
        return samples
    logs = np.log(samples)
    level, drift = np.median(logs, axis=0), np.zeros(len(logs))
    for _ in range(3):  # median polish; hardly moves after the second pass
        drift = np.median(logs - level, axis=1)
        drift -= np.median(drift)
        level = np.median(logs - drift[:, None], axis=0)
    corrected: Samples = np.exp(logs - drift[:, None])
    return corrected


def _medians(samples: Samples) -> tuple[Samples, Samples]:
    """Median by network, and its standard error as a normal distribution of the same quartiles would have it."""
    lower, medians, upper = np.quantile(samples, (0.25, 0.5, 0.75), axis=0)
    errors = math.sqrt(math.pi / 2) / 1.349 * (upper - lower) / math.sqrt(len(samples))
    return medians, errors


def _enough(rows: list[list[float]], late: bool) -> bool:
    if late or len(rows) >= MOST_ROUNDS:
        return len(rows) >= LEAST_ROUNDS
    if len(rows) < FEWEST_ROUNDS:
        return False
    samples = np.array(rows)
    if not (samples > 0).all():
        return True  # more rounds would not mend the clock
    medians, errors = _medians(without_drift(samples))
    return bool((errors < WANTED_ERROR * medians).all())


class _Visit:
    """One network, visited once a round."""

    def __init__(self, network: nn.Module, batch: Tensor, device: torch.device, as_part: bool) -> None:
        self.network, self.batch, self.device = network.eval(), batch, device
        self.repeats = 1
        self.source = batch.clone() if as_part else None

    def prepare(self) -> None:
        """Settles the batch norms, warms up, and finds out how many inferences fill a visit."""
        _normalise(self.network, self.batch)
        start = clock()
        durations: list[float] = []
        while len(durations) < WARM_UP_INFERENCES or clock() - start < WARM_UP_SECONDS:
            durations += self._timed(1)
        if self.source is None:
            self.repeats = max(1, min(1000, math.ceil(VISIT_SECONDS / max(min(durations), 1e-6))))

    def sample(self) -> float:
        """Seconds of an inference."""
        if self.source is not None:
            self.batch.copy_(self.source)
        return float(np.median(self._timed(self.repeats)))

    def _timed(self, repeats: int) -> list[float]:
        network, batch = self.network, self.batch
        if self.device.type == "cuda":
            return _timed_by_events(lambda: network(batch), repeats, self.device)
        durations = []
        for _ in range(repeats):
            start = clock()
            network(batch)
            durations.append(clock() - start)
        return durations


def _timed_by_events(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of some inferences as the GPU's own clock saw them, one after the other."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
    synchronize(device)
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    synchronize(device)
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


def _normalise(network: nn.Module, batch: Tensor) -> None:
    """Gives fresh batch norms the statistics of a random batch.

    With those they are built with, activations shrink from layer to layer, in deep networks down to numbers so small
    that a CPU needs many times as long for them.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain mean over what follows, here one batch
        norm.reset_running_stats()
        norm.train()
    network(batch if len(batch) > 1 else torch.cat([batch, -batch]))  # one image alone may have no variance
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextmanager
def _undisturbed(threads: int) -> Iterator[None]:
    """Pins PyTorch's threads and keeps the garbage collector away; both are put back as they were."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
