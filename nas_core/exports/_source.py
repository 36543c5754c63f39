"""A network as Python source: cells, stem and stack from the architecture, layers copied out of nas_core itself.

Modules have the names that they have in nas_core.network, so weights go from one to the other by name. Names of cell
types come from users: they reach the source as literals or as checked identifiers only.
"""

from __future__ import annotations

import ast
import base64
import inspect
import re
from collections.abc import Iterator
from pprint import pformat
from textwrap import indent

import torch
from torch import nn

from nas_core import ops
from nas_core.architecture import CellType, Edge
from nas_core.costs import BARE, FAMILIES, Site, sites
from nas_core.errors import ExportError
from nas_core.exports._model import Model
from nas_core.stem import Classifier, NormClassifier, Stem

WIDTH = 120
"""Columns of a line."""

GIVEN = frozenset({"Norm"})
"""What the head of every file defines in its own words."""

TAKEN = frozenset({"groups_for"})
"""What layers use, but nas_core.ops does not define itself."""

HEAD = '''"""A trained image classifier, found by Skyline: {channels} x {height} x {width} pixels to {classes} classes.

This file needs PyTorch (2.8 or newer) alone. Run it, and it says what it holds. To use it:

    network = load()                         # in evaluation mode
    logits = network(normalised(pixels))     # (N, {channels}, {height}, {width}) -> (N, {classes})

Pixels are in the units of the files that the network was trained with: where those were 0 to 255, so are they here.
The architecture is below as ARCHITECTURE, the weights stand at the end as text.
"""

from __future__ import annotations

import base64

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

HASH = "{hash}"  # SHA-256 of the architecture
INPUT = {input}  # channels, height, width
CLASSES = {classes}
MEAN = {mean}  # by channel
STD = {std}
{parameters}
Norm = type[nn.BatchNorm2d]
NORM: Norm = nn.BatchNorm2d


def normalised(pixels: Tensor) -> Tensor:  # (N, C, H, W) -> the same
    """Pixels as the network wants them."""
    mean, std = (torch.tensor(numbers, device=pixels.device)[:, None, None] for numbers in (MEAN, STD))
    return (pixels.float() - mean) / std


# Layers, as in nas_core/ops.py and nas_core/stem.py of Skyline (Apache-2.0).
'''

STEM = '''class Stem(nn.Module):
    """Images to the inputs of the first cell."""

    def __init__(self) -> None:
        super().__init__()
        self.first = {first}
        self.second = {second}

{forward}'''

CELL = '''class {name}(nn.Module):
    """Nodes {first} to {last} are sums of ops on earlier nodes; the cell's inputs are the nodes before them."""

    TYPE = {type}
    INPUTS = {inputs}

    def __init__(self, before: list[tuple[int, int]], channels: int) -> None:
        """``before``: channels of each input, and the stride that brings it to the size of this cell's maps."""
        super().__init__()
        self.pre = nn.ModuleList({pre})
        self.ops = nn.ModuleList(
            [
{ops}
            ]
        )

    def forward(self, *before: Tensor) -> Tensor:  # inputs -> (N, C, H, W)
        {given} = [pre(x) for pre, x in zip(self.pre, before)]
{nodes}
        return {out}
'''

NETWORK = '''class Network(nn.Module):
    """Stem, cells and classifier; each cell sees the outputs of the two before it, or of the last alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.cells = nn.ModuleList(
            [
{cells}
            ]
        )
        self.classifier = {classifier}({outputs}, CLASSES)

    def forward(self, x: Tensor) -> Tensor:  # normalised images (N, C, H, W) -> logits (N, classes)
        states = self.stem(x)
        for cell in self.cells:
            states = [states[-1], cell(*states[-cell.INPUTS :])]
        return self.classifier(states[-1])
'''

TAIL = '''def load() -> Network:
    """The trained network, in evaluation mode, on the CPU."""
    network = Network()
    state = network.state_dict()
    targets = [tensor for tensor in state.values() if tensor.is_floating_point()]
    sizes = [tensor.numel() for tensor in targets]
    values = torch.frombuffer(bytearray(base64.b64decode(WEIGHTS)), dtype=torch.float32)
    if len(values) != sum(sizes):
        raise ValueError(f"{{sum(sizes)}} weights are wanted, but this file holds {{len(values)}}; get it again")
    for target, part in zip(targets, values.split(sizes)):
        target.copy_(part.view_as(target))
    return network.eval()


def main() -> None:
    """Says what this file holds."""
    network = load()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad():
        logits = network(torch.zeros(1, *INPUT))
    print(f"A network found by Skyline, architecture {{HASH}}")
    print(f"cells: {{', '.join(str(cell.TYPE) for cell in network.cells)}}; {{parameters}} parameters")
    print(f"images: {{' x '.join(map(str, INPUT))}} (channels, height, width); mean {{MEAN}}, deviation {{STD}}")
    print(f"output: {{logits.shape[1]}} logits, one a class")


ARCHITECTURE = {architecture}

# Parameters and running statistics in the order of Network().state_dict(), float32, little-endian, base64.
WEIGHTS = """
{weights}
"""

if __name__ == "__main__":
    main()
'''


def source(model: Model) -> str:
    """The whole file. Raises ExportError for weights that do not fit and for ops without a source."""
    network = model.network("python")
    types, skeleton = model.architecture.genotype.types, model.architecture.skeleton
    where = sites(types, skeleton)
    names = _class_names(site.type for site in where)
    calls = {name: [_op(edge, types[name]) for edge in types[name].edges] for name in names}
    called = {word for several in calls.values() for call in several for word in re.findall(r"\w+", call)}
    channels, height, width = skeleton.input
    parts = [
        HEAD.format(
            channels=channels,
            height=height,
            width=width,
            classes=skeleton.classes,
            hash=model.architecture.hash,
            input=tuple(skeleton.input),
            mean=tuple(model.mean),
            std=tuple(model.std),
            parameters="" if model.parameters is None else f"PARAMETERS = {model.parameters}  # nonzero: not masked\n",
        ),
        *_definitions(called | {word for name in names for word in re.findall(r"\w+", _pre(types[name]))}),
        *(inspect.getsource(kind) for kind in _classifiers(network.classifier)),
        _stem(network.stem),
        *(_cell(types[name], name, names[name], calls[name]) for name in names),
        _network(where, names, type(network.classifier).__name__),
        TAIL.format(architecture=pformat(model.architecture.to_json(), width=WIDTH), weights=_text(network)),
    ]
    return "\n\n".join(part.strip("\n") + "\n" for part in parts)


def _class_names(types: Iterator[str]) -> dict[str, str]:
    """A class name for each cell type, in order of first use: ``normal`` -> ``NormalCell``."""
    names: dict[str, str] = {}
    for name in types:
        if name in names:
            continue
        stem = "".join(word[0].upper() + word[1:] for word in re.findall("[A-Za-z0-9]+", name))[:40]
        chosen = wanted = f"{stem if stem[:1].isalpha() else 'Type' + stem}Cell"
        number = 2
        while chosen in names.values():
            chosen, number = f"{wanted}{number}", number + 1
        names[name] = chosen
    return names


def _op(edge: Edge, cell: CellType) -> str:
    """The call that makes an edge's op, as nas_core.ops.make_op does."""
    family, kernel = FAMILIES[edge.op]
    from_input = edge.source < cell.inputs
    stride = 2 if cell.reduction and from_input else 1
    width = f"before[{edge.source}][0]" if from_input and cell.pre[edge.source] == BARE else "channels"
    common = f"{width}, channels, {kernel}, {stride}, NORM"
    match family:
        case "none":
            return f"Zero({stride})"
        case "skip":
            return "nn.Identity()" if stride == 1 else f"FactorizedReduce({width}, channels, NORM)"
        case "sep":
            return f"SeparableConv({common}, {edge.width})"
        case "dil":
            return f"DilatedConv({common})"
        case "conv":
            return f"ReluConvNorm({common})"
        case "split":
            return f"SplitConv({common})"
        case "poolconv":
            return f"PoolConv({width}, channels, {stride})"
        case "group":
            return f"GroupConv({common})"
        case "dwgroup":
            return f"DepthwiseGroupConv({common})"
        case "max" | "avg":
            apart = "" if family == "max" else ", count_include_pad=False"
            pool = f"nn.{family.capitalize()}Pool2d({kernel}, {stride}, padding={kernel // 2}{apart})"
            return f"nn.Sequential({pool}, NORM(channels))" if cell.pool_norm else pool
        case _:
            raise ExportError(f"op '{edge.op}' has no Python source yet; add its family to nas_core/exports/_source.py")


def _pre(cell: CellType) -> str:
    """The list of what a cell does to its inputs first, as nas_core.ops.prepare does."""
    if all(op == "conv_1x1" for op in cell.pre):
        return "[preprocess(width, channels, stride, NORM) for width, stride in before]"
    return f"[{', '.join(_prepare(op, n) for n, op in enumerate(cell.pre))}]"


def _prepare(op: str, place: int) -> str:
    if op == BARE:
        return "nn.Identity()"
    width, stride = f"before[{place}][0]", f"before[{place}][1]"
    if op == "conv_1x1":
        return f"preprocess({width}, channels, {stride}, NORM)"
    family, groups = FAMILIES[op]
    kind = {"group": "GroupConv", "dwgroup": "DepthwiseGroupConv"}[family]
    return f"{kind}({width}, channels, {groups}, {stride}, NORM)"


def _classifiers(module: Classifier) -> list[type[Classifier]]:
    """The class of a network's classifier, after what it stands on."""
    return [Classifier, NormClassifier] if isinstance(module, NormClassifier) else [Classifier]


def _definitions(names: set[str]) -> list[str]:
    """Source of those that nas_core.ops defines and of all they refer to, in the order of that file."""
    kinds = inspect.isclass, inspect.isfunction
    every = {name: thing for name, thing in vars(ops).items() if any(kind(thing) for kind in kinds)}
    there = {name: thing for name, thing in every.items() if thing.__module__ == ops.__name__ or name in TAKEN}
    texts: dict[str, str] = {}
    waiting = names & set(there)
    while waiting:
        name = waiting.pop()
        texts[name] = inspect.getsource(there[name])
        meant = {node.id for node in ast.walk(ast.parse(texts[name])) if isinstance(node, ast.Name)}
        waiting |= (meant & set(there)) - set(texts) - GIVEN
    return [texts[name] for name in there if name in texts]


def _stem(stem: Stem) -> str:
    first, second = (indent(_layers(part), " " * 8).lstrip() for part in (stem.first, stem.second))
    return STEM.format(first=first, second=second, forward=inspect.getsource(Stem.forward))


def _layers(part: nn.Module) -> str:
    """The call that makes a plain layer or several in a row."""
    match part:
        case nn.Sequential():
            return "nn.Sequential(\n" + "".join(f"    {_layers(layer)},\n" for layer in part) + ")"
        case nn.Conv2d():
            kernel, stride, padding = part.kernel_size[0], part.stride[0], part.padding[0]
            return (
                f"nn.Conv2d({part.in_channels}, {part.out_channels}, {kernel}, {stride}, padding={padding}, bias=False)"
            )
        case nn.BatchNorm2d():
            return f"NORM({part.num_features})"
        case nn.ReLU() | nn.Identity():
            return f"nn.{type(part).__name__}()"
        case _:
            raise ExportError(f"{type(part).__name__} has no Python source yet; add it to nas_core/exports/_source.py")


def _cell(cell: CellType, kind: str, name: str, calls: list[str]) -> str:
    first = cell.inputs
    made = [
        f"{' ' * 16}{call},  # {place}: node {edge.source} -> node {edge.target}"
        for place, (edge, call) in enumerate(zip(cell.edges, calls, strict=True))
    ]
    nodes = []
    for node in range(first, first + cell.nodes):
        terms = [
            f"self.ops[{place}](node{edge.source})" + ("" if edge.weight is None else f" * {edge.weight!r}")
            for place, edge in enumerate(cell.edges)
            if edge.target == node
        ]
        line = f"        node{node} = {' + '.join(terms)}"
        if len(line) > WIDTH:
            line = f"        node{node} = (\n            " + "\n            + ".join(terms) + "\n        )"
        nodes.append(line)
    joined = ", ".join(f"node{node}" for node in cell.concat)
    return CELL.format(
        name=name,
        first=first,
        last=first + cell.nodes - 1,
        type=ascii(kind),
        inputs=cell.inputs,
        pre=_pre(cell),
        ops="\n".join(made),
        given=", ".join(f"node{node}" for node in range(first)) if first > 1 else "(node0,)",
        nodes="\n".join(nodes),
        out=f"cat([{joined}], dim=1)" if cell.combine == "concat" else f"node{first + cell.nodes - 1}",
    )


def _network(where: list[Site], names: dict[str, str], classifier: str) -> str:
    cells = [f"{' ' * 16}{names[site.type]}({list(site.inputs)}, {site.channels})," for site in where]
    return NETWORK.format(cells="\n".join(cells), classifier=classifier, outputs=where[-1].outputs)


def _text(network: nn.Module) -> str:
    """All floating-point numbers of the state, in its order, as base64 in lines."""
    tensors = [tensor.float().flatten() for tensor in network.state_dict().values() if tensor.is_floating_point()]
    text = base64.b64encode(torch.cat(tensors).numpy().astype("<f4").tobytes()).decode("ascii")
    return "\n".join(text[start : start + WIDTH] for start in range(0, len(text), WIDTH))
