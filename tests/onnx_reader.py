"""Counts a network in an ONNX file: an independent reader, which knows nothing of ours but the file.

What it reads are nodes, initialisers and inferred shapes. A convolution of H x W outputs takes
``outputs * H * W * inputs / groups * kernel`` multiply-adds, a linear layer ``inputs * outputs``.

Parameters, with batch norms that the exporter may have folded into the convolution before them. Our convolutions have
no bias. Folding ``y = gamma * (W x - mean) / deviation + beta`` leaves ``W' = gamma / deviation * W``, as many numbers
as ``W`` has, and a bias ``beta - gamma * mean / deviation``, one for each output. So a convolution of C outputs with a
bias is one without and a batch norm of C channels, whose gamma and beta are 2 C parameters: C of the bias in the file,
C that went into the weights. A batch norm that stands by itself shows its gamma and beta. Running means and variances
are no parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True)
class Count:
    """What a file holds."""

    convolutions: int
    """Numbers in kernels."""
    folded: int
    """Channels of batch norms that are folded into convolutions: numbers in biases."""
    norms: int
    """Numbers in gammas and betas of batch norms that stand by themselves."""
    linear: int
    """Weights and biases of linear layers."""
    macs: int
    """Of one image, convolutions and linear layers."""

    @property
    def params(self) -> int:
        """Of the network before anything was folded."""
        return self.convolutions + 2 * self.folded + self.norms + self.linear


def read(path: Path) -> Count:
    """Raises ValueError for anything that holds numbers and is no convolution, batch norm or linear layer."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    return _Reader(model).count()


class _Reader:
    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.weights = {each.name: each for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                (value,) = (attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR)
                self.weights[node.output[0]] = value
        self.shapes = {
            each.name: each.type.tensor_type.shape.dim for each in [*model.graph.value_info, *model.graph.output]
        }
        self.seen: set[str] = set()

    def count(self) -> Count:
        convolutions = folded = norms = linear = macs = 0
        for node in self.graph.node:
            if node.op_type == "Conv":
                kernel = self.taken(node, 1)
                convolutions += prod(kernel)
                macs += prod(kernel[1:]) * prod(self.of_one_image(node.output[0]))
                if len(node.input) > 2 and node.input[2]:
                    folded += prod(self.taken(node, 2))
            elif node.op_type == "BatchNormalization":
                norms += prod(self.taken(node, 1)) + prod(self.taken(node, 2))
                self.taken(node, 3), self.taken(node, 4)
            elif node.op_type == "Gemm":
                linear += prod(self.taken(node, 1))
                macs += prod(self.taken(node, 1))
                if len(node.input) > 2 and node.input[2]:
                    linear += prod(self.taken(node, 2))
        self.check_that_nothing_is_left()
        return Count(convolutions, folded, norms, linear, macs)

    def taken(self, node: NodeProto, place: int) -> tuple[int, ...]:
        """Shape of a node's weights."""
        name = node.input[place]
        if name not in self.weights:
            raise ValueError(f"input {place} of {node.op_type} '{node.name}' is '{name}', which is no constant")
        self.seen.add(name)
        return tuple(self.weights[name].dims)

    def of_one_image(self, name: str) -> list[int]:
        """A map's channels, height and width."""
        _, *rest = self.shapes[name]  # the batch comes first
        if not all(each.dim_value for each in rest):
            raise ValueError(f"the shape of '{name}' is not known: {self.shapes[name]}")
        return [each.dim_value for each in rest]

    def check_that_nothing_is_left(self) -> None:
        """A layer of another kind would hold numbers that were not counted; single ones scale or fill."""
        rest = [
            f"'{name}' {list(weights.dims)}"
            for name, weights in self.weights.items()
            if name not in self.seen and weights.data_type in FLOATS and prod(weights.dims) > 1
        ]
        if rest:
            raise ValueError(f"numbers that no convolution, batch norm or linear layer takes: {', '.join(rest)}")
