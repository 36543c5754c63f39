"""Weight masks: which single weights of a network's kernels there are (MGAS, arXiv 2310.15074).

A mask belongs to a kernel of a convolution inside a cell, by the name that this has in the stand-alone network
(``nas_core.network.Network``). Stem, classifier and auxiliary head have none: they depend on the images, and a genotype
with masks goes from one data set to another. A masked weight is zero in every forward, whatever is trained or loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture, Genotype
from nas_core.errors import InvalidGenotypeError
from nas_core.network import Network

WHERE = "cells."
"""What the name of a kernel begins with that may have a mask."""
KERNEL_AXES = 4
"""(outputs, inputs, height, width)."""
ALIGNMENT = 8
"""Bytes, of the tensors in a safetensors file."""


class Masks:
    """True where a weight stays, by kernel. What masks nothing is left out, so that equal masks have equal bytes.

    Raises InvalidGenotypeError for tensors that are not of booleans, and for names that no kernel of a cell can have.
    """

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        for name, tensor in kept.items():
            if not name.startswith(WHERE):
                raise InvalidGenotypeError(f"'{name}' cannot have a mask; kernels of cells can ('{WHERE}...')")
            if tensor.dtype != torch.bool or tensor.dim() != KERNEL_AXES:
                raise InvalidGenotypeError(
                    f"the mask of '{name}' is {tensor.dtype} of shape {tuple(tensor.shape)}; a tensor of booleans is "
                    "wanted, of the kernel's four axes"
                )
        self.kept: dict[str, Tensor] = {
            name: kept[name].detach().to("cpu", copy=True).contiguous() for name in sorted(kept) if not kept[name].all()
        }

    def __bool__(self) -> bool:
        """Whether they mask anything."""
        return bool(self.kept)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Masks({self.digest[:12]}: {self.removed} weights of {len(self.kept)} kernels)"

    @cached_property
    def removed(self) -> int:
        """Weights that are masked."""
        return sum(int((~tensor).sum()) for tensor in self.kept.values())

    @cached_property
    def remaining(self) -> int:
        """Weights that stay, of the kernels that have a mask."""
        return sum(int(tensor.sum()) for tensor in self.kept.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of ``to_bytes``: what ``Genotype.masks`` holds."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """A safetensors file, a byte for each weight.

        It is written here, because that library says nothing of the order and the spaces of its header.
        """
        header, start = {}, 0
        for name, tensor in self.kept.items():
            stop = start + tensor.numel()
            header[name] = {"dtype": "BOOL", "shape": list(tensor.shape), "data_offsets": [start, stop]}
            start = stop
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        content = b"".join(tensor.numpy().tobytes() for tensor in self.kept.values())
        return len(text).to_bytes(8, "little") + text + content

    @classmethod
    def from_bytes(cls, content: bytes) -> Masks:
        """Raises InvalidGenotypeError for what is no safetensors file of masks."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(content)
        except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
            raise InvalidGenotypeError(f"this is no file of weight masks: {str(error)[:200]}") from error
        return cls(tensors)

    def check(self, architecture: Architecture) -> None:
        """Raises InvalidGenotypeError unless these are the masks of the genotype, and fit the network's kernels."""
        wanted = architecture.genotype.masks
        if wanted != self.digest:
            named = "none" if wanted is None else f"those with SHA-256 {wanted}"
            raise InvalidGenotypeError(f"the genotype has weight masks {named}; these have SHA-256 {self.digest}")
        if not self:
            raise InvalidGenotypeError("these weight masks mask nothing; a genotype without masks says so")
        shapes = _shapes(architecture)
        for name, tensor in self.kept.items():
            found = shapes.get(name)
            if found is None:
                raise InvalidGenotypeError(f"the weight masks have one of '{name}', which is no kernel of this network")
            if found != tuple(tensor.shape):
                raise InvalidGenotypeError(
                    f"the weight mask of '{name}' has shape {tuple(tensor.shape)}, but the kernel has {found}; weight "
                    "masks stay with the widths that they were found at"
                )

    @torch.no_grad()
    def zero(self, network: nn.Module) -> None:
        """Makes the masked weights zero."""
        parameters = dict(network.named_parameters())
        for name, tensor in self.kept.items():
            weight = parameters[name]
            weight.masked_fill_(~tensor.to(weight.device), 0.0)

    def hold(self, network: nn.Module) -> None:
        """Makes the masked weights zero for good: they get no gradient, and what is loaded loses them.

        That equals kernels which are multiplied by their masks in every forward, to the bit: there a masked weight has
        the gradient 0 too, before gradients are clipped, and decay and momentum of a weight that is 0 are 0. Names and
        tensors stay those of the plain network.
        """
        self.zero(network)
        parameters = dict(network.named_parameters())
        for name, tensor in self.kept.items():
            if parameters[name].requires_grad:
                parameters[name].register_hook(_Withheld(~tensor))  # type: ignore[no-untyped-call]
        network.register_load_state_dict_post_hook(lambda module, _: self.zero(module))  # type: ignore[no-untyped-call]

    def leaks(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Names of the kernels in a state that have a masked weight which is not zero, or that are not there."""
        return [
            name
            for name, tensor in self.kept.items()
            if name not in weights or bool(weights[name].detach().cpu()[~tensor].count_nonzero())
        ]


class _Withheld:
    """A gradient without that of the masked weights, on whatever device it comes."""

    def __init__(self, gone: Tensor) -> None:
        self.gone = gone

    def __call__(self, gradient: Tensor) -> Tensor:
        if self.gone.device != gradient.device:
            self.gone = self.gone.to(gradient.device)
        return gradient.masked_fill(self.gone, 0.0)


def masked(genotype: Genotype, kept: Mapping[str, Tensor]) -> tuple[Genotype, Masks | None]:
    """The genotype that names these masks, and the masks; as it is and None, where they mask nothing."""
    masks = Masks(kept)
    return (replace(genotype, masks=masks.digest), masks) if masks else (genotype, None)


def require(architecture: Architecture, masks: Masks | None) -> None:
    """Raises InvalidGenotypeError unless a network with weight masks comes with them, and one without comes without."""
    if masks is not None:
        masks.check(architecture)
    elif architecture.genotype.masks is not None:
        raise InvalidGenotypeError(
            f"the network has weight masks with SHA-256 {architecture.genotype.masks}, which are not here; without "
            "them it is another network"
        )


def _shapes(architecture: Architecture) -> Mapping[str, tuple[int, ...]]:
    """Of every kernel of a cell, by name."""
    return _shapes_of(json.dumps(architecture.to_json(), sort_keys=True))


@lru_cache(maxsize=64)
def _shapes_of(text: str) -> dict[str, tuple[int, ...]]:
    architecture: Any = Architecture.from_json(text)
    with torch.device("meta"):
        network = Network(architecture)
    return {
        name: tuple(parameter.shape)
        for name, parameter in network.named_parameters()
        if name.startswith(WHERE) and parameter.dim() == KERNEL_AXES
    }
