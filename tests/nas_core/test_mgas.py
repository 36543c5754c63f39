"""MGAS: what a faithful implementation must show, by the numbers of its specification. Here what needs no search: the
estimator, gates, commits, regrowth, physical removal, control. The rest stands in test_mgas_search.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count, sites
from nas_core.errors import InvalidGenotypeError
from nas_core.granularity.control import LambdaControl
from nas_core.granularity.layout import as_derived, base_widths, full_types
from nas_core.granularity.learner import Learner, Rates
from nas_core.granularity.masked import Subnet
from nas_core.granularity.measure import Published, total
from nas_core.granularity.narrowing import inherited, rebuilt
from nas_core.granularity.penalty import ops_term, thresholds_term
from nas_core.granularity.regrowth import Survivors, importances, regrown
from nas_core.granularity.slots import Levels, name_of, slot_of
from nas_core.granularity.spent import cost_of
from nas_core.granularity.step import masked, step
from nas_core.granularity.widths import channels, common_width, widths
from nas_core.network import Network
from nas_core.ops import FactorizedReduce
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.notation import from_mgas
from tests.nas_core.mgas_networks import LARGE, SMALL
from tests.nas_core.mgas_problems import SPACE, images, randomised, space_of, subnet

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = space_of(("skip_connect", "sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3"))
WIDE = replace(FEW, channels=8)
RATES = Rates(0.01, 3e-4, 1.0, 0.1, 1e-3)


def labels(count: int = 6) -> Tensor:
    return torch.arange(count) % 3


def gradients(net: Subnet) -> list[dict[str, Tensor]]:
    loss = F.cross_entropy(net(images()), labels())
    cells = [gates.every() for gates in net.gates]
    found = torch.autograd.grad(loss, [tensor for cell in cells for tensor in cell.values()], allow_unused=True)
    each = iter(found)
    return [{name: next(each) for name in cell} for cell in cells]


def test_1_the_step_and_its_estimate() -> None:
    x = torch.tensor([0.0, 0.2, 0.4, 0.7, 1.2], dtype=torch.float64)
    for sign in (1, -1):
        at = (sign * x).requires_grad_()
        out = step(at)
        assert out.tolist() == ([0, 1, 1, 1, 1] if sign == 1 else [0] * 5)
        (slope,) = torch.autograd.grad(out.sum(), at)
        assert torch.allclose(slope, torch.tensor([2, 1.2, 0.4, 0.4, 0], dtype=torch.float64))


def test_1_a_masked_kernel_is_the_product_and_so_are_its_gradients() -> None:
    chance = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, 3, 3, generator=chance, dtype=torch.float64).requires_grad_()
    threshold = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    kept = torch.rand(weight.shape, generator=chance) < 0.8
    by = torch.randn(weight.shape, generator=chance, dtype=torch.float64)
    plain = weight * step(weight.abs() - threshold) * kept
    assert torch.equal(masked(weight, threshold, kept), plain)
    for one, other in zip(
        torch.autograd.grad((masked(weight, threshold, kept) * by).sum(), [weight, threshold]),
        torch.autograd.grad((plain * by).sum(), [weight, threshold]),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-12)


def test_2_one_backward_pass_teaches_all_three_levels() -> None:
    net = randomised(subnet(FEW), 0, 0.3)
    slot = (2, 0, "sep_conv_3x3")
    gates = net.gates[0]
    place = gates.table.place(slot)
    gone = gates.table.place((2, 1, "dil_conv_3x3"))
    with torch.no_grad():
        gates.operation[place] = gates.alpha[place].sigmoid() + 0.1  # below its threshold, not committed
        alive = gates.alive.copy()
        alive[gone] = False
        gates.commit_ops(alive)
    found = gradients(net)[0]
    assert found["alpha"][place] != 0 and found["operation"][place] != 0
    assert torch.allclose(found["alpha"][place], -found["operation"][place] * _sigmoid_slope(gates.alpha[place]))
    other = gates.table.place((3, 0, "sep_conv_3x3"))
    for name in ("alpha", "operation", "filter", "weight"):
        assert found[name][other] != 0, f"of an op that takes part, its {name}"
        assert found[name][gone] == 0, f"of one that is gone, its {name}"
    assert found["beta.3.0.sep_conv_3x3.middle"].abs().sum() > 0
    assert found["beta.3.0.sep_conv_3x3.output"].abs().sum() > 0
    assert found["beta.pre.0"].abs().sum() > 0 and found["inputs"].abs().sum() > 0


def _sigmoid_slope(x: Tensor) -> Tensor:
    return x.sigmoid() * (1 - x.sigmoid())


def test_2_filters_and_weights_below_their_threshold_learn_too() -> None:
    net = randomised(subnet(FEW), 0, 0.3)
    gates, name = net.gates[0], "2.0.sep_conv_3x3.output"
    place = gates.table.place((2, 0, "sep_conv_3x3"))
    with torch.no_grad():
        gates.beta[name][1] = -0.5
        gates.filter[place] = 0.45
        gates.weight[place] = 0.05
    place = [slot_of(edge) for edge in net.cell(0).edges].index((2, 0, "sep_conv_3x3"))
    kernel = dict(net.network.named_parameters())[net.kernels(0, place)[0]]
    assert gates.factors(True)[name][1] == 0
    below = kernel.abs() <= 0.05
    assert below.any()
    loss = F.cross_entropy(net(images()), labels())
    by_beta, by_kernel = torch.autograd.grad(loss, [gates.beta[name], kernel])
    assert by_beta[1] != 0
    assert (by_kernel[below] != 0).any()


@pytest.mark.slow
def test_3_penalty_alone_raises_thresholds_by_its_closed_form() -> None:
    net = subnet(space_of(("skip_connect",)), end=0, levels=Levels(filters=False, weights=False))
    rate, strength, momentum = 0.1, 1e-3, 0.9
    gates = net.gates[0]
    optimizer = torch.optim.SGD([gates.operation], lr=rate, momentum=momentum)
    seen = []
    for _ in range(650):
        optimizer.zero_grad()
        (strength * thresholds_term([gates])).backward()
        optimizer.step()
        seen.append(gates.operation[0, 0].item())
    assert all(earlier < later for earlier, later in pairwise(seen))
    for steps in (100, 650):
        wanted = math.log(1 + rate * strength * steps / (1 - momentum))
        assert seen[steps - 1] == pytest.approx(wanted, abs=0.01)
    assert 0.49 < seen[649] < 0.51, "at lambda 1e-3 a score of a half falls below within about 650 steps"


def test_3_terms_by_hand() -> None:
    net = subnet(FEW, end=0)
    gates = net.gates[0]
    with torch.no_grad():
        gates.alpha[0] = torch.tensor([0.0, 1.0, -1.0, 2.0])
        alive = gates.alive.copy()
        alive[:] = False
        alive[0, :2] = True  # node 2 has two ops, node 3 one
        alive[4, 3] = True
        gates.commit_ops(alive)
    half, other = 0.5, 1 / (1 + math.exp(-1))
    wanted = math.log(1 + 2 * half / (half + other)) + math.log(1 + 2 * other / (half + other)) + math.log(2)
    assert ops_term([gates]).item() == pytest.approx(wanted, rel=1e-6)
    assert thresholds_term([gates]).item() == 3 + 2 + 2, "three ops, one of them a convolution, and two inputs"
    cost = torch.ones(gates.table.shape)
    assert ops_term([gates], [cost], by_cost=0.5).item() == pytest.approx(1.5 * wanted, rel=1e-6)
    coarse = subnet(FEW, end=0, levels=Levels(filters=False, weights=False)).gates[0]
    assert thresholds_term([coarse]).item() == 20, "of ops alone"


def test_5_cost_of_the_full_network_by_the_published_measure() -> None:
    for cells, width, millions in ((8, 16, 1.790), (8, 24, 3.685), (14, 44, 19.05)):
        space = DartsCells(cells=cells, channels=width, fan_in="free", levels="cell", filters=True)
        skeleton = space.skeleton((3, 32, 32), 10)
        full = total(Published(), full_types(space, skeleton), skeleton, whole=True)
        assert full / 1e6 == pytest.approx(millions, abs=5e-4 if millions < 10 else 5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "space", "classes", "millions", "searched"),
    [
        (LARGE, (14, 44), 10, 2.291, 1.506),
        (LARGE, (14, 44), 100, 2.354, 1.506),
        (SMALL, (8, 24), 10, 0.704, 0.518),
        (SMALL, (8, 24), 100, 0.739, 0.518),
    ],
)
def test_5_released_networks_have_their_sizes(
    text: str, space: tuple[int, int], classes: int, millions: float, searched: float
) -> None:
    cells = DartsCells(cells=space[0], channels=space[1], fan_in="free", levels="cell", filters=True)
    genotype = from_mgas(text)
    cells.check(genotype)
    architecture = Architecture(genotype, cells.skeleton((3, 32, 32), classes))
    params = count(architecture).params + unused_inputs(genotype, cells, architecture)
    assert params / 1e6 == pytest.approx(millions, abs=5e-4)
    published = total(Published(), genotype.types, architecture.skeleton, whole=True)
    assert published / 1e6 == pytest.approx(searched, abs=5e-4)
    with torch.device("meta"):
        network = Network(architecture)
    assert sum(parameter.numel() for parameter in network.parameters()) == count(architecture).params


def unused_inputs(genotype: Genotype, space: DartsCells, architecture: Architecture) -> int:
    """In the released code an input that no op takes is still prepared, at the full width of its stage."""
    extra = 0
    for site in sites(genotype.types, architecture.skeleton):
        for place in {0, 1} - {edge.source for edge in genotype.types[site.type].edges}:
            wider = space.widths(site.type)[1] - site.channels
            extra += wider * (site.inputs[place][0] + 2)
    return extra


@pytest.mark.parametrize(
    "text", ["", "c1 w4 | n2: 0sk", "c0 w4 | n2: 0xx", "c0 w4 | n2: 0sk/", "c0 | n2: 0sk", "c0 w4 | n2: 2sk"]
)
def test_a_network_that_cannot_be_read_is_refused(text: str) -> None:
    if text:
        with pytest.raises(InvalidGenotypeError):
            from_mgas(text)
    else:
        with pytest.raises(InvalidGenotypeError):
            SPACE.check(from_mgas(text))


def test_8_what_has_more_momentum_and_score_comes_back_more_often() -> None:
    alive = np.zeros((5, 3), dtype=bool)
    alive[0], alive[1, 0] = True, True
    weak = Survivors(alive, np.full((5, 3), 0.1), np.full((5, 3), 0.1))
    strong = Survivors(alive, np.where(np.arange(3) == 1, 0.9, 0.3) * np.ones((5, 3)), np.full((5, 3), 0.4))
    shares = importances([weak, strong])
    assert shares.sum() == pytest.approx(1)
    drawn = np.zeros((2, 3))
    for seed in range(300):
        for cell, edge, kind in regrown([weak, strong], 2, np.random.default_rng(seed)):
            assert not alive[edge, kind], "only in empty slots"
            drawn[cell, kind] += 1
    assert drawn[1].sum() > 1.5 * drawn[0].sum(), "of the stronger cell"
    assert drawn[1, 1] > 1.3 * max(drawn[1, 0], drawn[1, 2]), "of the kind with more momentum"
    assert np.allclose(drawn / drawn.sum(), shares, atol=0.06)


def test_8_a_kind_without_survivors_can_come_back_and_a_full_one_is_lost() -> None:
    alive = np.ones((2, 2), dtype=bool)
    alive[:, 1] = False
    cell = Survivors(alive, np.ones((2, 2)), np.ones((2, 2)))
    assert importances([cell])[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    found = [regrown([cell], 4, np.random.default_rng(seed)) for seed in range(50)]
    assert all(len(set(slots)) == len(slots) <= 2 and all(slot[2] == 1 for slot in slots) for slots in found)
    assert {len(slots) for slots in found} == {0, 1, 2}
    assert regrown([cell], 0, np.random.default_rng(0)) == []
    lacking = Survivors(alive, np.ones((2, 2)), np.ones((2, 2)), np.array([[True, False]] * 2))
    assert importances([lacking])[0].tolist() == [1, 0], "a kind that the cell does not have"
    assert regrown([lacking], 9, np.random.default_rng(0)) == []
    still = Survivors(alive, np.zeros((2, 2)), np.ones((2, 2)))
    assert importances([still]).sum() == pytest.approx(1), "before anything has moved"


def test_9_every_node_keeps_exactly_one_input() -> None:
    net = subnet(FEW)
    with torch.no_grad():
        for gates in net.gates:
            gates.operation.fill_(0.99)
    for gates in net.gates:
        kept = gates.operations()
        targets = torch.tensor([target for target, _ in gates.table.edges])
        assert [int(kept[targets == node].sum()) for node in (2, 3)] == [1, 1]
        for node in (2, 3):  # asked in turn, it is the last
            rows = [row for row, (target, _) in enumerate(gates.table.edges) if target == node]
            assert kept[rows[-1], -1] == 1
    assert net(images()).shape == (6, 3)
    before = net.ops
    assert net.commit() == before - 6
    assert net.ops == 6
    assert torch.isfinite(net(images())).all()


def test_10_between_commits_units_come_back_and_after_one_they_do_not() -> None:
    net = randomised(subnet(FEW), 0, 0.3)
    gates = net.gates[0]
    slot = (2, 0, "sep_conv_3x3")
    place, name = gates.table.place(slot), "2.0.sep_conv_3x3.output"
    kernel = net.kernels(0, [slot_of(edge) for edge in net.cell(0).edges].index(slot))[0]
    weight = dict(net.network.named_parameters())[kernel]
    with torch.no_grad():
        gates.operation[place], gates.filter[place], gates.weight[place] = 1.0, 1.0, 0.1
        assert gates.operations()[place] == 0 and not gates.filter_masks()[name].any()
        low = weight.abs() <= 0.1
        assert low.any() and not gates.weight_mask(weight, slot)[low].any()
        gates.operation[place], gates.filter[place], gates.weight[place] = 0.0, 0.0, 0.0
        assert gates.operations()[place] == 1 and gates.filter_masks()[name].all()
        assert gates.weight_mask(weight, slot).all(), "nothing was committed"
        gates.filter[place], gates.weight[place] = 1.0, 0.1
        net.commit()
        gates.filter[place], gates.weight[place] = 0.0, 0.0
        weight.fill_(1.0)
        assert torch.equal(net.kept[kernel], ~low)
        assert not gates.filter_masks()[name].any(), "after a commit they cannot"
        assert not gates.factors(True)[name].any()


def aligned(net: Subnet, seed: int = 0) -> None:
    """Commits masks that leave the same channels everywhere in a cell, others between the halves of each sep_conv, and
    some ops and weights."""
    chance = np.random.default_rng(seed)
    for position, gates in enumerate(net.gates):
        width = net.sites[position].channels
        last = position == len(net.sites) - 1
        mask = torch.ones(width, dtype=torch.bool)
        if not last:  # of each half as many, so that factorized reduces can follow
            mask[[1, width // 2 + 1]] = False
        for name in gates.filters:
            if name.endswith(".middle"):
                lost = torch.from_numpy(chance.permutation(width)[:2].copy())
                gates.filters[name][lost if not last else lost[:0]] = False
            else:
                gates.filters[name] = mask.clone()
        alive = chance.random(gates.alive.shape) < 0.6
        alive[[0, -1], 0] = True
        gates.commit_ops(alive)
    for name, kept in net.kept.items():
        net.kept[name] = kept & (torch.rand(kept.shape, generator=torch.Generator().manual_seed(len(name))) < 0.9)


def exact_widths(net: Subnet) -> Subnet:
    """Physically what its masks leave, without rounding."""
    types = {}
    for position, gates in enumerate(net.gates):
        cell = net.alive_edges(position)
        width = int(gates.filters["pre.0"].sum())
        edges = []
        for edge in cell.edges:
            between = gates.filters.get(f"{name_of(slot_of(edge))}.middle")
            middle = width if between is None else int(between.sum())
            edges.append(replace(edge, width=None if middle == width else middle))
        types[net.skeleton.cells[position]] = replace(cell, edges=tuple(edges), width=width)
    return rebuilt(net, types, net.skeleton, channels(net, types), 5, None).net


def test_11_physical_equals_masked() -> None:
    net = randomised(subnet(WIDE), 3, 1.0)
    aligned(net)
    assert any(isinstance(pre, FactorizedReduce) for pre in net.network.cells[2].pre)  # type: ignore[union-attr]
    small = exact_widths(net)
    assert [site.channels for site in small.sites] == [6, 14, 32] and small.ops == net.ops
    x = images()
    with torch.no_grad():
        wanted, found = net.eval()(x, provisional=False), small.eval()(x, provisional=False)
    assert torch.allclose(found, wanted, atol=1e-5)
    sizes = [sum(parameter.numel() for parameter in each.network.parameters()) for each in (net, small)]
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.slow
def test_11_what_the_optimiser_remembers_goes_along() -> None:
    net = randomised(subnet(WIDE), 3, 1.0)
    learner = Learner(net, RATES)
    for _ in range(2):
        learner.step(images(), labels(), 1e-3)
    aligned(net)
    base = base_widths(net.types, net.skeleton)
    types = widths(net, base, (2,))
    kept = channels(net, types)
    new = learner.over(rebuilt(net, types, net.skeleton, kept, 5, None))
    old_places = {slot_of(edge): place for place, edge in enumerate(net.cell(0).edges)}
    seen = 0
    for place, edge in enumerate(new.net.cell(0).edges):
        if edge.op == "dil_conv_3x3":
            before = dict(net.network.named_parameters())[f"cells.0.ops.{old_places[slot_of(edge)]}.2.weight"]
            after = dict(new.net.network.named_parameters())[f"cells.0.ops.{place}.2.weight"]
            both = torch.from_numpy(kept[0].cell)
            assert torch.equal(new.momentum(after), learner.momentum(before)[both][:, both])
            assert torch.equal(after, before[both][:, both])
            seen += 1
    assert seen
    assert torch.equal(new.momentum(new.net.gates[0].alpha), learner.momentum(net.gates[0].alpha))
    new.step(images(), labels(), 1e-3)


def test_11_inherited_weights_are_those_of_the_network() -> None:
    """Without skips that do nothing, whose gates no norm can take, the derived network gives the same logits."""
    space = space_of(("avg_pool_3x3", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5"), channels=8)
    net = randomised(subnet(space), 3, 1.0)
    aligned(net)
    small = exact_widths(net)
    genotype = Genotype("darts", as_derived(small.types, small.skeleton))
    space.check(genotype)
    network = Network(Architecture(genotype, small.skeleton))
    network.load_state_dict(inherited(small, network))
    with torch.no_grad():
        assert torch.allclose(network.eval()(images()), small.eval()(images(), provisional=False), atol=1e-5)


def test_11_the_width_rule() -> None:
    assert common_width([8, 8, 7, 6, 5, 4], 8, 8) == 8, "the mean of 8 8 8 6 6 4, made even"
    assert common_width([8, 8, 2, 2, 2, 2], 8, 8) == 4
    assert common_width([2, 2, 2, 2, 2, 6], 8, 8) == 6, "the mean is below half of 8: the most"
    assert common_width([0, 2, 2, 2, 2, 2], 8, 8) == 4, "and half of 8 where that is less, too"
    assert common_width([5, 5, 5], 5, 5) == 5, "never more than there are"
    assert common_width([0, 0, 0], 2, 2) == 2
    net = subnet(WIDE)
    assert [cell.width for cell in widths(net, base_widths(net.types, net.skeleton)).values()] == [8, 16, 32]
    for gates in net.gates:
        for name, mask in gates.filters.items():
            gates.filters[name] = torch.arange(len(mask)) < len(mask) // 4
    kept = widths(net, base_widths(net.types, net.skeleton), (2,))
    assert [cell.width for cell in kept.values()] == [4, 8, 32]
    assert all(edge.width is None for edge in kept["normal1"].edges), "between their halves as many as outside"


def test_11_channels_that_stay_are_those_that_carry_most() -> None:
    net = subnet(WIDE)
    gates = net.gates[0]
    with torch.no_grad():
        for name, beta in gates.beta.items():
            beta.copy_(torch.tensor([3.0, -3, 3, -3, 3, -3, 3, -3]) if not name.endswith(".middle") else beta)
    types = {**net.types, "normal1": replace(net.types["normal1"], width=4)}
    assert channels(net, types)[0].cell.tolist() == [0, 2, 4, 6]
    for name in gates.filters:
        gates.filters[name][0] = False
    assert channels(net, types)[0].cell.tolist() == [1, 2, 4, 6], "what is masked everywhere goes first"


def test_11_weight_masks_and_cost_follow() -> None:
    net = randomised(subnet(WIDE), 3, 1.0)
    aligned(net)
    before = cost_of(Published(), net, net.skeleton, False, (2,))
    small = exact_widths(net)
    after = cost_of(Published(), small, small.skeleton, False, (2,))
    assert after < before, "C1 of the published measure is the middle width that is there"
    assert after == total(Published(), small.types, small.skeleton, whole=True)
    for name, mask in small.kept.items():
        assert mask.shape == dict(small.network.named_parameters())[name].shape and not mask.all()


def test_12_lambda_follows_what_commits_remove() -> None:
    control, seen = LambdaControl(start=1e-5, factor=2.0, few=12), []
    for removed in (0, 0, 60, 30):
        control.removed(removed)
        seen.append(control.value)
    assert seen == pytest.approx([4e-5, 2e-4, 1e-4, 1e-4])
    assert control.delta == 1e-5


def test_12_lambda_grows_no_more_where_it_outweighs_the_loss() -> None:
    control = LambdaControl(value=0.1, delta=0.01)
    control.removed(0, loss=1.0, regulariser=20.0)
    assert control.value == 0.1
    control.removed(0, loss=3.0, regulariser=20.0)
    assert control.value == pytest.approx(0.14), "nor does its step while it may not"
    for _ in range(20):
        control.removed(0)
    assert control.value == 100


def test_a_foil_keeps_fixed_shares() -> None:
    net = randomised(subnet(FEW), 0, 1.0)
    before = net.ops
    assert net.commit_shares(0.5, 0.75, 0.9) == before - net.ops
    assert net.ops == pytest.approx(before / 2, abs=6)
    gates = net.gates[0]
    assert int(gates.filters["pre.0"].sum()) == 3
    kept = [mask for name, mask in net.kept.items() if mask.numel() >= 16]
    assert all(float(mask.float().mean()) == pytest.approx(0.9, abs=0.05) for mask in kept)
    assert not gates.operation.any(), "thresholds are as they were"


def test_6_the_head_of_a_stage_is_the_published_one_at_32_pixels_and_fits_others() -> None:
    net = subnet(FEW, end=0, stage=0, side=32)
    kernels = [layer.weight.shape for layer in net.network.classifier.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert kernels == [(128, 8, 1, 1), (256, 128, 8, 8)]
    for side in (32, 8, 4):
        net = subnet(FEW, end=0, stage=0, side=side)
        assert net(images(4, side)).shape == (4, 3)
