"""Weight masks: bytes and digest, what they fit, and that masked weights neither contribute nor come back."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nas_core import checkpoint
from nas_core.architecture import Architecture, Genotype
from nas_core.costs import count
from nas_core.errors import InvalidGenotypeError
from nas_core.evaluation import Evaluator
from nas_core.events import Evaluated, Evaluation, Price, Propose
from nas_core.exports import Model, export
from nas_core.exports.safetensors_file import Safetensors
from nas_core.inherited import begin, from_bytes, to_bytes
from nas_core.masks import Masks, masked, require
from nas_core.network import Network
from nas_core.objectives.params import Params
from nas_core.quick import quicken
from nas_core.recipe import Recipe, ShortTraining
from nas_core.search import drive
from nas_core.training import Training
from nas_core.values import Value
from nas_core.valuing import exact_value
from tests.contracts.problems import SPACE, problem, splits

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PARTS = splits()
CHANNELS = 4


def plain(seed: int = 3) -> Architecture:
    """With convolutions in its cells."""
    return Architecture(
        SPACE.sample(np.random.default_rng(seed)), SPACE.skeleton(PARTS.input, PARTS.classes, channels=CHANNELS)
    )


def kernels(architecture: Architecture) -> dict[str, Tensor]:
    """Of the cells' convolutions, as a fresh network has them."""
    parameters = Network(architecture).named_parameters()
    return {name: each.detach() for name, each in parameters if name.startswith("cells.") and each.dim() == 4}


def drawn(architecture: Architecture, share: float = 0.4, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(kernel.shape, generator=generator) >= share for name, kernel in kernels(architecture).items()
    }


def with_masks(architecture: Architecture | None = None) -> tuple[Architecture, Masks]:
    architecture = architecture or plain()
    genotype, masks = masked(architecture.genotype, drawn(architecture))
    assert masks is not None
    return replace(architecture, genotype=genotype), masks


def training(architecture: Architecture, masks: Masks | None, **more: object) -> Training:
    recipe = Recipe(epochs=2, batch=16, lr=0.2, clip=0.5, drop_path=0.2, weight_decay=1e-2)
    return Training(architecture, recipe, PARTS.train, PARTS.augmentation, 7, CPU, masks=masks, **more)  # type: ignore[arg-type]


def run(made: Training) -> Training:
    while not made.finished:
        made.epoch()
    return made


def test_equal_masks_have_equal_bytes_and_come_back() -> None:
    found = drawn(plain())
    one = Masks(found)
    whole = {"cells.0.ops.0.9.weight": torch.ones(2, 2, 1, 1, dtype=torch.bool)}
    other = Masks({name: found[name].clone() for name in reversed(list(found))} | whole)
    assert one.to_bytes() == other.to_bytes() and one == other and len({one, other}) == 1
    assert one.digest == hashlib.sha256(one.to_bytes()).hexdigest()
    again = Masks.from_bytes(one.to_bytes())
    assert again == one and all(torch.equal(again.kept[name], found[name]) for name in again.kept)
    assert one.removed == sum(int((~mask).sum()) for mask in found.values()) > 0
    assert one.remaining + one.removed == sum(mask.numel() for mask in found.values())
    name = next(iter(found))
    found[name].view(-1)[0] ^= True
    assert one == again, "it keeps copies"
    assert Masks(found) != one


def test_masks_that_mask_nothing_are_none() -> None:
    architecture = plain()
    whole = {name: torch.ones_like(kernel, dtype=torch.bool) for name, kernel in kernels(architecture).items()}
    assert not Masks(whole) and masked(architecture.genotype, whole) == (architecture.genotype, None)
    nothing = replace(architecture, genotype=replace(architecture.genotype, masks=Masks(whole).digest))
    with pytest.raises(InvalidGenotypeError, match="mask nothing"):
        Masks(whole).check(nothing)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("stem.first.0.weight", torch.zeros(1, 1, 3, 3, dtype=torch.bool), "cannot have a mask"),
        ("classifier.linear.weight", torch.zeros(1, 1, 1, 1, dtype=torch.bool), "cannot have a mask"),
        ("cells.0.ops.0.1.weight", torch.zeros(1, 1, 3, 3), "a tensor of booleans is wanted"),
        ("cells.0.ops.0.3.weight", torch.zeros(4, dtype=torch.bool), "a tensor of booleans is wanted"),
    ],
)
def test_what_is_no_mask_of_a_kernel(name: str, tensor: Tensor, said: str) -> None:
    with pytest.raises(InvalidGenotypeError, match=said):
        Masks({name: tensor})


@pytest.mark.parametrize("content", [b"", b"no file", b'\x08\0\0\0\0\0\0\0{"a":1} ', to_bytes({"a": torch.ones(2)})])
def test_what_is_no_file_of_masks(content: bytes) -> None:
    with pytest.raises(InvalidGenotypeError, match="no file of weight masks|cannot have a mask"):
        Masks.from_bytes(content)


def test_masks_fit_their_network_and_say_what_does_not() -> None:
    architecture, masks = with_masks()
    require(architecture, masks)
    require(plain(), None)
    with pytest.raises(InvalidGenotypeError, match=f"SHA-256 {masks.digest}, which are not here"):
        require(architecture, None)
    with pytest.raises(InvalidGenotypeError, match="the genotype has weight masks none; these have SHA-256"):
        masks.check(plain())
    wider = replace(architecture, skeleton=SPACE.skeleton(PARTS.input, PARTS.classes, channels=CHANNELS + 2))
    with pytest.raises(InvalidGenotypeError, match="weight masks stay with the widths that they were found at"):
        masks.check(wider)
    genotype, strange = masked(
        architecture.genotype, {"cells.0.ops.99.1.weight": torch.zeros(1, 1, 1, 1, dtype=torch.bool)}
    )
    assert strange is not None
    with pytest.raises(InvalidGenotypeError, match=r"one of 'cells.0.ops.99.1.weight', which is no kernel"):
        strange.check(replace(architecture, genotype=genotype))


@pytest.mark.parametrize(("input", "classes"), [((1, 6, 6), 5), ((1, 9, 12), 2), ((3, 8, 8), 7)])
def test_masks_survive_other_images_and_classes(input: tuple[int, int, int], classes: int) -> None:
    architecture, masks = with_masks()
    moved = architecture.on(SPACE.skeleton(input, classes, channels=CHANNELS))
    masks.check(moved)
    network = Network(moved, auxiliary=True)
    masks.hold(network)
    assert masks.leaks(network.state_dict()) == []


def test_masked_weights_have_no_part_in_what_a_network_says() -> None:
    architecture, masks = with_masks()
    network = Network(architecture).eval()
    masks.hold(network)
    images, names = torch.randn(3, *PARTS.input), list(network.state_dict())
    expected = network(images)
    assert names == list(Network(plain()).state_dict())
    poisoned = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, mask in masks.kept.items():
        poisoned[name][~mask] = float("nan")
    network.load_state_dict(poisoned)
    assert torch.equal(network(images), expected) and masks.leaks(network.state_dict()) == []


class Multiplied(nn.Module):
    """A kernel that is multiplied by its mask in every forward."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def test_training_equals_kernels_that_are_multiplied_by_their_masks() -> None:
    """To the bit, with clipping, momentum, weight decay and drop path: MGAS, section 6 of its specification."""
    architecture, masks = with_masks()
    made = run(training(architecture, masks))
    multiplied = training(architecture, masks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = Network(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, mask in masks.kept.items():
        parametrize.register_parametrization(network.get_submodule(name[: -len(".weight")]), "weight", Multiplied(mask))
    quicken(network)  # as any training on a CPU
    multiplied.network, network.drop_path_generator = network, multiplied.generator
    settings = {"lr": 0.2, "momentum": 0.9, "weight_decay": 1e-2}
    multiplied.optimizer = torch.optim.SGD(network.parameters(), **settings)
    run(multiplied)
    for name in masks.kept:
        parametrize.remove_parametrizations(network.get_submodule(name[: -len(".weight")]), "weight")
    expected, found = network.state_dict(), made.network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    unmasked = run(training(plain(), None)).network.state_dict()
    assert masks.leaks(unmasked), "without masks these weights would have been learnt"


def test_masked_weights_never_come_back() -> None:
    architecture, masks = with_masks()
    made = training(architecture, masks)
    made.between_steps = lambda: seen.append(masks.leaks(made.network.state_dict()))
    seen: list[list[str]] = []
    run(made)
    assert seen and not any(seen)
    kept = [weight for name, weight in made.network.state_dict().items() if name in masks.kept]
    assert all(weight.count_nonzero() > 0 for weight in kept)


def test_resuming_with_masks_equals_never_stopping() -> None:
    architecture, masks = with_masks()
    whole = training(architecture, masks)
    whole.epoch()
    state = checkpoint.copied(whole.state())
    again = training(architecture, masks)
    again.resume(state)
    run(whole), run(again)
    other = again.network.state_dict()
    assert all(torch.equal(other[name], tensor) for name, tensor in whole.network.state_dict().items())


def test_a_training_begins_with_what_is_inherited() -> None:
    architecture, masks = with_masks()
    torch.manual_seed(5)
    weights = from_bytes(to_bytes(Network(architecture, auxiliary=True).state_dict()))
    made = training(architecture, masks, weights=weights)
    assert made.fresh == [] and masks.leaks(made.network.state_dict()) == []
    for name, tensor in made.network.state_dict().items():
        gone = ~masks.kept[name] if name in masks.kept else torch.tensor(False)
        assert torch.equal(tensor, weights[name].masked_fill(gone, 0))


def test_inherited_weights_go_to_other_images_and_to_no_other_network() -> None:
    architecture = plain()
    weights = dict(Network(architecture).state_dict())
    moved = architecture.on(SPACE.skeleton((3, 6, 6), 9, channels=CHANNELS))
    network = Network(moved, auxiliary=True)
    classifier = network.classifier.linear.weight.detach().clone()
    assert sorted(begin(network, weights)) == [
        "classifier.linear.bias",
        "classifier.linear.weight",
        "stem.first.0.weight",
    ]
    assert torch.equal(network.classifier.linear.weight, classifier)
    assert torch.equal(network.state_dict()["stem.first.1.weight"], weights["stem.first.1.weight"])
    with pytest.raises(InvalidGenotypeError, match="inherited weights stay with their widths"):
        begin(Network(architecture.on(SPACE.skeleton(PARTS.input, 2, channels=6))), weights)
    lacking = {name: tensor for name, tensor in weights.items() if name != "classifier.linear.bias"}
    with pytest.raises(InvalidGenotypeError, match=r"classifier.linear.bias are missing among the inherited weights"):
        begin(Network(architecture), lacking)
    with pytest.raises(InvalidGenotypeError, match="other are no part of this network"):
        begin(Network(architecture), {**weights, "other": torch.zeros(1)})
    with pytest.raises(InvalidGenotypeError, match="no file of inherited weights"):
        from_bytes(b"nothing")


# --- values and proposals ---------------------------------------------------------------------------------------------


def test_parameters_are_counted_with_and_without_masked_weights() -> None:
    architecture, masks = with_masks()
    network = Network(architecture)
    physical = sum(parameter.numel() for parameter in network.parameters())
    masks.hold(network)
    value = exact_value("params", Params(), architecture, masks.removed)
    gone = sum(int((~mask).sum()) for mask in masks.kept.values())
    assert (value.value, value.detail["nonzero"]) == (physical, physical - gone)
    assert "nonzero" not in exact_value("params", Params(), plain()).detail


def proposed(
    proposal: Propose | Price, masks: dict[str, Masks] | None = None, widths: int = 1
) -> tuple[Evaluation, Evaluated | None]:
    parts = replace(problem(widths=widths), masks=masks or {})
    answers: list[Evaluation] = []

    def search():  # type: ignore[no-untyped-def]
        answers.extend((yield proposal))

    events = [event for event in drive(search(), Evaluator(parts)) if isinstance(event, Evaluated)]
    return answers[0], events[0] if events else None


def of_problem() -> tuple[Genotype, Masks]:
    parts = problem()
    architecture, masks = with_masks(Architecture(plain().genotype, parts.targets[0]))
    return architecture.genotype, masks


def test_a_proposal_carries_masks_and_weights_to_whoever_records_it() -> None:
    genotype, masks = of_problem()
    weights = dict(Network(Architecture(genotype, problem().targets[0])).state_dict())
    scored = ({"error": Value(0.25, "", "supernet")},)
    evaluation, event = proposed(Propose((genotype,), scored, masks=(masks,), weights=(weights,)))
    assert evaluation.failure is None and event is not None
    assert event.masks is masks and event.weights is weights
    params = evaluation.values[0]["params"]
    assert params.value - params.detail["nonzero"] == masks.removed > 0


def test_candidates_are_trained_briefly_under_their_masks() -> None:
    genotype, masks = of_problem()
    short = ShortTraining(epochs=1, batch=32)
    evaluation, _ = proposed(Propose((genotype,), train=short, masks=(masks,)))
    assert evaluation.failure is None and evaluation.values[0]["error"].kind == "trained"
    seeded, _ = proposed(Propose((genotype,), train=short), {masks.digest: masks})
    assert seeded == evaluation, "masks of seeds are the problem's"


def test_a_genotype_whose_masks_are_not_there_or_do_not_fit_fails() -> None:
    genotype, masks = of_problem()
    scored = ({"error": Value(0.25, "", "supernet")},)
    evaluation, _ = proposed(Propose((genotype,), scored))
    assert evaluation.failure is not None and "which are not here" in evaluation.failure
    evaluation, _ = proposed(Propose((genotype,), scored, masks=(masks,)), widths=2)
    assert evaluation.failure is not None and "stay with the widths" in evaluation.failure
    evaluation, _ = proposed(Propose((replace(genotype, masks=None),), scored, masks=(masks,)))
    assert evaluation.failure is not None and "weight masks none" in evaluation.failure


def test_the_price_of_masked_networks_says_nothing_of_zeros_that_it_does_not_know() -> None:
    genotype, _ = of_problem()
    evaluation, _ = proposed(Price((genotype,)))
    assert "nonzero" not in evaluation.values[0]["params"].detail


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "python", "pt2", "onnx"])
def test_exported_networks_have_plain_kernels_with_zeros_and_tell_both_counts(format: str, tmp_path: Path) -> None:
    architecture, masks = with_masks()
    network = Network(architecture)
    masks.hold(network)
    counted = {"all": count(architecture).params, "nonzero": count(architecture).params - masks.removed}
    model = Model(architecture, network.state_dict(), (0.5,), (0.2,), counted["nonzero"])
    assert model.facts["parameters"] == counted
    export(format, model, tmp_path / "network")  # which reads the facts again, and compares
    Safetensors().write(model, tmp_path / "weights")
    again = Model.load(tmp_path / "weights")
    assert again.facts == model.facts and masks.leaks(again.weights or {}) == []
    if format == "onnx":
        tensors = {each.name: each for each in onnx.load(tmp_path / "network").graph.initializer}
        kernels = {name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for name, each in tensors.items()}
        assert masks.leaks(kernels) == []
    assert "parameters" not in replace(model, nonzero=None).facts
