"""Parts: a network is their sum, whatever it is made of; what they do is what the layers of the real network do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.counting import SPACES
from nas_core.architecture import Architecture, CellType, Edge, Genotype
from nas_core.costs import count
from nas_core.errors import InvalidGenotypeError, UnknownNameError
from nas_core.network import Network
from nas_core.parts import Part, part_work, parts_of, parts_on, work_of
from nas_core.profiles import DeviceProfile, Protocol, Row
from nas_core.profiling import module_of
from nas_core.spaces import spaces


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_the_parts_of_a_space_are_those_of_its_networks(name: str) -> None:
    space = spaces[name](cells=5, channels=4)
    skeleton = space.skeleton((3, 16, 16), 10)
    listed, met, rng = parts_on(space, skeleton), set[Part](), np.random.default_rng(0)
    for _ in range(200):
        met |= set(parts_of(Architecture(space.sample(rng), skeleton)))
    assert met == listed, "each part that is listed stands in some network, and no other"


@pytest.mark.parametrize(("cells", "channels"), [(3, 4), (6, 10)])
def test_a_profile_of_three_widths_tells_of_all_others(cells: int, channels: int) -> None:
    space = spaces["darts"](cells=cells, channels=channels, fan_in="free", levels="cell", filters=True)
    skeleton, rng = space.skeleton((3, 16, 16), 10), np.random.default_rng(4)
    listed = parts_on(space, skeleton)
    assert parts_on(space, skeleton, "rule") == parts_on(space, skeleton, "full") < listed
    rows = tuple(Row(**asdict(part), ms=float(place)) for place, part in enumerate(listed))
    profile = DeviceProfile(name="a", device="b", protocol=Protocol(runtime="c"), parts=rows)
    widths = set()
    for _ in range(100):
        genotype = space.narrowed(space.sample(rng), rng)
        space.check(genotype)
        assert profile.unknown(parts_of(Architecture(genotype, skeleton)), "ms") == []
        widths |= {cell.width for cell in genotype.types.values()}
    assert widths >= set(range(channels // 2 + channels // 2 % 2, channels, 2))


@pytest.mark.parametrize("name", list(SPACES))
def test_multiply_adds_of_parts_are_those_of_the_network(name: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        architecture = SPACES[name](rng)
        assert work_of(architecture).macs == count(architecture).macs


@pytest.mark.parametrize("name", list(SPACES))
def test_modules_of_parts_hold_the_weights_of_the_network(name: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        architecture = SPACES[name](rng)
        numbers = sum(n * _weights(module_of(part, 1)) for part, n in parts_of(architecture).items())
        assert numbers == _weights(Network(architecture))


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_what_modules_read_and_write_is_what_is_counted() -> None:
    """Every layer's input and output, and every number of its state, as hooks on the real modules see them."""
    rng = np.random.default_rng(3)
    architecture = SPACES["nasbench201"](rng)
    for part in parts_of(architecture):
        if part.op in ("add", "concat", "scale", "none") or "skip" in part.op:
            continue  # no layers, or a reduce whose two halves are counted as one
        module, seen = module_of(part, 1).eval(), Counter[str]()

        def look(
            layer: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor, seen: Counter[str] = seen
        ) -> None:
            state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
            seen["weights"] += sum(each.numel() for name, each in state.items() if name != "num_batches_tracked")
            seen["activations"] += given[0].numel() + out.numel()

        for layer in module.modules():
            if not list(layer.children()) and not isinstance(layer, nn.Identity):
                layer.register_forward_hook(look)
        with torch.inference_mode():
            module(torch.zeros(1, part.inputs, *part.size))
        work = part_work(part)
        assert (work.weights, work.activations) == (seen["weights"], seen["activations"]), str(part)


def test_sums_weights_and_middle_widths_are_parts() -> None:
    edges = (Edge(2, 0, "sep_conv_3x3", width=3), Edge(2, 1, "skip_connect", weight=0.5), Edge(2, 1, "max_pool_3x3"))
    cell = CellType(edges, nodes=1, concat=(2,), pool_norm=True)
    genotype = Genotype("darts", {"normal": cell, "reduce": cell})
    found = parts_of(Architecture(genotype, spaces["darts"](cells=3, channels=4, nodes=1).skeleton((1, 8, 8), 10)))
    size = (8, 8)
    assert found[Part("sep_conv_3x3", 4, 4, size, middle=3)] == 3
    assert found[Part("scale", 4, 4, size)] == 3
    assert found[Part("max_pool_3x3", 4, 4, size, pool_norm=True)] == 3
    assert found[Part("add", 4, 4, size)] == 6, "three maps are added twice, in each of three cells"
    assert found[Part("concat", 4, 4, size)] == 3
    assert not [part for part in found if part.op == "skip_connect"], "the identity does nothing"


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        (Part("warp", 4, 4, (8, 8)), UnknownNameError, "unknown part 'warp'; known: .*add.*stem_cifar"),
        (Part("add", 4, 8, (8, 8)), InvalidGenotypeError, "'add' gives as many channels as it takes; got add 4 to 8"),
        (Part("concat", 4, 9, (8, 8)), InvalidGenotypeError, "multiple of the channels of one map"),
        (Part("max_pool_3x3", 4, 8, (8, 8)), InvalidGenotypeError, "gives as many channels as it takes"),
        (Part("conv_1x1", 0, 8, (8, 8)), InvalidGenotypeError, "1 or more; got conv_1x1 0 to 8"),
    ],
)
def test_what_is_no_part_says_so(part: Part, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        part.check()
