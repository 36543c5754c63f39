"""``python -m nas_core.pictures FOLDER``: reads every picture of a folder as a training would, before a job does.

Names all that cannot be read, and says what there is. Exit codes: 0 all can be read, 1 some cannot, 2 no such folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nas_core.datasets._pictures import look
from nas_core.datasets.imagefolder import USUAL_SIZE, files_by_class
from nas_core.errors import DatasetError

AHEAD = 1000
"""Pictures that are given out at a time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture."""

    kind: str
    """Its class."""
    side: int = 0
    """The smaller of height and width, pixels."""
    grey: bool = False
    fault: str = ""
    """Why it cannot be read."""


def see(picture: tuple[str, Path], size: int) -> Seen:
    kind, path = picture
    try:
        side, grey = look(path, size)
    except DatasetError as error:
        return Seen(kind, fault=str(error))
    return Seen(kind, side, grey)


def all_seen(pictures: Sequence[tuple[str, Path]], size: int) -> Iterator[Seen]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders run beside each other
        for start in range(0, len(pictures), AHEAD):
            yield from pool.map(partial(see, size=size), pictures[start : start + AHEAD])


def summary(seen: Sequence[Seen]) -> Iterator[str]:
    """What there is, as lines."""
    good = [each for each in seen if not each.fault]
    counts = Counter(each.kind for each in good)
    classes = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    sides = [each.side for each in good]
    text = f"{len(good)} pictures in {len(counts)} classes: {classes}"
    if good:
        text += f"; smaller side {min(sides)} to {max(sides)} pixels; grey {sum(each.grey for each in good)}"
    yield text
    if len(good) < len(seen):
        yield f"{len(seen) - len(good)} cannot be read: mend or remove them before a job is posted"


def told(seen: Iterable[Seen]) -> Iterator[Seen]:
    """Passes pictures on, and prints what is wrong with them."""
    for each in seen:
        if each.fault:
            print(each.fault, flush=True)
        yield each


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m nas_core.pictures", description="Read every picture of a folder.")
    parser.add_argument(
        "folder", type=Path, help="as the data set imagefolder has it: CLASS/IMAGE, or train/CLASS/IMAGE"
    )
    parser.add_argument("--size", type=int, default=USUAL_SIZE, help=f"setting of the data set; default {USUAL_SIZE}")
    asked = parser.parse_args(arguments)
    try:
        pictures = files_by_class(asked.folder)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seen = list(told(all_seen(pictures, asked.size)))
    for line in summary(seen):
        print(line)
    return int(any(each.fault for each in seen))


if __name__ == "__main__":
    sys.exit(main())
