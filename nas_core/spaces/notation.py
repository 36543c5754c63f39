"""The short notation of networks whose cells all differ, as MGAS (arXiv 2310.15074) finds them: one line a cell, its
common width, and by node what enters it: source, op and, of a sep_conv, the channels between its halves where they are
not the cell's.

    c0 w40 | n2: 0s3/42 1s3/42 | n3: 0s3 0mp 2d5 | n4: 0s3 1mp | n5: 0d5 4sk
"""

from __future__ import annotations

import re

from nas_core.architecture import CellType, Edge, Genotype
from nas_core.errors import InvalidGenotypeError

OPS = {
    "sk": "skip_connect",
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
    "ap": "avg_pool_3x3",
    "mp": "max_pool_3x3",
}
INPUTS = 2
CELL = re.compile(r"c(\d+) w(\d+)((?: \| n\d+:(?: \S+)*)+)")
EDGE = re.compile(rf"(\d+)({'|'.join(OPS)})(?:/(\d+))?")


def from_mgas(text: str) -> Genotype:
    """A genotype of the space darts with ``filters: true``: reduction cells stand at floor(L/3) and floor(2L/3).

    Raises InvalidGenotypeError with the line that cannot be read.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    types = {}
    for position, line in enumerate(lines):
        found = CELL.fullmatch(line)
        if found is None or int(found[1]) != position:
            raise InvalidGenotypeError(
                f"'{line[:60]}' is no cell {position}: 'c{position} w<width> | n2: <edges> | ...'"
            )
        reduction = position in (len(lines) // 3, 2 * len(lines) // 3)
        nodes = [part.split() for part in found[3].split(" | ")[1:]]
        edges = tuple(_edge(int(name[1:-1]), item, line) for name, *items in nodes for item in items)
        name = f"{'reduce' if reduction else 'normal'}{position + 1}"
        concat = tuple(range(INPUTS, INPUTS + len(nodes)))
        types[name] = CellType(
            edges, INPUTS, len(nodes), reduction, "concat", concat, pool_norm=True, width=int(found[2])
        )
        types[name].check(name)
    return Genotype("darts", types)


def _edge(target: int, item: str, line: str) -> Edge:
    found = EDGE.fullmatch(item)
    if found is None:
        raise InvalidGenotypeError(
            f"'{item}' in '{line[:60]}' is no edge: <source><{'|'.join(OPS)}>[/<channels between>]"
        )
    return Edge(target, int(found[1]), OPS[found[2]], int(found[3]) if found[3] else None)
