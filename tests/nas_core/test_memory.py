"""Peak memory: known answers, and what PyTorch's own allocator says of a real inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton
from nas_core.memory import LiveTensors, inference_memory
from nas_core.network import Network
from nas_core.objectives import objectives
from nas_core.spaces import spaces


def test_live_tensors_are_counted_while_they_live_and_views_count_once() -> None:
    with LiveTensors() as counting:
        a = torch.zeros(100)  # 400 bytes
        view = a.view(10, 10)[2:]
        assert (counting.live, counting.most) == (400, 400)
        b = a + 1
        assert counting.live == 800
        del a
        assert counting.live == 800, "the view still looks at it"
        del view
        assert counting.live == 400
        c = b * 2
        b.add_(1)  # in place: nothing new
        assert (counting.live, counting.most) == (800, 800)
        del b, c
    assert (counting.live, counting.most) == (0, 800)


def test_the_peak_of_a_network_small_enough_to_count_by_hand() -> None:
    """Three cells that copy their input, between the stem and the classifier of NAS-Bench-201."""
    cell = CellType((Edge(1, 0, "skip_connect"),), inputs=1, nodes=1, concat=(1,), pre=("identity",))
    skeleton = Skeleton(("normal",) * 3, 2, "cifar", (1, 8, 8), 10, "residual")
    architecture = Architecture(Genotype("darts", {"normal": cell}), skeleton)
    found = inference_memory(architecture, 1)
    image, map_ = 8 * 8, 2 * 8 * 8
    # most lives in the classifier: the image, the outputs of two cells, the norm's map and its ReLU's
    assert found.activations == 4 * (image + 4 * map_)
    state = Network(architecture).state_dict().values()
    assert found.state == sum(each.numel() * each.element_size() for each in state)
    assert found.peak == found.state + found.activations
    assert inference_memory(architecture, 5).activations == 5 * found.activations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "input"), [("darts", (3, 16, 16)), ("darts", (3, 64, 64)), ("nasbench201", (3, 16, 16))]
)
def test_the_peak_is_what_a_real_inference_holds(space: str, input: tuple[int, int, int]) -> None:
    made = spaces[space](cells=5, channels=8)
    skeleton = made.skeleton(input, 10)
    for seed in range(3):
        architecture = Architecture(made.sample(np.random.default_rng(seed)), skeleton)
        with torch.inference_mode():
            network = Network(architecture).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            held = _most_held(network, torch.zeros(2, *input).to(memory_format=torch.channels_last))
        assert held == pytest.approx(inference_memory(architecture, 2).activations, rel=0.001)


def _most_held(network: Network, images: Tensor) -> int:
    """The most bytes that PyTorch's CPU allocator had given out at the end of any operation, images included.

    What an operation takes and gives back before it ends is scratch memory of its library.
    """
    network(images)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        network(images)
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda each: each.start_ns())
    held = images.numel() * images.element_size()
    ends: list[tuple[int, int]] = []  # (when, 0), of operations that no other one calls; changes are (when, bytes)
    inside = 0
    for event in events:
        if event.name() == "[memory]":
            ends.append((event.start_ns(), event.nbytes()))
        elif event.name().startswith("aten::") and event.start_ns() >= inside:
            inside = event.end_ns()
            ends.append((inside, 0))
    most = held
    for _, size in sorted(ends, key=lambda each: each[0]):
        held += size
        if size == 0:
            most = max(most, held)
    return most


def test_the_objective_says_what_it_counts() -> None:
    space = spaces["darts"](cells=3, channels=4)
    architecture = Architecture(space.sample(np.random.default_rng(0)), space.skeleton((1, 8, 8), 10))
    one, four = (objectives["peak_memory_mb"](batch=batch).value(architecture) for batch in (1, 4))
    assert (one.unit, one.kind, one.detail["counter"]) == ("MB", "exact", "weights + live tensors")
    assert one.value == pytest.approx(one.detail["state_mb"] + one.detail["activations_mb"])
    assert four.detail["state_mb"] == one.detail["state_mb"]
    assert four.detail["activations_mb"] == pytest.approx(4 * one.detail["activations_mb"])
    assert 0 < one.value < 1
