"""Cuts labelled images into disjoint parts that each hold every class in its share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_core.errors import DatasetError

Places = NDArray[np.int64]
SMALLEST_CLASS = 4
"""Images a class must have before the cut, so that train and validation get at least one each."""
SELECT_SHARE, SELECT_LEAST, SELECT_MOST = 0.1, 500, 0.2


@dataclass(frozen=True, slots=True)
class Cut:
    """Places in the training data, by part."""

    train: Places
    validation: Places
    select: Places


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images of each part of the training data."""

    train: int
    validation: int
    select: int

    @property
    def total(self) -> int:
        return self.train + self.validation + self.select


def sizes(count: int, fraction: float = 1.0) -> Sizes:
    """How ``count`` training images are cut: a ``fraction`` of them is used. ``select`` gets SELECT_SHARE of that, but
    at least SELECT_LEAST images, but at most the share SELECT_MOST; the rest is halved.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie above 0 and not above 1; got {fraction}")
    total = round(fraction * count)
    select = min(max(round(SELECT_SHARE * total), SELECT_LEAST), int(SELECT_MOST * total))
    train = (total - select + 1) // 2
    return Sizes(train, total - select - train, select)


def split_by_class(labels: NDArray[np.int64], seed: int, fraction: float = 1.0) -> Cut:
    """Cuts the training data as :func:`sizes` says, every class in its share of every part.

    The same labels and seed give the same cut. Raises DatasetError when a class is left with less than SMALLEST_CLASS
    images.
    """
    size = sizes(len(labels), fraction)
    groups, _ = _divide(_shuffled_by_class(labels, seed), size.total)
    for label, places in enumerate(groups):
        if len(places) < SMALLEST_CLASS:
            share = "" if fraction == 1 else f" in the drawn fraction {fraction:g}"
            raise DatasetError(
                f"class {label} has {len(places)} training images{share}; at least {SMALLEST_CLASS} are needed "
                f"to cut train, validation and select" + (": raise the fraction" if share else "")
            )
    select, rest = _divide(groups, size.select)
    train, validation = _divide(rest, size.train)
    return Cut(*(np.sort(np.concatenate(part)) for part in (train, validation, select)))


def hold_out(labels: NDArray[np.int64], share: float) -> tuple[Places, Places]:
    """(kept, held out) places: the ``share`` of each class, rounded down in all; the same for the same labels."""
    held, kept = _divide(_shuffled_by_class(labels, seed=0), int(share * len(labels)))
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def drawn_by_class(labels: NDArray[np.int64], share: float, seed: int) -> Places:
    """Places of a ``share`` of the images, of each class its part; the same for the same labels and seed."""
    drawn, _ = _divide(_shuffled_by_class(labels, seed), max(1, round(share * len(labels))))
    return np.sort(np.concatenate(drawn))


def _shuffled_by_class(labels: NDArray[np.int64], seed: int) -> list[Places]:
    """Places of each class 0, 1, ..., in an order that only the seed decides."""
    # Raw bits of PCG64 and a stable sort: NumPy promises the bits for ever, but not its shuffles.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    return [order[labels[order] == label] for label in range(int(labels.max(initial=-1)) + 1)]


def _divide(groups: list[Places], size: int) -> tuple[list[Places], list[Places]]:
    """Splits ``size`` places off, from each group its share, rounded by largest remainder: (split off, left)."""
    counts = np.array([len(group) for group in groups], dtype=np.int64)
    total = int(counts.sum())
    taken = counts * size // max(total, 1)
    remainders = counts * size - taken * total
    for label in np.argsort(-remainders, kind="stable")[: size - int(taken.sum())]:
        taken[label] += 1
    return (
        [group[:count] for group, count in zip(groups, taken, strict=True)],
        [group[count:] for group, count in zip(groups, taken, strict=True)],
    )
