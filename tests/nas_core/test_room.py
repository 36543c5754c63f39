"""Out of memory: one retry in two pieces, on record; then a reason. The device is a stand-in, the training is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_core import checkpoint, settings
from nas_core.algorithms import algorithms
from nas_core.architecture import Architecture
from nas_core.errors import NoRoomError
from nas_core.evaluation import Evaluator
from nas_core.events import Checkpoint, Evaluated
from nas_core.recipe import Recipe
from nas_core.search import Problem, drive, start
from nas_core.supernet.weights import WeightLearner
from nas_core.training import Training, misclassified
from nas_core.training.room import in_pieces, is_out_of_memory, release
from tests.contracts.problems import SPACE, problem, splits
from tests.standins.gpu import Gpu, gpu

pytestmark = pytest.mark.usefixtures("one_thread")

CUDA = torch.device("cuda", 0)
PARTS = splits()


def training(seed: int = 0, batch: int = 16) -> Training:
    architecture = Architecture(
        SPACE.sample(np.random.default_rng(0)), SPACE.skeleton(PARTS.input, PARTS.classes, channels=4)
    )
    recipe = Recipe(epochs=3, batch=batch, lr=0.1, drop_path=0.2)
    return Training(architecture, recipe, PARTS.train, PARTS.augmentation, seed, CUDA)


def weights(run: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def to_the_end(run: Training) -> Training:
    while not run.finished:
        run.epoch()
    return run


class Memory:
    """Suffices for everything until a training reaches an epoch, then for so many images."""

    def __init__(self, run: Training, epoch: int, images: int, steps: int = 0) -> None:
        self.run, self.epoch, self.images = run, epoch, images
        self.left = steps

    def __call__(self) -> float:
        if self.run.done < self.epoch:
            return float("inf")
        self.left -= 1
        return float("inf") if self.left >= 0 else self.images


def test_pieces_are_a_batch() -> None:
    images, labels = torch.arange(7.0)[:, None], torch.arange(7)
    assert [(len(some), share) for some, _, share in in_pieces(images, labels, 1)] == [(7, 1.0)]
    parts = in_pieces(images, labels, 2)
    assert [len(theirs) for _, theirs, _ in parts] == [4, 3] and sum(share for *_, share in parts) == 1
    assert torch.equal(torch.cat([some for some, *_ in parts]), images)
    assert len(in_pieces(images[:3], labels[:3], 2)) == 1, "one image alone has no statistics"


def test_gradients_of_pieces_are_those_of_the_batch() -> None:
    torch.manual_seed(0)
    model, images, labels = nn.Linear(5, 3), torch.randn(7, 5), torch.randint(3, (7,))
    found = []
    for pieces in (1, 2):
        model.zero_grad()
        for some, theirs, share in in_pieces(images, labels, pieces):
            (nn.functional.cross_entropy(model(some), theirs) * share).backward()
        found.append(model.weight.grad.clone())
    assert torch.allclose(*found, atol=1e-7)


@pytest.mark.slow
def test_an_epoch_that_does_not_fit_is_done_again_in_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu(monkeypatch) as device:
        run = training()
        device.holds = Memory(run, epoch=1, images=8, steps=50)  # it is used up in the middle of the second epoch
        assert run.epoch() is not None and run.micro_batch is None
        before = weights(run)
        assert run.epoch() is None
        assert run.done == 1 and run.micro_batch == 8 and device.out_of_memory == 1
        assert same(weights(run), before), "as if the epoch had never begun"
        assert run.no_room is not None and "a step of 16 images does not fit into the 8.0 GiB of cuda:Stand-in 0" in (
            run.no_room.warning
        )
        assert "micro-batches of 8" in run.no_room.warning
        again = run.epoch()
        assert again is not None and again.number == 2
        to_the_end(run)
        assert device.out_of_memory == 1
    planned = training_in_pieces_from(1)
    assert same(weights(run), weights(planned)), "the failed steps have left no trace"


def training_in_pieces_from(epoch: int) -> Training:
    with Gpu():
        run = training()
        while not run.finished:
            run.pieces = 2 if run.done >= epoch else 1
            run.epoch()
    return run


@pytest.mark.slow
def test_resuming_equals_never_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    with gpu(monkeypatch) as device:
        whole = training()
        device.holds = Memory(whole, epoch=1, images=8)
        while not whole.finished:
            whole.epoch()
            kept.append(tmp_path / f"{len(kept)}.pt")
            checkpoint.save(whole.state(), kept[-1])
        assert len(kept) == 4, "three epochs, and one that did not fit"
        for path in kept:
            again = training(seed=99)
            again.resume(checkpoint.load(path))
            device.holds = Memory(again, epoch=1, images=8)
            assert same(weights(to_the_end(again)), weights(whole)), f"differs when resumed from {path.name}"


@pytest.mark.slow
def test_halves_that_do_not_fit_end_it_with_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu(monkeypatch, holds=7) as device:
        run = training()
        assert run.epoch() is None
        with pytest.raises(NoRoomError) as raised:
            run.epoch()
        assert device.out_of_memory == 2
    assert str(raised.value) == (
        "out of memory: a step of 16 images, in 2 pieces of 8, does not fit into the 8.0 GiB of cuda:Stand-in 0; "
        "a smaller batch, fewer channels or cells, or a device with more memory would do"
    )
    with gpu(monkeypatch, holds=1), pytest.raises(NoRoomError, match="a step of 2 images does not fit"):
        training(batch=2).epoch()


@pytest.mark.slow
def test_the_tensors_of_a_failed_step_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    seen: list[weakref.ref[torch.Tensor]] = []
    with gpu(monkeypatch, holds=8):
        run = training()
        run.network.register_forward_pre_hook(lambda module, args: seen.append(weakref.ref(args[0])))
        forward = run.network.with_auxiliary
        run.network.with_auxiliary = lambda images: (seen.append(weakref.ref(images)), forward(images))[1]
        assert run.epoch() is None
    assert seen and all(tensor() is None for tensor in seen)


@pytest.mark.slow
def test_other_errors_pass_and_other_libraries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("shapes do not match")) and not is_out_of_memory(ValueError())
    release()
    run = training_on_cpu()

    def broken() -> None:
        raise RuntimeError("something else")

    run.between_steps = broken
    with Gpu(), pytest.raises(RuntimeError, match="something else"):
        run.epoch()


def training_on_cpu() -> Training:
    with Gpu():
        return training()


@pytest.mark.slow
def test_evaluation_takes_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    run = training_on_cpu()
    wanted = misclassified(run.network, PARTS.test, torch.device("cpu"))
    forward, sizes = run.network.forward, []

    def narrow(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(images)

    run.network.forward = narrow  # type: ignore[method-assign]
    monkeypatch.setattr("nas_core.training.networks.SMALL_BATCH", 30)
    assert misclassified(run.network, PARTS.test, torch.device("cpu")) == wanted
    assert sizes[0] == 40 and sizes[1:] == [30, 10]
    monkeypatch.setattr("nas_core.training.networks.SMALL_BATCH", 35)
    with pytest.raises(NoRoomError, match="a step of 35 images does not fit"):
        misclassified(run.network, PARTS.test, torch.device("cpu"))


# --- searches ---------------------------------------------------------------------------------------------------------


def on_gpu(**changes: Any) -> Problem[Any]:
    made = problem()
    for name, value in {"device": CUDA, **changes}.items():
        object.__setattr__(made, name, value)
    return made


def algorithm(name: str, **chosen: Any) -> Any:
    return settings.parse(algorithms[name], chosen, name)


@pytest.mark.slow
def test_candidates_trained_in_pieces_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with gpu(monkeypatch, holds=8):
        on = on_gpu(warn=said.append)
        search = start(algorithm("random", batch=4, evaluate={"epochs": 1, "batch": 16}), on)
        found = [event.evaluation for event in drive(search, Evaluator(on)) if isinstance(event, Evaluated)]
    assert found and {evaluation.failure for evaluation in found} == {None}
    assert {evaluation.values[0]["error"].detail["micro_batch"] for evaluation in found} == {8}
    assert len(said) == len(found) and len(set(said)) == 1
    with gpu(monkeypatch, holds=7):
        on = on_gpu()
        search = start(algorithm("random", batch=4, evaluate={"epochs": 1, "batch": 16}), on)
        found = [event.evaluation for event in drive(search, Evaluator(on)) if isinstance(event, Evaluated)]
    assert found and all((evaluation.failure or "").startswith("out of memory: a step of 16") for evaluation in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chosen"),
    [("darts", {"batch": 16}), ("random", {"batch": 4, "evaluate": {"supernet_epochs": 3, "batch": 16}})],
)
def test_a_supernet_search_goes_on_in_pieces_from_its_last_checkpoint(
    name: str, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with gpu(monkeypatch) as device:
        states: list[Any] = []
        with pytest.raises(NoRoomError) as raised:
            on = on_gpu()
            for event in drive(start(algorithm(name, **chosen), on), Evaluator(on)):
                if isinstance(event, Checkpoint):
                    states.append(checkpoint.copied(event.state))
                    device.holds = 8
        assert raised.value.can_be_halved and raised.value.batch == 16 and len(states) == 1
        ends = []
        for _ in range(2):
            on = on_gpu(pieces=2)
            events = list(drive(start(algorithm(name, **chosen), on, checkpoint.copied(states[0])), Evaluator(on)))
            values = [event.evaluation.values[0]["error"].to_json() for event in events if isinstance(event, Evaluated)]
            ends.append(values)
        assert ends[0] == ends[1] and {value["micro_batch"] for value in ends[0]} == {8}
        device.holds = 7
        on = on_gpu(pieces=2)
        with pytest.raises(NoRoomError, match="a step of 16 images, in 2 pieces of 8, does not fit"):
            list(drive(start(algorithm(name, **chosen), on, checkpoint.copied(states[0])), Evaluator(on)))


def test_a_supernet_learns_the_same_from_pieces_where_no_norm_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of the classifier, whose gradient depends on its own images alone, apart from what the norms do."""
    images, labels = torch.randn(8, 1, 6, 6), torch.randint(2, (8,))
    moved = []
    for pieces in (1, 2):
        torch.manual_seed(0)
        supernet = SPACE.supernet(SPACE.skeleton((1, 6, 6), 2))
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.forward = lambda x: x  # type: ignore[method-assign]
        learner = WeightLearner(supernet, epochs=1, lr=0.1, pieces=pieces)
        learner.start(0)
        learner.step(images, labels, (None, None))
        moved.append((learner.loss_so_far(), [parameter.detach().clone() for parameter in supernet.parameters()]))
    assert moved[0][0] == pytest.approx(moved[1][0], rel=1e-5)
    for one, other in zip(moved[0][1], moved[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-5)
