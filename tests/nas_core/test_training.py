"""Training of networks: repeatable, resumable bit for bit, honest about divergence."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas_core import checkpoint
from nas_core.architecture import Architecture
from nas_core.errors import CheckpointError, DivergedError
from nas_core.recipe import Recipe
from nas_core.training import Training, misclassified, seed_of
from nas_core.training.networks import cosine
from tests.contracts.problems import SPACE, splits

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PARTS = splits()


def training(seed: int = 0, **recipe: float) -> Training:
    architecture = Architecture(
        SPACE.sample(np.random.default_rng(0)), SPACE.skeleton(PARTS.input, PARTS.classes, channels=4)
    )
    made = Recipe(**{"epochs": 4, "batch": 16, "lr": 0.1, "drop_path": 0.2, **recipe})  # type: ignore[arg-type]
    return Training(architecture, made, PARTS.train, PARTS.augmentation, seed, CPU)


def weights(run: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_it_learns_what_can_be_learnt() -> None:
    run = training(epochs=12, drop_path=0.0)
    losses = []
    while not run.finished:
        losses.append(run.epoch().loss)
    assert losses[-1] < losses[0]
    assert misclassified(run.network, PARTS.select, CPU) / PARTS.select.size < 0.15


@pytest.mark.slow
def test_resuming_equals_never_stopping(tmp_path: Path) -> None:
    whole = training()
    kept = []
    while not whole.finished:
        whole.epoch()
        kept.append(tmp_path / f"{whole.done}.pt")
        checkpoint.save(whole.state(), kept[-1])
    for path in kept:
        again = training(seed=99)
        again.resume(checkpoint.load(path))
        while not again.finished:
            again.epoch()
        assert same(weights(again), weights(whole)), f"differs when resumed from {path.name}"


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(1)
    one = training()
    one.epoch()
    torch.manual_seed(2)
    other = training()
    other.epoch()
    assert same(weights(one), weights(other))
    third = training(seed=1)
    third.epoch()
    assert not same(weights(one), weights(third))


def test_divergence_is_a_clear_error() -> None:
    run = training(lr=1e9, clip=1e9)
    with pytest.raises(DivergedError, match="the loss became .* at a learning rate of 1000000000.0; try a smaller one"):
        while not run.finished:
            run.epoch()


def test_augmentation_can_be_left_out_and_cutout_comes_from_the_recipe() -> None:
    assert training().augmentation == PARTS.augmentation
    plain = training(augment=False, cutout=3)
    assert (plain.augmentation.padding, plain.augmentation.flip, plain.augmentation.cutout) == (0, False, 3)


def test_between_steps_is_called_between_steps() -> None:
    run, calls = training(), []
    run.between_steps = lambda: calls.append(1)
    run.epoch()
    assert len(calls) == PARTS.train.size // 16


def test_a_glance_sees_every_step_and_the_loss_so_far_and_changes_nothing() -> None:
    seen: list[tuple[int, int, float]] = []
    run, other = training(), training()
    run.glance = lambda step, steps, loss: seen.append((step, steps, loss()))
    losses = [run.epoch().loss, run.epoch().loss]
    per_epoch = PARTS.train.size // 16
    assert [step for step, _, _ in seen] == list(range(1, 2 * per_epoch + 1))
    assert {steps for _, steps, _ in seen} == {4 * per_epoch}
    assert [seen[per_epoch - 1][2], seen[-1][2]] == losses
    assert [other.epoch().loss, other.epoch().loss] == losses
    assert same(weights(run), weights(other))


def test_cosine_ends() -> None:
    assert cosine(0, 10, 0.1) == 0.1
    assert cosine(10, 10, 0.1, 0.01) == pytest.approx(0.01)
    assert cosine(5, 10, 0.1) == pytest.approx(0.05)


def test_seeds_depend_on_what_is_trained_alone() -> None:
    assert seed_of(0, "abc", 0) == seed_of(0, "abc", 0)
    assert len({seed_of(0, "abc", 0), seed_of(0, "abc", 1), seed_of(1, "abc", 0), seed_of(0, "abd", 0)}) == 4


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("gotcha",))

    torch.save({"state": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(tmp_path / "evil.pt")
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "none.pt")
