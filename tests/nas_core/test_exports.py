"""Exports: every format gives the network's logits in a process that has nothing but the format's own runtime."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton
from nas_core.costs import CONNECTIONS, count
from nas_core.errors import ExportError, InvalidGenotypeError, MissingExtraError, UnknownNameError
from nas_core.exports import Model, export, exports
from nas_core.exports._source import source
from nas_core.network import Network
from nas_core.ops import FAMILIES, PointConv
from nas_core.spaces.nasbench201 import NasBench201, from_arch
from tests.runtimes import alone, install

pytestmark = pytest.mark.slow

BATCHES = (1, 3, 7)
PREPARING = ("conv_1x1", *CONNECTIONS)
"""What brings inputs to their cell; the usual one twice."""
GRAPHS = (0, 3)
"""Seeds of drawn networks that are written in every format."""
SOURCES = (1, 2, *range(4, 12))
"""Seeds of others, for the formats that take no seconds to write."""
ROOT = Path(__file__).parents[2]
AWKWARD = 'größe """\n\\ {x}'
"""A cell type's name comes from users, and must not break the source."""


def of_every_op(reduction: bool) -> CellType:
    """Nodes of 1, 2, 3 and more inputs; every op leaves an input, so that it has stride 2 in a reduction cell."""
    targets = [2, 3, 3, 4, 4, 4, *[5] * (len(FAMILIES) - 6)]
    edges = [
        Edge(target, place % 2, op, 5 if op == "sep_conv_5x5" else None, -0.5 if op == "conv_3x3" else None)
        for place, (target, op) in enumerate(zip(targets, FAMILIES, strict=True))
    ]
    edges += [Edge(6, 2, "skip_connect"), Edge(6, 5, "none"), Edge(6, 3, "max_pool_3x3", None, 0.25)]
    return CellType(tuple(edges), nodes=5, reduction=reduction, concat=(4, 5, 6), pool_norm=reduction)


def chain(op: str, reduction: bool) -> CellType:
    return CellType((Edge(1, 0, op),), 1, 1, reduction, "last", (), ("conv_1x1",), width=None if reduction else 7)


def plain() -> CellType:
    return CellType(
        (Edge(2, 0, "sep_conv_3x3"), Edge(3, 1, "skip_connect"), Edge(3, 2, "conv_1x1")), 2, 2, concat=(2, 3)
    )


ARCHITECTURES = {
    "every_op": Architecture(
        Genotype("made up", {AWKWARD: of_every_op(False), "2nd": of_every_op(True)}),
        Skeleton((AWKWARD, "2nd"), 4, "cifar", (3, 13, 11), 7),
    ),
    "imagenet": Architecture(
        Genotype("made up", {"normal": plain()}), Skeleton(("normal", "normal"), 6, "imagenet", (2, 37, 43), 5)
    ),
    "residual": Architecture(
        from_arch("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"),
        NasBench201(cells=5, channels=4).skeleton((3, 13, 11), 7),
    ),
    "chain": Architecture(
        Genotype("chains", {"a": chain("dil_conv_3x3", False), "A": chain("skip_connect", True)}),
        Skeleton(("a", "A"), 4, "cifar", (1, 9, 8), 3),
    ),
}


def any_cell(rng: np.random.Generator, inputs: int, reduction: bool) -> CellType:
    """Any fan-in, the same edge several times, any op, any of the nodes in the output in any order."""
    nodes = int(rng.integers(1, 5))
    edges = []
    for target in range(inputs, inputs + nodes):
        for _ in range(rng.integers(1, 6)):
            op = str(rng.choice(list(FAMILIES)))
            width = int(rng.integers(1, 9)) if op.startswith("sep_conv") and rng.random() < 0.5 else None
            weight = float(rng.normal()) if rng.random() < 0.3 else None
            edges.append(Edge(target, int(rng.integers(target)), op, width, weight))
    shown = rng.permutation(np.arange(inputs, inputs + nodes))[: rng.integers(1, nodes + 1)]
    last = rng.random() < 0.3
    return CellType(
        tuple(edges),
        inputs,
        nodes,
        reduction,
        "last" if last else "concat",
        () if last else tuple(int(node) for node in shown),
        tuple(str(op) for op in rng.choice(PREPARING, inputs)),
        pool_norm=bool(rng.random() < 0.5),
        width=int(rng.integers(2, 9)) if rng.random() < 0.3 else None,
    )


def drawn(seed: int) -> Architecture:
    """What a genotype can say and the builder builds, by chance; stems and channels of images take turns."""
    rng = np.random.default_rng(seed)
    while True:
        types = {
            f"{inputs} {reduction}": any_cell(rng, inputs, reduction)
            for inputs in (1, 2)
            for reduction in (False, True)
        }
        stem = ("cifar", "imagenet")[seed % 2]
        height, width = (int(size) for size in rng.integers(5, 20, 2) * (1 + seed % 2))
        skeleton = Skeleton(
            tuple(str(name) for name in rng.choice(list(types), rng.integers(2, 4))),
            int(rng.integers(2, 9)),
            stem,
            ((1, 3)[seed // 2 % 2], height, width),
            int(rng.integers(2, 9)),
        )
        architecture = Architecture(Genotype("drawn", types), skeleton)
        try:
            count(architecture)
        except InvalidGenotypeError:  # maps of sizes that do not meet
            continue
        return architecture


def trained(architecture: Architecture) -> Model:
    """As after training: an auxiliary head where there is room, statistics and weights that nothing else has, and
    logits of the usual size.
    """
    torch.manual_seed(0)
    network = Network(architecture, auxiliary=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    with torch.no_grad():
        logits = network.eval()(torch.randn(16, *architecture.skeleton.input))
        network.classifier.linear.weight.mul_(3 / max(float(logits.abs().max()), 1e-3))
    channels = architecture.skeleton.input[0]
    return Model(architecture, network.state_dict(), (0.5, 33.25, 1 / 3)[:channels], (0.25, 0.1, 60.0)[:channels])


@dataclass
class Written:
    """A folder of files of every architecture, by ``NAME.SUFFIX``, with weights, images and the network's logits as
    NumPy and as PyTorch keep them.
    """

    folder: Path
    models: dict[str, Model]
    differences: dict[str, float]

    def path(self, name: str, format: str) -> Path:
        return self.folder / f"{name}{exports[format].suffix}"


def write(folder: Path, architectures: dict[str, Architecture], formats: Iterable[str] = tuple(exports)) -> Written:
    made = Written(folder, {name: trained(architecture) for name, architecture in architectures.items()}, {})
    for name, model in made.models.items():
        for format in formats:
            made.differences[f"{name}.{format}"] = export(format, model, made.path(name, format))
        network = Network(model.architecture)
        weights = {key: value for key, value in model.weights.items() if "auxiliary" not in key}
        network.load_state_dict(weights)
        np.savez(folder / f"{name}.weights.npz", **{key: value.numpy() for key, value in weights.items()})
        for batch in BATCHES:
            shape = model.architecture.skeleton.input
            images = torch.randn(batch, *shape) + 2 * torch.randn(batch, shape[0], 1, 1)
            with torch.no_grad():
                logits = network.eval()(images)
            torch.save((images, logits), folder / f"{name}.{batch}.pt")
            np.savez(folder / f"{name}.{batch}.npz", images=images.numpy(), logits=logits.numpy())
    return made


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("exports"), ARCHITECTURES)


@pytest.fixture(scope="module")
def files(written: Written) -> Written:
    """What is written, and networks by chance beside it: a process looks at all."""
    by_chance = write(written.folder, {f"drawn{seed}": drawn(seed) for seed in GRAPHS})
    return Written(written.folder, {**written.models, **by_chance.models}, by_chance.differences)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Written:
    names = {f"drawn{seed}": drawn(seed) for seed in SOURCES}
    return write(tmp_path_factory.mktemp("sources"), names, ("json", "python", "safetensors"))


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each format needs where it is used, as its page says: folders of packages."""
    folder = tmp_path_factory.mktemp("runtimes")
    needed = {
        "onnx": ("onnxruntime", "numpy"),
        "torch": ("torch",),
        "weights": ("torch", "safetensors"),
        "safetensors": ("safetensors", "numpy"),
    }
    return {name: install(folder / name, *packages) for name, packages in needed.items()}


COMPARE = f"""
def compare(name, label, run, load):
    for batch in {BATCHES}:
        images, expected = load(name, batch)
        found = run(images)
        assert found.shape == expected.shape, (name, label, found.shape)
        print(name + "." + label, batch, float(abs(found - expected).max()))
"""
WITH_NUMPY = """
import numpy as np

def load(name, batch):
    kept = np.load(f"{name}.{batch}.npz")
    return kept["images"], kept["logits"]
"""
WITH_TORCH = """
import runpy
import torch

torch.set_num_threads(1)
torch.set_grad_enabled(False)

def load(name, batch):
    return torch.load(f"{name}.{batch}.pt")
"""


def differences(printed: str) -> dict[str, float]:
    return {f"{name} {batch}": float(value) for name, batch, value in map(str.split, printed.splitlines())}


def assert_close(found: dict[str, float], files: Written, kinds: int = 1) -> None:
    assert len(found) == kinds * len(BATCHES) * len(files.models)
    assert all(difference <= 1e-4 for difference in found.values()), found


def test_networks_here_are_worth_comparing(written: Written) -> None:
    for name in written.models:
        logits = np.load(written.folder / f"{name}.7.npz")["logits"]
        assert logits.std(axis=0).min() > 1e-3, "images of a batch get different logits"
        assert np.abs(logits).max() < 100
    assert any("auxiliary" in key for key in written.models["imagenet"].weights)
    assert {edge.op for edge in of_every_op(True).edges} == set(FAMILIES)


def test_what_is_drawn_has_everything() -> None:
    architectures = [drawn(seed) for seed in (*GRAPHS, *SOURCES)]
    assert {(found.skeleton.stem, found.skeleton.input[0]) for found in architectures} == {
        (stem, channels) for stem in ("cifar", "imagenet") for channels in (1, 3)
    }
    used = [found.genotype.types[name] for found in architectures for name in set(found.skeleton.cells)]
    assert {(cell.inputs, cell.reduction) for cell in used} == {(n, r) for n in (1, 2) for r in (False, True)}
    assert {cell.combine for cell in used} == {"concat", "last"} and {cell.pool_norm for cell in used} == {False, True}
    assert any(1 < len(cell.concat) < cell.nodes for cell in used), "some of the nodes"
    assert any(list(cell.concat) != sorted(cell.concat) for cell in used), "in another order"
    assert {edge.op for cell in used for edge in cell.edges} == set(FAMILIES)
    fans = {len(cell.into(node)) for cell in used for node in range(cell.inputs, cell.inputs + cell.nodes)}
    assert fans == {1, 2, 3, 4, 5}
    wires = [Counter((edge.target, edge.source) for edge in cell.edges) for cell in used]
    assert any(max(wire.values()) > 1 for wire in wires), "several ops on one edge"


def test_what_export_returns_is_within_the_limit(written: Written) -> None:
    assert len(written.differences) == len(ARCHITECTURES) * len(exports)
    assert all(0 <= difference <= 1e-4 for difference in written.differences.values())


def test_onnx_needs_onnxruntime_and_numpy_alone(files: Written, runtimes: dict[str, Path]) -> None:
    script = f"""
import onnxruntime

for name in {list(files.models)}:
    session = onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
    compare(name, "onnx", lambda images: session.run(["logits"], {{"input": images}})[0], load)
"""
    absent = ("torch", "onnx", "onnxscript", "safetensors")
    printed = alone(WITH_NUMPY + COMPARE + script, files.folder, runtimes["onnx"], absent)
    assert_close(differences(printed), files)


def test_pt2_and_python_need_torch_alone(files: Written, runtimes: dict[str, Path]) -> None:
    script = f"""
for name in {list(files.models)}:
    compare(name, "pt2", torch.export.load(name + ".pt2").module(), load)
    compare(name, "python", runpy.run_path(name + ".py")["load"](), load)
"""
    absent = ("numpy", "onnx", "onnxruntime", "safetensors")
    printed = alone(WITH_TORCH + COMPARE + script, files.folder, runtimes["torch"], absent)
    assert_close(differences(printed), files, kinds=2)


@pytest.mark.slow
def test_python_files_of_many_networks(sources: Written, runtimes: dict[str, Path]) -> None:
    script = f"""
for name in {list(sources.models)}:
    compare(name, "python", runpy.run_path(name + ".py")["load"](), load)
"""
    assert_close(differences(alone(WITH_TORCH + COMPARE + script, sources.folder, runtimes["torch"])), sources)


def test_weights_by_name_are_those_of_the_python_source(files: Written, runtimes: dict[str, Path]) -> None:
    script = f"""
from safetensors.torch import load_file

for name in {list(files.models)}:
    network = runpy.run_path(name + ".py")["Network"]().eval()
    network.load_state_dict(load_file(name + ".safetensors"))
    compare(name, "safetensors", network, load)
"""
    printed = alone(WITH_TORCH + COMPARE + script, files.folder, runtimes["weights"], ("numpy", "onnx"))
    assert_close(differences(printed), files)


def test_safetensors_are_read_without_torch(files: Written, runtimes: dict[str, Path]) -> None:
    script = f"""
import json
import numpy as np
from safetensors import safe_open

for name in {list(files.models)}:
    kept = np.load(name + ".weights.npz")
    with safe_open(name + ".safetensors", "np") as file:
        assert set(file.keys()) == set(kept), name
        for key in kept:
            assert np.array_equal(file.get_tensor(key), kept[key]), (name, key)
        print(json.dumps(json.loads(file.metadata()["skyline"])))
"""
    printed = alone(script, files.folder, runtimes["safetensors"], ("torch", "onnx"))
    assert [json.loads(line) for line in printed.splitlines()] == [model.facts for model in files.models.values()]


def test_json_needs_nothing(files: Written) -> None:
    """Its hash is that of its canonical text."""
    script = f"""
import hashlib
import json

for name in {list(files.models)}:
    with open(name + ".json", encoding="utf-8") as file:
        architecture = json.load(file)
    text = json.dumps(architecture, sort_keys=True, separators=(",", ":"))
    print(hashlib.sha256(text.encode()).hexdigest(), len(architecture["skeleton"]["cells"]))
"""
    found = [line.split() for line in alone(script, files.folder, None, ("torch", "numpy")).splitlines()]
    expected = [model.architecture for model in files.models.values()]
    assert found == [[each.hash, str(len(each.skeleton.cells))] for each in expected]


def test_the_python_file_says_what_it_is(written: Written, runtimes: dict[str, Path]) -> None:
    script = "import runpy; runpy.run_path('every_op.py', run_name='__main__')"
    printed = alone(script, written.folder, runtimes["torch"], ("numpy",))
    model = written.models["every_op"]
    assert model.architecture.hash in printed
    assert "3 x 13 x 11" in printed and "(0.5, 33.25, 0.3333333333333333)" in printed and "7 logits" in printed


# --- names that come from users ---------------------------------------------------------------------------------------


def named(kind: str, space: str) -> Model:
    """The same network under another name, with the same weights."""
    skeleton = Skeleton((kind,), 4, "cifar", (1, 9, 8), 3)
    architecture = Architecture(Genotype(space, {kind: chain("dil_conv_3x3", False)}), skeleton)
    return Model(architecture, weights_of_a_chain(), (0.5,), (0.25,))


@cache
def weights_of_a_chain() -> dict[str, torch.Tensor]:
    skeleton = Skeleton(("plain",), 4, "cifar", (1, 9, 8), 3)
    network = Network(Architecture(Genotype("plain", {"plain": chain("dil_conv_3x3", False)}), skeleton))
    return dict(network.state_dict())


def shape_of(text: str) -> str:
    """A file's statements without what text says: constants and the names of cells' classes."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value, node.kind = type(node.value).__name__, None
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Cell"):
            node.name = "Cell"
        elif isinstance(node, ast.Name) and re.fullmatch("[A-Za-z0-9]+Cell[0-9]*", node.id):
            node.id = "Cell"
    return ast.dump(tree)


@cache
def plain_shape() -> str:
    return shape_of(source(named("plain", "plain")))


CODE = "__import__('pathlib').Path('canary').touch()"
ATTACKS = [
    CODE,
    f'"""\n{CODE}\n"""',
    f"{3 * chr(39)}\n{CODE}\n{3 * chr(39)}",
    f"'\n{CODE}\n#",
    f'"\n{CODE}\n#',
    f"\\'\n{CODE}\n#",
    f"# \r{CODE}",
    f"x\u2028{CODE}\u2029{CODE}\x85{CODE}\x0c{CODE}",
    f"\u202e{CODE}\u2066",
    "{HASH}{0.__class__.__mro__}{weights}",
    "import",
    "9" * 300,
    "",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_name_never_becomes_code(attack: str, tmp_path: Path, runtimes: dict[str, Path]) -> None:
    text = source(named(attack, attack))
    assert shape_of(text) == plain_shape()
    if attack is CODE or '"""' in attack:  # the others would only take the same time
        (tmp_path / "network.py").write_text(text, encoding="utf-8")
        script = "import runpy; found = runpy.run_path('network.py', run_name='__main__'); found['load']()"
        alone(script, tmp_path, runtimes["torch"])
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py"] in ([], ["__pycache__"])


@settings(max_examples=30, derandomize=True)
@given(kind=st.text(), space=st.text(max_size=300))
def test_any_name_is_kept_as_text(kind: str, space: str) -> None:
    model = named(kind, space)
    text = source(model)
    assert shape_of(text) == plain_shape()
    assert all(character == "\n" or character.isprintable() for character in text)
    found = {
        node.targets[0].id: node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert ast.literal_eval(found["ARCHITECTURE"]) == model.architecture.to_json()


def without(libraries: tuple[str, ...], script: str, folder: Path) -> str:
    """What a process prints in which ours can be imported, and these libraries cannot."""
    head = f"import sys\n\nfor name in {libraries}:\n    sys.modules[name] = None\n"
    command = [sys.executable, "-W", "error", "-c", head + script]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_formats_are_described_without_torch(tmp_path: Path) -> None:
    script = """
from nas_core.exports import exports

for name, format in exports.items():
    print(name, format.media_type, format.suffix, format.needs_weights, format.extra)
"""
    libraries = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")
    assert without(libraries, script, tmp_path).splitlines() == [
        "json application/json .json False None",
        "onnx application/octet-stream .onnx True onnx",
        "pt2 application/octet-stream .pt2 True None",
        "python text/x-python .py True None",
        "safetensors application/octet-stream .safetensors True None",
    ]


def strided(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) and max(module.stride) > 1 for module in network.modules())


def test_graphs_hold_the_strided_convolutions(written: Written) -> None:
    """Not the picked pixels that PointConv takes in training (docs/decisions/0013)."""
    for name, model in written.models.items():
        wanted = strided(Network(model.architecture))
        nodes = onnx.load(written.path(name, "onnx")).graph.node
        strides = [
            max(a.ints) for node in nodes if node.op_type == "Conv" for a in node.attribute if a.name == "strides"
        ]
        assert sum(stride > 1 for stride in strides) == wanted > 0
        program = torch.export.load(written.path(name, "pt2"))
        calls = Counter(str(node.target) for node in program.graph.nodes)
        steps = [node.args[3] for node in program.graph.nodes if "conv2d" in str(node.target) and len(node.args) > 3]
        assert sum(max(step) > 1 for step in steps) == wanted
        assert calls["aten.conv2d.default"] == sum(
            isinstance(m, nn.Conv2d) for m in Network(model.architecture).modules()
        )


def test_a_point_convolution_is_exported_with_its_stride_where_gradients_are_on() -> None:
    program = torch.export.export(PointConv(4, 6, 2), (torch.randn(2, 4, 6, 6),))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.conv2d.default"]


def test_metadata(written: Written) -> None:
    model = written.models["every_op"]
    graph = onnx.load(written.path("every_op", "onnx"))
    found = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(found["skyline"]) == model.facts
    assert json.loads(found["mean"]) == [0.5, 33.25, 1 / 3] and json.loads(found["std"]) == [0.25, 0.1, 60.0]
    assert json.loads(found["input"]) == [3, 13, 11] and found["classes"] == "7"
    (images,), (logits,) = graph.graph.input, graph.graph.output
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (images, logits)]
    assert (images.name, logits.name) == ("input", "logits")
    assert shapes == [["batch", 3, 13, 11], ["batch", 7]]
    held = {"skyline.json": ""}
    torch.export.load(written.path("every_op", "pt2"), extra_files=held)
    assert json.loads(held["skyline.json"]) == model.facts


def test_files_name_no_path_of_the_machine_that_wrote_them(written: Written) -> None:
    for name in written.models:
        for format in exports:
            assert str(ROOT).encode() not in written.path(name, format).read_bytes()


def test_a_weights_file_is_read_again_without_its_auxiliary_head(written: Written) -> None:
    for name, model in written.models.items():
        path = written.path(name, "safetensors")
        found = Model.load(path)
        assert found.facts == model.facts
        assert set(load_file(path)) == set(Network(model.architecture).state_dict())


@pytest.mark.parametrize("format", ["safetensors", "python"])
def test_equal_models_give_equal_files(format: str, written: Written, tmp_path: Path) -> None:
    model = Model.load(written.path("imagenet", "safetensors"))
    export(format, model, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == written.path("imagenet", format).read_bytes()


def moved(model: Model, by: float) -> Model:
    bias = model.weights["classifier.linear.bias"]
    return replace(model, weights={**model.weights, "classifier.linear.bias": bias + by})


@pytest.mark.parametrize("format", [name for name in exports if exports[name].needs_weights])
def test_a_file_that_differs_is_refused_with_the_figure(format: str, written: Written) -> None:
    model, path, check = written.models["chain"], written.path("chain", format), exports[format]().check
    with pytest.raises(
        ExportError, match=r"a logit of the \w+ file differs by 0\.5 from the network's, more than 0\.0001"
    ):
        check(path, moved(model, 0.5))
    with pytest.raises(ExportError, match="differs by nan"):
        check(path, moved(model, float("nan")))
    assert check(path, moved(model, 5e-5)) == pytest.approx(5e-5, rel=0.1)
    with pytest.raises(ExportError, match=f"the {format} file does not say which network it holds"):
        check(path, replace(model, mean=(0.75,)))


def test_a_file_that_holds_another_architecture_is_refused(written: Written) -> None:
    with pytest.raises(ExportError, match="the json file holds architecture"):
        exports["json"]().check(written.path("chain", "json"), written.models["imagenet"])


def test_what_was_there_stays_where_an_export_fails(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "network.py"
    path.write_text("as before")
    with pytest.raises(ExportError, match="differs by nan"):
        export("python", moved(written.models["chain"], float("nan")), path)
    assert path.read_text() == "as before" and list(tmp_path.iterdir()) == [path]


def test_networks_that_cannot_be_exported(written: Written, tmp_path: Path) -> None:
    model = written.models["chain"]
    bare = Model(model.architecture)
    assert export("json", bare, tmp_path / "network.json") == 0
    with pytest.raises(ExportError, match="'pt2' needs trained weights.*verify it, or take its architecture"):
        export("pt2", bare, tmp_path / "network.pt2")
    with pytest.raises(ExportError, match="1 channels, but there are 0 means and 1 standard deviations"):
        replace(model, mean=())
    for mean, std in (((float("nan"),), (1.0,)), ((0.0,), (0.0,)), ((0.0,), (float("inf"),))):
        with pytest.raises(ExportError, match="images cannot be normalised by mean"):
            replace(model, mean=mean, std=std)
    with pytest.raises(ExportError, match=f"the weights are not those of architecture {model.architecture.hash}"):
        export("python", replace(model, weights=written.models["every_op"].weights), tmp_path / "network.py")
    with pytest.raises(UnknownNameError, match="unknown format 'tflite'; known: json, onnx, pt2, python, safetensors"):
        export("tflite", model, tmp_path / "network.tflite")


def test_a_missing_library_names_the_extra(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs onnxscript, onnxruntime.*pip install 'skyline-nas\[onnx\]'"):
        export("onnx", written.models["chain"], tmp_path / "network.onnx")
    with pytest.raises(MissingExtraError, match="needs onnxruntime, which"):
        exports["onnx"]().check(written.path("chain", "onnx"), written.models["chain"])


def test_files_that_are_no_weights_files(written: Written, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no tensors")
    with pytest.raises(
        ExportError, match="other is no weights file of a verified candidate.*verify the candidate again"
    ):
        Model.load(tmp_path / "other")
    with pytest.raises(ExportError, match="no weights file"):
        Model.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "said", ["[" * 10**5, '{"mean": [1' + "0" * 400 + "]}", "[]", "null", '{"architecture": 1, "mean": [], "std": []}']
)
def test_weights_files_that_say_nonsense_of_themselves(said: str, tmp_path: Path) -> None:
    save_file({"weights": torch.zeros(2)}, tmp_path / "nonsense", metadata={"skyline": said})
    with pytest.raises(ExportError, match="nonsense is no weights file of a verified candidate"):
        Model.load(tmp_path / "nonsense")
