"""Exports: every format gives the network's logits in a process that has nothing but the format's own runtime."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nas_core.architecture import Architecture, CellType, Edge, Genotype, Skeleton
from nas_core.errors import ExportError, MissingExtraError, UnknownNameError
from nas_core.exports import Model, export, exports
from nas_core.network import Network
from nas_core.ops import FAMILIES, PointConv

OURS = ("skyline", "nas_core", "worker", "store", "api")
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
    "chain": Architecture(
        Genotype("chains", {"a": chain("dil_conv_3x3", False), "A": chain("skip_connect", True)}),
        Skeleton(("a", "A"), 4, "cifar", (1, 9, 8), 3),
    ),
}


def trained(architecture: Architecture) -> Model:
    """As after training: an auxiliary head where there is room, and statistics and weights that nothing else has."""
    torch.manual_seed(0)
    network = Network(architecture, auxiliary=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    nn.init.normal_(network.classifier.linear.weight, 0, 3)
    channels = architecture.skeleton.input[0]
    return Model(architecture, network.state_dict(), (0.5, 33.25, 1 / 3)[:channels], (0.25, 0.1, 60.0)[:channels])


@dataclass
class Written:
    """A folder of files of every architecture, by ``NAME.SUFFIX``, with images and the network's logits beside."""

    folder: Path
    models: dict[str, Model]
    differences: dict[str, float]

    def path(self, name: str, format: str) -> Path:
        return self.folder / f"{name}{exports[format].suffix}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("exports")
    made = Written(folder, {name: trained(architecture) for name, architecture in ARCHITECTURES.items()}, {})
    for name, model in made.models.items():
        for format in exports:
            made.differences[f"{name}.{format}"] = export(format, model, made.path(name, format))
        network = Network(model.architecture)
        network.load_state_dict({key: value for key, value in model.weights.items() if "auxiliary" not in key})
        for batch in (1, 5):
            shape = model.architecture.skeleton.input
            images = torch.randn(batch, *shape) + 2 * torch.randn(batch, shape[0], 1, 1)
            np.save(folder / f"{name}.{batch}.images.npy", images.numpy())
            with torch.no_grad():
                np.save(folder / f"{name}.{batch}.logits.npy", network.eval()(images).numpy())
    return made


BLOCKED = """
import sys

for name in {blocked}:
    sys.modules[name] = None  # as if it were not installed
"""

COMPARE = """
import numpy as np

def compare(name, label, run):
    for batch in (1, 5):
        expected = np.load(f"{name}.{batch}.logits.npy")
        found = np.asarray(run(np.load(f"{name}.{batch}.images.npy")))
        assert found.shape == expected.shape, (name, found.shape)
        print(name + "." + label, batch, float(np.abs(found - expected).max()))
"""


def alone(script: str, blocked: tuple[str, ...], folder: Path) -> str:
    """What a fresh process prints in which these packages cannot be imported."""
    text = BLOCKED.format(blocked=blocked) + script
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-P", "-W", "error", "-c", text]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def differences(printed: str) -> dict[str, float]:
    return {f"{name} {batch}": float(value) for name, batch, value in map(str.split, printed.splitlines())}


def assert_close(found: dict[str, float], kinds: int = 1) -> None:
    assert len(found) == kinds * 2 * len(ARCHITECTURES)
    assert all(difference <= 1e-4 for difference in found.values()), found


def test_networks_here_are_worth_comparing(written: Written) -> None:
    for name in written.models:
        logits = np.load(written.folder / f"{name}.5.logits.npy")
        assert logits.std(axis=0).min() > 1e-3, "images of a batch get different logits"
        assert np.abs(logits).max() < 100
    assert any("auxiliary" in key for key in written.models["imagenet"].weights)
    assert {edge.op for edge in of_every_op(True).edges} == set(FAMILIES)


def test_what_export_returns_is_within_the_limit(written: Written) -> None:
    assert len(written.differences) == len(ARCHITECTURES) * len(exports)
    assert all(0 <= difference <= 1e-4 for difference in written.differences.values())


def test_onnx_gives_the_logits_where_there_is_no_torch(written: Written) -> None:
    script = f"""
import onnxruntime

for name in {list(ARCHITECTURES)}:
    session = onnxruntime.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
    compare(name, "onnx", lambda images: session.run(["logits"], {{"input": images}})[0])
"""
    printed = alone(COMPARE + script, ("torch", "onnx", "onnxscript", "safetensors", *OURS), written.folder)
    assert_close(differences(printed))


def test_pt2_python_and_safetensors_give_the_logits_where_there_is_no_skyline(written: Written) -> None:
    script = f"""
import runpy
import torch
from safetensors.torch import load_file

torch.set_num_threads(1)
for name in {list(ARCHITECTURES)}:
    runs = {{"pt2": torch.export.load(name + ".pt2").module()}}
    there = runpy.run_path(name + ".py")
    runs["python"] = there["load"]()
    runs["safetensors"] = there["Network"]().eval()
    runs["safetensors"].load_state_dict(load_file(name + ".safetensors"))
    with torch.no_grad():
        for label, run in runs.items():
            compare(name, label, lambda images: run(torch.from_numpy(images)))
"""
    printed = alone(COMPARE + script, ("onnx", "onnxruntime", *OURS), written.folder)
    assert_close(differences(printed), kinds=3)


def test_the_python_file_says_what_it_is(written: Written) -> None:
    script = "import runpy; runpy.run_path('every_op.py', run_name='__main__')"
    printed = alone(script, ("onnx", "safetensors", *OURS), written.folder)
    model = written.models["every_op"]
    assert model.architecture.hash in printed
    assert "3 x 13 x 11" in printed and "(0.5, 33.25, 0.3333333333333333)" in printed and "7 logits" in printed


def test_formats_are_described_without_torch(tmp_path: Path) -> None:
    script = """
from nas_core.exports import exports

for name, format in exports.items():
    print(name, format.media_type, format.suffix, format.needs_weights, format.extra)
"""
    libraries = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")
    assert alone(script, libraries, tmp_path).splitlines() == [
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
