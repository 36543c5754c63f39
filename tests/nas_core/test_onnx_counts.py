"""What bounds count, counted again from exported ONNX files by a reader that knows nothing of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.exports import Model, export
from nas_core.network import Network
from nas_core.spaces.darts import DartsCells
from nas_core.spaces.nasbench201 import NasBench201, from_arch
from tests import onnx_reader

pytestmark = pytest.mark.slow


def darts(seed: int, stem: str = "cifar", size: int = 13) -> Architecture:
    space = DartsCells(cells=4, channels=4, nodes=3)
    skeleton = space.skeleton((3, size, size - 2), 7, stem=stem)
    return Architecture(space.sample(np.random.default_rng(seed)), skeleton)


CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
ARCHITECTURES = {
    **{f"darts{seed}": darts(seed) for seed in range(3)},
    "imagenet": darts(3, "imagenet", 64),
    "nasbench201": Architecture(from_arch(CELL), NasBench201(cells=5, channels=4).skeleton((3, 16, 16), 10)),
}


def trained(architecture: Architecture) -> Model:
    """As after training: no norm is the identity, so that nothing of it can be left out."""
    torch.manual_seed(0)
    network = Network(architecture)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    channels = architecture.skeleton.input[0]
    return Model(architecture, network.state_dict(), (0.5,) * channels, (0.25,) * channels)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_holds_what_the_bounds_count(name: str, tmp_path: Path) -> None:
    model = trained(ARCHITECTURES[name])
    export("onnx", model, tmp_path / "network.onnx")
    found, bounded = onnx_reader.read(tmp_path / "network.onnx"), count(model.architecture)
    assert (found.macs, found.params) == (bounded.macs, bounded.params)
    modules = list(Network(model.architecture).modules())
    kernels = sum(module.weight.numel() for module in modules if isinstance(module, nn.Conv2d))
    channels = sum(module.num_features for module in modules if isinstance(module, nn.BatchNorm2d))
    (linear,) = (module for module in modules if isinstance(module, nn.Linear))
    assert (found.convolutions, found.folded + found.norms // 2) == (kernels, channels)
    assert found.linear == linear.weight.numel() + linear.out_features
    assert found.folded > 0, "the exporter folds; where it no longer does, the reader's half of that is not tested"


def made(path: Path, *extra: onnx.NodeProto, weights: dict[str, np.ndarray]) -> Path:
    """A file with a 3x3 convolution of 2 to 4 channels and stride 2 on 6x8 images, and nodes behind it."""
    nodes = [helper.make_node("Conv", ["input", "w", "b"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]), *extra]
    given = {"w": np.ones((4, 2, 3, 3), np.float32), "b": np.ones(4, np.float32), **weights}
    shape = ["batch", 4, 3, 4]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2, 6, 8])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_the_reader_by_hand(tmp_path: Path) -> None:
    norm = helper.make_node("BatchNormalization", ["y", "gamma", "beta", "mean", "variance"], ["z"])
    found = onnx_reader.read(
        made(tmp_path / "norm", norm, weights={name: np.ones(4, np.float32) for name in norm.input[1:]})
    )
    assert found == onnx_reader.Count(convolutions=72, folded=4, norms=8, linear=0, macs=72 * 3 * 4)
    assert found.params == 72 + 8 + 8


def test_numbers_that_nothing_known_takes_are_refused(tmp_path: Path) -> None:
    scaled = helper.make_node("Mul", ["y", "s"], ["z"])
    with pytest.raises(ValueError, match=r"no convolution, batch norm or linear layer takes: 's' \[1, 4, 1, 1\]"):
        onnx_reader.read(made(tmp_path / "scaled", scaled, weights={"s": np.ones((1, 4, 1, 1), np.float32)}))
    plain = helper.make_node("Mul", ["y", "s"], ["z"])
    onnx_reader.read(made(tmp_path / "plain", plain, weights={"s": np.ones((), np.float32)}))
