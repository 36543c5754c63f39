"""``python -m nas_core count GENOTYPE``: what a network costs, without a service, images or torch."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_core.counting import Wanted, architecture_of, built_cost, is_arch, report
from nas_core.errors import NasCoreError
from nas_core.spaces import spaces

DIFFERENT, USAGE = 1, 2
GENOTYPE = "a JSON file: genotype, architecture or the form of DARTS; - reads stdin; or an arch string of NAS-Bench-201"
MOST = 10_000
"""Pixels of a side, channels of an image, classes."""


def whole_number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted; got {text!r}")
    return int(text)


def up_to_most(text: str) -> int:
    if whole_number(text) > MOST:
        raise argparse.ArgumentTypeError(f"at most {MOST} is wanted; got {text!r}")
    return int(text)


def shape(text: str) -> tuple[int, int, int]:
    numbers = text.lower().split("x")
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"channels, height and width such as 3x32x32 are wanted; got {text!r}")
    channels, height, width = (up_to_most(number) for number in numbers)
    return channels, height, width


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m nas_core", description="The science of Skyline, without a service.")
    commands = whole.add_subparsers(dest="command", required=True)
    count = commands.add_parser(
        "count", help="parameters and multiply-adds of a network", description="Prints one JSON object."
    )
    add: Any = count.add_argument
    add("genotype", metavar="GENOTYPE", help=GENOTYPE)
    add("--space", choices=sorted(spaces), help="refuse genotypes of another space")
    add("--cells", type=whole_number, help="cells of the stack; default: as the file or the space has it")
    add("--channels", type=whole_number, help="channels of the first cell; default: as the file or the space has it")
    add("--stem", choices=["auto", "cifar", "imagenet"], help="auto: imagenet from 64 pixels")
    add("--input", type=shape, metavar="CxHxW", help="of an image; default: as the file has it, or 3x32x32")
    add("--classes", type=up_to_most, help="default: as the file has it, or 10")
    add(
        "--check", action="store_true", help="build the network as well (PyTorch) and count that: exit 1 if they differ"
    )
    return whole


def _text(genotype: str) -> str:
    if is_arch(genotype):
        return genotype
    return sys.stdin.read() if genotype == "-" else Path(genotype).read_text("utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 counted, 1 the two counts differ, 2 what was given cannot be counted."""
    given = parser().parse_args(arguments)
    try:
        text = _text(given.genotype)
        wanted = Wanted(given.cells, given.channels, given.stem, given.input, given.classes)
        architecture = architecture_of(text, wanted, given.space)
        found = report(architecture)
    except (OSError, UnicodeDecodeError, NasCoreError) as error:
        print(f"count: {given.genotype}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return USAGE
    if given.check:
        params, macs = built_cost(architecture)
        found["built"] = {"params": params, "macs": macs}
        if (params, macs) != (found["params"], found["macs"]):
            print("count: the table and the built network differ; please report it with this output", file=sys.stderr)
            print(json.dumps(found))
            return DIFFERENT
    print(json.dumps(found))
    return 0


def _run() -> int:
    """As ``main``; who stops reading the output has what they wanted."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be flushed at the exit
        return 0
    return code


if __name__ == "__main__":
    raise SystemExit(_run())
